"""The contract between worlds and trainers: a `VectorEnv` and the error that says how it was broken."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from steelyard.agents.errors import SteelyardError
from steelyard.agents.types import Spec, Step


class EnvError(SteelyardError):
    """A world broke its contract: unknown task, wrong shapes, NaN, or an action out of bounds. One sentence with the remedy."""


@runtime_checkable
class VectorEnv(Protocol):
    """Several worlds stepped together; tensors live on `device`."""

    num_envs: int
    device: torch.device
    spec: Spec

    def reset(self, seed: int | None = None) -> Tensor:
        """Start a new episode in every world and return observations [num_envs, obs_size]. World i gets `seed + i`.

        They are float32, or uint8 where `spec.frames` says that they are stacks of frames.
        """
        ...

    def step(self, action: Tensor) -> Step:
        """Apply actions [num_envs, action_size] in [-1, 1].

        Raises `EnvError` if one is out of bounds, or if a world returns NaN or an infinite number.
        """
        ...

    def render(self) -> Any:
        """An RGB picture [height, width, 3] uint8 of world 0."""
        ...

    def state_dict(self) -> dict[str, Any] | None:
        """Everything that determines the worlds' future, as tensors and plain data; None if the worlds cannot be saved."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        ...

    def close(self) -> None:
        """Release the worlds."""
        ...


@runtime_checkable
class ResidentEnv(VectorEnv, Protocol):
    """Worlds that live on `device` and whose `step` never waits for it.

    A world that ends is reset in the same call, so every row is valid. What is wrong (a number that is not finite, an action out of bounds,
    a simulator out of room) is kept on the device until `check` asks.
    """

    def check(self) -> None:
        """Raises `EnvError` for what has gone wrong since the last look. The one place that waits for the device."""
        ...
