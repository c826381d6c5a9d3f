# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""MuJoCo's part of a saved world: the arrays of `MjData`, and those of `MjModel` that a task has changed."""

import copy
import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from steelyard.envs.vector import EnvError


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Load models without the warning about `settotalmass` (half_cheetah.xml) and without MuJoCo's MUJOCO_LOG.TXT.

    Other warnings of the compiler become Python warnings.
    """

    def report(message: str) -> None:
        if "settotalmass" not in message:
            warnings.warn(message, stacklevel=2)

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(report)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def pack(array: NDArray[Any]) -> dict[str, Any]:
    """An array of any plain dtype as what `torch.load(weights_only=True)` reads: its bytes in a uint8 tensor, dtype and shape."""
    data = np.frombuffer(bytearray(np.ascontiguousarray(array).tobytes()), dtype=np.uint8)
    return {"bytes": torch.from_numpy(data), "dtype": array.dtype.str, "shape": list(array.shape)}


def unpack(packed: dict[str, Any]) -> NDArray[Any]:
    """The array that `pack` was given."""
    return np.frombuffer(packed["bytes"].numpy().tobytes(), dtype=packed["dtype"]).reshape(packed["shape"]).copy()


class ModelReference:
    """A model as it was built, before any episode: what a task changes later is the difference to it.

    The same code builds the same model again when a run is resumed; a digest proves it.
    """

    def __init__(self, model: mujoco.MjModel):
        self._model = copy.copy(model)
        digest = hashlib.blake2b(digest_size=16)
        for name in _array_names(model):
            digest.update(name.encode() + np.ascontiguousarray(getattr(model, name)).tobytes())
        self._digest = digest.hexdigest()

    def save(self, model: mujoco.MjModel) -> dict[str, Any] | None:
        """What `model` has different from the reference; None if it no longer has the reference's sizes."""
        changed: dict[str, Any] = {}
        for name in _array_names(self._model):
            value, original = getattr(model, name), getattr(self._model, name)
            if value.shape != original.shape:
                return None
            if not np.array_equal(value, original, equal_nan=value.dtype.kind == "f"):
                changed[name] = pack(value)
        options = {name: _plain(value) for name, value in _options(model).items()}
        return {"built": self._digest, "changed": changed, "options": options}

    def load(self, model: mujoco.MjModel, state: dict[str, Any]) -> None:
        """Make `model` what it was. Raises `EnvError` if the reference is not the one it was saved against."""
        if state["built"] != self._digest:
            raise EnvError(
                "the MuJoCo model of this task is not the one the checkpoint was taken with; "
                "install the versions of mujoco, gymnasium and dm-control that the run began with, or start it afresh."
            )
        for name in _array_names(model):
            saved = state["changed"].get(name)
            getattr(model, name)[...] = getattr(self._model, name) if saved is None else unpack(saved)
        for name, value in state["options"].items():
            setattr(model.opt, name, unpack(value) if isinstance(value, dict) else value)


def save_data(model: mujoco.MjModel, data: mujoco.MjData) -> dict[str, Any] | None:
    """Every array of `data` with a fixed size, and its time; None if a plugin keeps state out of sight.

    Positions and velocities are not enough: Gymnasium's Ant reads positions of bodies from the step before, the solver starts
    from `qacc_warmstart`, and tasks read sensors.
    """
    if model.nplugin:
        return None
    return {"time": float(data.time), "arrays": {name: pack(getattr(data, name)) for name in _fixed_arrays(model)}}


def load_data(model: mujoco.MjModel, data: mujoco.MjData, state: dict[str, Any]) -> None:
    """Make `data` what it was when `save_data` read it."""
    _write(data, state)
    # dm-control begins a step with mj_step2, which reads contacts and constraint rows. They live in MuJoCo's arena, are a
    # function of the positions and velocities, and are computed here; the arrays this touches are then written once more.
    mujoco.mj_step1(model, data)
    _write(data, state)


def _write(data: mujoco.MjData, state: dict[str, Any]) -> None:
    data.time = state["time"]
    for name, packed in state["arrays"].items():
        getattr(data, name)[...] = unpack(packed)


def _fixed_arrays(model: mujoco.MjModel) -> list[str]:
    """Names of the arrays whose size the model fixes. Those of contacts and constraints are empty in new data."""
    new = mujoco.MjData(model)
    return [name for name in _array_names(new) if getattr(new, name).size > 0]


def _array_names(struct: mujoco.MjModel | mujoco.MjData) -> list[str]:
    return [name for name in dir(struct) if not name.startswith("_") and isinstance(getattr(struct, name), np.ndarray)]


def _options(model: mujoco.MjModel) -> dict[str, Any]:
    """Gravity, wind, time step and the like."""
    return {name: getattr(model.opt, name) for name in dir(model.opt) if not name.startswith("_")}


def _plain(value: float | NDArray[Any]) -> Any:
    return pack(value) if isinstance(value, np.ndarray) else value
