"""The edge between numpy worlds and torch trainers: what goes in is checked and rescaled, what comes out is checked and cast."""

from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from steelyard.envs.vector import EnvError

BOUNDLESS = 1e18
"""Bounds from here on count as infinite: tasks write float32's largest number for none, and squares of these overflow it."""


def bounded(low: NDArray[np.floating], high: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which components of an action [action_size] have two bounds, so that [-1, 1] can stand for them."""
    return np.maximum(-low, high) < BOUNDLESS


class ActionBounds:
    """The affine map from [-1, 1] to a world's own bounds; components with an infinite bound pass through unchanged."""

    def __init__(self, low: NDArray[np.floating], high: NDArray[np.floating], dtype: DTypeLike):
        """`low` and `high`: [action_size]. `dtype`: of the actions handed to the world."""
        low, high = low.astype(np.float64), high.astype(np.float64)
        both = bounded(low, high)
        # Subtracted only where both are finite: inf - inf warns.
        self._centre = np.add(low, high, out=np.zeros_like(low), where=both) / 2
        self._half = np.where(both, np.subtract(high, low, out=np.zeros_like(low), where=both) / 2, 1.0)
        self._low, self._high, self._dtype = low, high, np.dtype(dtype)
        self._identity = bool(np.all(self._centre == 0) and np.all(self._half == 1) and np.all(low <= -1) and np.all(high >= 1))

    def to_world(self, action: NDArray[np.floating]) -> NDArray[Any]:
        """Actions [num_envs, action_size] in [-1, 1] in the world's units, never outside its bounds through rounding."""
        if self._identity:
            return action.astype(self._dtype)
        return np.clip(self._centre + self._half * action, self._low, self._high).astype(self._dtype)


class Choices:
    """The map from one-hot actions to the numbers of a world's choices."""

    def __init__(self, task: str, start: int):
        """`start`: number of the first choice."""
        self._task, self._start = task, start

    def to_world(self, action: NDArray[np.floating]) -> NDArray[np.int64]:
        """Numbers [num_envs] of the choices that one-hot actions [num_envs, choices] name. Raises `EnvError` if a row is not one-hot."""
        one_hot = ((action == 0) | (action == 1)).all(-1) & (action.sum(-1) == 1)
        if not one_hot.all():
            world = int(np.argmin(one_hot))
            raise EnvError(
                f"{self._task}: the action for world {world} is {action[world].tolist()}, which is no choice; give 1 for the chosen "
                "action and 0 for the others."
            )
        return action.argmax(-1) + self._start


def check_actions(task: str, action: Tensor, shape: tuple[int, int]) -> NDArray[np.float32]:
    """`action` as a float32 array. Raises `EnvError` if it is not `shape` or if a component lies outside [-1, 1]."""
    if action.shape != shape:
        raise EnvError(f"{task}: actions of shape {tuple(action.shape)} were given where (worlds, components) is {shape}.")
    array = action.detach().to("cpu", torch.float32).numpy()
    inside = np.abs(array) <= 1.0  # False for NaN too
    if not inside.all():
        world, component = (int(i) for i in np.argwhere(~inside)[0])
        raise EnvError(
            f"{task}: component {component} of the action for world {world} is {array[world, component]}, "
            "outside [-1, 1]; squash or clamp the policy's output."
        )
    return array


def check_finite(task: str, field: str, array: NDArray[np.floating]) -> None:
    """Raises `EnvError` naming the first world where `array` [num_envs] or [num_envs, size] is NaN or infinite."""
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        place = field if len(index) == 1 else f"{field}[{index[1]}]"
        raise EnvError(
            f"{task}: world {index[0]} returned {array[index]} as its {place}; find what makes it diverge "
            "(often large actions or too long a time step) or leave this task out."
        )


def to_float32(task: str, field: str, array: NDArray[np.floating]) -> NDArray[np.float32]:
    """A float32 copy of what the worlds returned. Raises `EnvError` if it holds NaN or infinity."""
    with np.errstate(over="ignore"):  # too large for float32 becomes infinity, and that is reported
        copy = np.array(array, dtype=np.float32)
    check_finite(task, field, copy)
    return copy
