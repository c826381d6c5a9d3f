"""Replay on the disk: one file with the cursors and the filled rows, and a small JSON manifest with layout and checksum."""

import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steelyard.trainers.durable import sync_folder, write_file

FORMAT = "steelyard replay 1"
_DATA, _MANIFEST = "replay.bin", "manifest.json"
_CHUNK = 1 << 25


class DamagedFile(Exception):
    """The files are incomplete, altered, or of another layout. The message is one sentence with the remedy."""


def save(folder: Path, tables: Sequence[Tensor], cursors: Tensor, layout: dict[str, int]) -> None:
    """Write cursors [num_envs] int64 and tables [stored, num_envs, ...] one after the other; raises `OSError` if the disk refuses."""
    folder.mkdir(parents=True, exist_ok=True)
    checksum = write_file(folder / _DATA, (_bytes(piece) for piece in (cursors, *_pieces(tables))))
    manifest = {
        "format": FORMAT,
        "byteorder": sys.byteorder,
        "layout": layout,
        "stored_rows": len(tables[0]),
        "crc32": checksum,
    }
    write_file(folder / _MANIFEST, [json.dumps(manifest, indent=1).encode()])
    sync_folder(folder)


def load(folder: Path, tables: Sequence[Tensor], cursors: Tensor, layout: dict[str, int]) -> None:
    """Fill tables [rows, num_envs, ...] and cursors in place; the rest of the first table becomes zeros. Raises `DamagedFile`.

    Everything is verified before the first row is overwritten.
    """
    manifest = _manifest(folder)
    try:
        saved = manifest["layout"]
        differing = [(name, saved.get(name), value) for name, value in layout.items() if saved.get(name) != value]
        order, stored, checksum = manifest["byteorder"], int(manifest["stored_rows"]), manifest["crc32"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DamagedFile(f"{folder / _MANIFEST} is damaged ({error!r}); use another checkpoint.") from error
    for name, was, value in differing:
        raise DamagedFile(f"The replay in {folder} has {name} {was}, this run has {value}; resume with the settings of its run.")
    if order != sys.byteorder:
        raise DamagedFile(f"The replay in {folder} is {order}-endian; continue the run on a machine like that it began on.")
    file, pieces = folder / _DATA, [cursors, *_pieces([table[:stored] for table in tables])]
    size = sum(piece.numel() * piece.element_size() for piece in pieces)
    if not file.is_file() or file.stat().st_size != size or _checksum(file) != checksum:
        raise DamagedFile(f"{file} is incomplete or altered (its size or checksum is wrong); use another checkpoint.")
    with file.open("rb") as stream:
        for piece in pieces:
            # bytearray: torch wants memory that may be written.
            raw = bytearray(stream.read(piece.numel() * piece.element_size()))
            piece.copy_(torch.frombuffer(raw, dtype=piece.dtype).view(piece.shape))
    tables[0][stored:] = 0


def _manifest(folder: Path) -> dict[str, Any]:
    file = folder / _MANIFEST
    try:
        manifest = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise DamagedFile(f"{file} does not exist; the folder holds no replay: use another checkpoint.") from error
    except ValueError as error:
        raise DamagedFile(f"{file} is no JSON ({error}); the replay is damaged: use another checkpoint.") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise DamagedFile(f"{file} has format {found!r} and not {FORMAT!r}; use a checkpoint of this version of the suite.")
    return manifest


def _pieces(tables: Sequence[Tensor]) -> Iterator[Tensor]:
    """Tables in pieces of about 32 MB, so that neither a file nor a copy from a GPU doubles the memory."""
    for table in tables:
        yield from table.split(max(1, _CHUNK // (table[0].numel() * table.element_size())))


def _bytes(piece: Tensor) -> memoryview:
    return piece.cpu().contiguous().numpy().data.cast("B")


def _checksum(file: Path) -> int:
    checksum = 0
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
