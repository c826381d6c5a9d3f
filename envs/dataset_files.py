"""HDF5 files in D4RL's schema: read with every check that a stranger's file needs, and written."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from steelyard.envs.dataset_type import Dataset, DatasetError

FORMAT = "steelyard-1"
"""Attribute `format` of files written here. In them no row was dropped and `next_observations` holds true successors."""
REQUIRED = ("observations", "actions", "rewards", "terminals")
FORMATS = {
    b"\x80": "a Python pickle",
    b"PK": "a zip or npz archive",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "a gzip archive",
    b"<": "an HTML page",
    b"{": "JSON",
}
LARGEST_EXPANSION = 4_000
"""Bytes of arrays for a byte of file, at most: gzip reaches 1,032, so more is a damaged size."""


@dataclass(frozen=True)
class Rows:
    """The rows of a file, checked: same lengths, finite numbers, float32 and bool."""

    obs: NDArray[np.float32]
    action: NDArray[np.float32]
    reward: NDArray[np.float32]
    terminals: NDArray[np.bool_]
    timeouts: NDArray[np.bool_] | None
    next_obs: NDArray[np.float32] | None
    qpos: NDArray[np.float64] | None
    """`infos/qpos`, positions of the simulator."""
    own: bool
    """Written by `write_hdf5`."""
    next_action: NDArray[np.float32] | None
    returns: NDArray[np.float64] | None
    name: str | None
    """Attribute `name` of a file of the suite."""
    task: str | None
    """Attribute `task`."""
    clipped: int
    """Attribute `clipped`."""
    discrete: bool = False
    """Attribute `discrete` of a file of the suite."""


def read_rows(path: Path) -> Rows:
    """All rows of `path`. Raises `DatasetError` if it is not a sound file in D4RL's schema."""
    _check_signature(path)
    try:
        with h5py.File(path, "r") as file:
            return _Reader(path, file).rows()
    except DatasetError:
        raise
    except Exception as error:  # of a damaged file h5py raises whatever its C library and NumPy make of it
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise DatasetError(f"{path} is damaged or was cut short ({reason}); download or record it again.") from error


class _Reader:
    """Reads and checks the arrays of one open file."""

    def __init__(self, path: Path, file: h5py.File):
        self.path, self.file, self.size = path, file, path.stat().st_size
        self.length: int | None = None

    def rows(self) -> Rows:
        missing = [key for key in REQUIRED if not isinstance(self.file.get(key), h5py.Dataset)]
        if missing:
            found = ", ".join([str(key) for key in self.file if key not in missing][:6]) or "nothing else"
            hint = "give the folder of the Minari data set instead" if "episode_0" in self.file else "it is not D4RL's schema"
            raise DatasetError(f"{self.path} lacks {', '.join(missing)} (it holds {found}); {hint}.")
        reward = self.column("rewards")
        self.length = len(reward)
        if self.length < 2:
            raise DatasetError(f"{self.path} holds {self.length} row{'s' if not self.length else ''}; two or more are needed.")
        own = self.attribute("format") == FORMAT
        obs, action = self.matrix("observations"), self.matrix("actions")
        next_obs = self.matrix("next_observations") if "next_observations" in self.file else None
        if next_obs is not None and next_obs.shape != obs.shape:
            raise DatasetError(f"{self.path}: next_observations has the shape {next_obs.shape}, observations {obs.shape}.")
        qpos = self.file.get("infos/qpos")
        keep_qpos = isinstance(qpos, h5py.Dataset) and qpos.ndim == 2 and len(qpos) == self.length
        return Rows(
            obs=obs,
            action=action,
            reward=reward.astype(np.float32),
            terminals=self.flags("terminals"),
            timeouts=self.flags("timeouts") if "timeouts" in self.file else None,
            next_obs=next_obs,
            qpos=self.array("infos/qpos").astype(np.float64) if keep_qpos else None,
            own=own,
            next_action=self.matrix("infos/next_actions") if own else None,
            returns=self.array("metadata/episode_returns").astype(np.float64) if own else None,
            name=self.attribute("name") if own else None,
            task=self.attribute("task"),
            clipped=int(self.file.attrs.get("clipped", 0)) if own else 0,
            discrete=own and bool(self.file.attrs.get("discrete", False)),
        )

    def attribute(self, key: str) -> str | None:
        """A word or a line; None if it is missing or empty."""
        value = self.file.attrs.get(key)
        return " ".join(str(value).split()) or None if isinstance(value, str) else None

    def matrix(self, key: str) -> NDArray[np.float32]:
        """Rows of vectors; of observations with more axes (pictures) each row is flattened."""
        array = self.array(key)
        self.check_length(key, array)
        if array.ndim < 2 or not array.size:
            raise DatasetError(f"{self.path}: {key} has the shape {array.shape} where (rows, components) is needed.")
        with np.errstate(over="ignore"):  # too large for float32 becomes infinity, and that is reported
            array = array.reshape(len(array), -1).astype(np.float32)
        self.check_finite(key, array)
        return array

    def column(self, key: str) -> NDArray[Any]:
        """One number for each row; (N, 1) counts as (N,)."""
        array = self.array(key)
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim != 1:
            raise DatasetError(f"{self.path}: {key} has the shape {array.shape} where (rows,) is needed.")
        self.check_length(key, array)
        with np.errstate(over="ignore"):
            self.check_finite(key, array.astype(np.float32))
        return array

    def flags(self, key: str) -> NDArray[np.bool_]:
        """One flag for each row, of whatever type; other numbers than 0 and 1 say nothing of an end."""
        array = self.column(key)
        other = (array != 0) & (array != 1)
        if other.any():
            row = int(np.argmax(other))
            raise DatasetError(f"{self.path}: {key} is {array[row]:g} in row {row} where 0 or 1 is needed; repair that column.")
        return array != 0

    def array(self, key: str) -> NDArray[Any]:
        """The array `key`. Raises `DatasetError` if it is no array of numbers or larger than the file can hold."""
        item = self.file.get(key)
        if not isinstance(item, h5py.Dataset):
            raise DatasetError(f"{self.path} lacks {key}; download or record it again.")
        if item.dtype.kind not in "biuf":
            raise DatasetError(f"{self.path}: {key} holds {item.dtype} where numbers are needed.")
        if item.nbytes > LARGEST_EXPANSION * self.size:
            raise DatasetError(f"{self.path} is damaged: {key} claims the shape {item.shape}; download or record it again.")
        return np.asarray(item[()])

    def check_length(self, key: str, array: NDArray[Any]) -> None:
        if array.ndim and self.length is not None and len(array) != self.length:
            raise DatasetError(
                f"{self.path}: {key} has {len(array):,} rows where rewards has {self.length:,}; download or record it again."
            )

    def check_finite(self, key: str, array: NDArray[np.float32]) -> None:
        finite = np.isfinite(array)
        if not finite.all():
            row, *component = (int(i) for i in np.argwhere(~finite)[0])
            place = f"row {row}" + (f", component {component[0]}," if component else "")
            raise DatasetError(f"{self.path}: {key} is NaN or infinite in {place} and cannot be learned from; repair that row.")


def _check_signature(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from error
    if not head:
        raise DatasetError(f"{path} is empty; download or record it again.")
    if head != b"\x89HDF\r\n\x1a\n":
        kind = next((f"it looks like {kind}" for start, kind in FORMATS.items() if head.startswith(start)), "unknown contents")
        raise DatasetError(f"{path} is no HDF5 file ({kind}); give a file in D4RL's schema.")


def write_hdf5(path: Path, dataset: Dataset, attributes: Mapping[str, Any] | None = None) -> Path:
    """Write `dataset` to `path` in D4RL's schema and return the path; a file of that name is replaced only when all is written.

    Keys: observations, actions, rewards, next_observations, terminals, timeouts, as every reader of D4RL files knows them, and
    `infos/next_actions`, `metadata/episode_returns`, which `load` needs to give back exactly `dataset`. Attributes: format, name,
    task (if known), clipped, discrete (if actions are choices), and `attributes` (strings and numbers). Arrays carry checksums. Raises
    `DatasetError` if the file cannot be written.
    """
    part = path.with_name(f".part.{os.getpid()}.{path.name}")
    arrays = {
        "observations": dataset.obs,
        "actions": dataset.action,
        "rewards": dataset.reward,
        "next_observations": dataset.next_obs,
        "terminals": dataset.terminated,
        "timeouts": dataset.truncated,
        "infos/next_actions": dataset.next_action,
        "metadata/episode_returns": dataset.returns,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(part, "w") as file:
            for key, array in arrays.items():
                file.create_dataset(
                    key, data=array, chunks=True, compression="gzip", compression_opts=1, shuffle=True, fletcher32=True
                )
            file.attrs.update({"format": FORMAT, "name": dataset.name, "clipped": dataset.clipped})
            if dataset.task is not None:
                file.attrs["task"] = dataset.task
            if dataset.discrete:
                file.attrs["discrete"] = True
            file.attrs.update(dict(attributes or {}))
        os.replace(part, path)
    except OSError as error:
        raise DatasetError(f"{path} cannot be written: {error.strerror or error}; choose another path.") from error
    finally:
        with contextlib.suppress(OSError):  # it is gone after the renaming, and may never have been there
            part.unlink()
    return path
