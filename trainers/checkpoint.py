"""Checkpoints that are whole or absent: written under a temporary name, flushed to the disk, then renamed.

A run's folder `checkpoints/` holds `step_<env_steps>/agent.pt` with `buffer/` (and `imagined/`, where a model fills replay of its own)
beside it, and `best/agent.pt`. `agent.pt` is a
`torch.save` of tensors and plain data, read with `weights_only=True`; its records carry checksums, so an altered file is noticed.
SIGKILL or a power cut at any moment leaves the old checkpoint or the new one. A damaged newest checkpoint is never passed over in
silence: loading it is refused, and the sentence names the older one that could be used instead.
"""

import errno
import io
import os
import re
import shutil
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from steelyard.agents.errors import SteelyardError
from steelyard.trainers.buffer import ReplayBuffer, ReplayError
from steelyard.trainers.durable import sync_folder, write_file

FORMAT = "steelyard checkpoint"
VERSION = 1
_TEMPORARY = ".unfinished_"
_REPLACED = ".replaced"
_AGENT, _BUFFER, _IMAGINED = "agent.pt", "buffer", "imagined"
_PLAIN = frozenset({int, float, bool, str, bytes, type(None)})


class CheckpointError(SteelyardError):
    """A checkpoint cannot be written, read or used. The message is one sentence that names the file and the remedy."""


def save(
    folder: Path,
    env_steps: int,
    state: dict[str, Any],
    buffer: ReplayBuffer | None = None,
    keep: int = 1,
    imagined: ReplayBuffer | None = None,
) -> Path:
    """Write `folder/step_<env_steps>/` and return its path; of the older ones only the newest `keep - 1` remain.

    `state` is nested dicts, lists and tuples of tensors and plain data. With a buffer the cost is one pass over its filled rows
    (108 MB for a million rows of 27 floats) and, until the older checkpoint is removed, their size on the disk twice.
    Raises `CheckpointError` if the disk refuses; the older checkpoints are then untouched and the unfinished one is gone.
    """
    target = folder / f"step_{env_steps}"
    unfinished = folder / f"{_TEMPORARY}{target.name}"
    content = _serialise(env_steps, state, target / _AGENT)
    with _reported(target, folder):
        clean(folder)
        unfinished.mkdir(parents=True)
        try:
            write_file(unfinished / _AGENT, [content])
            if buffer is not None:
                buffer.save(unfinished / _BUFFER)
            if imagined is not None:
                imagined.save(unfinished / _IMAGINED)
            sync_folder(unfinished)
            _replace(unfinished, target)
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        for old in _complete(folder)[keep:]:
            _remove(old)
    return target


def save_best(folder: Path, env_steps: int, state: dict[str, Any]) -> Path:
    """Write `folder/best/agent.pt` in place of the previous best and return its path. Raises `CheckpointError` as `save` does."""
    target = folder / "best" / _AGENT
    unfinished = target.with_name(f"{_TEMPORARY}{_AGENT}")
    content = _serialise(env_steps, state, target)
    with _reported(target, folder):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_file(unfinished, [content])
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
        unfinished.replace(target)
        sync_folder(target.parent)
    return target


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint in `folder`; None if there is none. Reads only, so it can look on while a run is saving."""
    return next(iter(_complete(folder)), None)


def load(path: Path, buffer: ReplayBuffer | None = None) -> tuple[int, dict[str, Any]]:
    """Read a checkpoint folder, or an `agent.pt` alone: `(env_steps, state)` as given to `save`; `buffer` is restored in place.

    Tensors are on the CPU. Raises `CheckpointError` if a file is missing, truncated, altered, foreign, of another version, or if
    the replay does not fit `buffer`.
    """
    file = path if path.suffix == ".pt" else path / _AGENT
    older = _older(file.parent)
    try:
        _require_intact(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} does not exist; give the folder of a checkpoint, or start anew.") from error
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror}); check the disk and the permissions.") from error
    except (zipfile.BadZipFile, zlib.error, RuntimeError, UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{file} is damaged or no checkpoint; delete {file.parent}{older}, or start anew.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            f"{file} is a torch file but not a checkpoint of this suite; delete {file.parent}{older}, or start anew."
        )
    if content["version"] != VERSION:
        raise CheckpointError(
            f"{file} has version {content['version']} of the checkpoint format where this code reads version {VERSION}; "
            "use the version of the suite that wrote it, or start anew."
        )
    if buffer is not None:
        load_replay(file.parent, buffer)
    return content["env_steps"], content["state"]


def load_replay(path: Path, buffer: ReplayBuffer, *, imagined: bool = False) -> None:
    """Restore the replay, or the `imagined` one, of the checkpoint folder `path` in place.

    Raises `CheckpointError` if it is damaged or does not fit.
    """
    try:
        buffer.load(path / (_IMAGINED if imagined else _BUFFER))
    except ReplayError as error:
        raise CheckpointError(f"{path} cannot be resumed: {error}") from error


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Around `load_state_dict` calls: what does not fit becomes a `CheckpointError` that names the checkpoint.

    `with fitting(path): agent.load_state_dict(state["agent"])`
    """
    try:
        yield
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise CheckpointError(
            f"{path} does not fit this run's agent, environment or settings; resume with the config it was saved with ({reason})."
        ) from error


def clean(folder: Path) -> None:
    """Remove what an interrupted `save` left in `folder`. Only for the process that saves there."""
    for leftover in folder.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(leftover)
    for replaced in folder.glob(f"step_*{_REPLACED}"):
        if replaced.with_suffix("").exists():
            _remove(replaced)


def _serialise(env_steps: int, state: dict[str, Any], target: Path) -> memoryview:
    """The bytes of `agent.pt`, made in memory so that a full disk is met by an ordinary write with an honest error."""
    _require_plain(state, "state", target)
    stream = io.BytesIO()
    torch.save({"format": FORMAT, "version": VERSION, "env_steps": env_steps, "state": state}, stream)
    return stream.getbuffer()


def _require_plain(value: Any, name: str, target: Path) -> None:
    """`torch.save` stores anything, `weights_only` reads only plain data: find out before the run depends on it."""
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            _require_plain(key, f"a key of {name}", target)
            _require_plain(item, f"{name}.{key}", target)
    elif type(value) in (list, tuple):
        for position, item in enumerate(value):
            _require_plain(item, f"{name}[{position}]", target)
    elif not isinstance(value, Tensor) and type(value) not in _PLAIN:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise CheckpointError(f"{target} cannot hold {name} of type {kind}; turn it into tensors and plain data before saving.")


def _require_intact(file: Path) -> None:
    """Raises `BadZipFile` unless every record of the archive has the checksum that it was written with."""
    with zipfile.ZipFile(file) as archive:
        # One flipped attribute bit would make torch read a record as an empty folder; torch writes no attributes.
        odd = next((record.filename for record in archive.infolist() if record.external_attr), None)
        damaged = odd or archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(damaged)


def _replace(unfinished: Path, target: Path) -> None:
    """Give the new folder its name; a folder cannot be renamed over another, so an older one of that name steps aside first."""
    replaced = target.with_name(target.name + _REPLACED)
    if target.exists():
        target.rename(replaced)
    unfinished.rename(target)
    sync_folder(target.parent)
    if replaced.exists():
        _remove(replaced)


def _remove(checkpoint: Path) -> None:
    """Rename before deleting, so that a half-deleted checkpoint is never taken for one."""
    doomed = checkpoint.with_name(f"{_TEMPORARY}{checkpoint.name}")
    checkpoint.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _complete(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first. One that stepped aside for a successor of the same step comes after it."""
    found = []
    for path in folder.glob("step_*"):
        match = re.fullmatch(rf"step_(\d+)({re.escape(_REPLACED)})?", path.name)
        if match and path.is_dir():
            found.append((int(match[1]), match[2] is None, path))
    return [path for *_, path in sorted(found, reverse=True)]


def _older(checkpoint: Path) -> str:
    """The remedy's middle part: which complete checkpoint is next in line."""
    line = _complete(checkpoint.parent)
    behind = line[line.index(checkpoint) + 1 :] if checkpoint in line else line
    return f" to continue from {behind[0]}" if behind else ""


@contextmanager
def _reported(target: Path, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some disk space" if full else "check the disk and the permissions"
        kept = latest(folder)
        intact = f"the last good checkpoint {kept} is intact" if kept else "there is no earlier checkpoint"
        raise CheckpointError(
            f"{target} could not be saved ({os.strerror(error.errno or errno.EIO)}); {remedy}, {intact}."
        ) from error
