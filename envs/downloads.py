"""Published files on this machine: fetched once, with a progress bar, and checked before their name counts."""

import contextlib
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

import h5py
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from steelyard.envs.d4rl_table import CHECKSUMS
from steelyard.envs.dataset_type import DatasetError

TIMEOUT_SECONDS = 30.0
"""Longest silence of the server."""
CHUNK = 1 << 20


def fetch(url: str, folder: Path) -> Path:
    """The HDF5 file at `url` in `folder`, under its published name; downloaded if it is not there.

    Written under a temporary name and renamed when its size, its checksum (where one is known) and its HDF5 structure are right.
    Raises `DatasetError`, which names the address and the path at which to put the file by hand.
    """
    path = folder / url.rsplit("/", 1)[-1]
    if path.exists():
        return path
    part = path.with_name(f".part.{os.getpid()}.{path.name}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        digest = _download(url, part)
        _check(path.name, part, digest)
        os.replace(part, path)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise DatasetError(
            f"{url} could not be downloaded ({' '.join(str(reason).split()).rstrip('.')}); "
            f"fetch it elsewhere and put it at {path.absolute()}, or give the path of the file."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # it is gone after the renaming, and may never have been there
            part.unlink()
    return path


def _download(url: str, part: Path) -> str:
    """Writes the bytes of `url` to `part` and returns their SHA-256. Raises `ValueError` if some are missing."""
    request = urllib.request.Request(url, headers={"User-Agent": "steelyard"})
    digest = hashlib.sha256()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with (
        urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer,
        part.open("wb") as file,
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
    ):
        length = answer.headers.get("Content-Length")
        expected = int(length) if length else None
        if not console.is_terminal:
            console.print(f"downloading {url}", soft_wrap=True, highlight=False)
        bar = progress.add_task(url.rsplit("/", 1)[-1], total=expected)
        received = 0
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            digest.update(chunk)
            received += len(chunk)
            progress.update(bar, completed=received)
    if expected is not None and received != expected:
        raise ValueError(f"the connection ended after {received:,} of {expected:,} bytes")
    return digest.hexdigest()


def _check(name: str, part: Path, digest: str) -> None:
    """Raises `ValueError` if what was downloaded is not the published file."""
    size, checksum = CHECKSUMS.get(name, (None, None))
    if size is not None and (part.stat().st_size, digest) != (size, checksum):
        raise ValueError(f"what came has {part.stat().st_size:,} bytes and another checksum than the published {size:,} bytes")
    try:
        h5py.File(part, "r").close()
    except OSError as error:
        raise ValueError("what came is no complete HDF5 file") from error
