"""Which observations are terminal, by task: what worlds that are imagined end by.

The rules are those of Gymnasium's tasks, read from observations alone, as MBPO (Janner et al. 2019) gives them to its model.
"""

import re
from collections.abc import Callable

import torch
from torch import Tensor

from steelyard.agents.types import Spec
from steelyard.envs.vector import EnvError

Termination = Callable[[Tensor], Tensor]
"""Turns raw observations [rows, obs_size] into whether each is terminal, [rows] bool."""


def never(obs: Tensor) -> Tensor:
    """No observation is terminal."""
    return torch.zeros(obs.shape[0], dtype=torch.bool, device=obs.device)


def hopper(obs: Tensor) -> Tensor:
    """Low, tilted, or with a component beyond 100."""
    small = (obs[:, 1:].abs() < 100).all(1) & obs.isfinite().all(1)
    return ~(small & (obs[:, 0] > 0.7) & (obs[:, 1].abs() < 0.2))


def walker(obs: Tensor) -> Tensor:
    """Low, high or tilted."""
    height, angle = obs[:, 0], obs[:, 1]
    return ~((height > 0.8) & (height < 2.0) & (angle > -1.0) & (angle < 1.0))


def ant(obs: Tensor) -> Tensor:
    """Low, high, or not finite."""
    return ~(obs.isfinite().all(1) & (obs[:, 0] >= 0.2) & (obs[:, 0] <= 1.0))


def humanoid(obs: Tensor) -> Tensor:
    """Low or high."""
    return ~((obs[:, 0] > 1.0) & (obs[:, 0] < 2.0))


def inverted_pendulum(obs: Tensor) -> Tensor:
    """The pole leans by more than 0.2."""
    return ~(obs.isfinite().all(1) & (obs[:, 1].abs() <= 0.2))


FAMILIES: dict[str, Termination] = {
    "Hopper": hopper,
    "Walker2d": walker,
    "Ant": ant,
    "Humanoid": humanoid,
    "InvertedPendulum": inverted_pendulum,
    "HalfCheetah": never,
    "Swimmer": never,
    "Reacher": never,
    "Pusher": never,
    "Pendulum": never,
}
"""Gymnasium's tasks by their names without a version."""
REGISTERED: dict[str, Termination] = {}
"""What users registered, by task."""


def register(task: str, termination: Termination) -> None:
    """Say which observations of a task of your own are terminal, before a run imagines it.

    The module that registers a Gymnasium environment ("module:MyWorld-v0") is imported when its worlds are made, and is a good place.
    """
    REGISTERED[task] = termination


def termination(task: str, spec: Spec, distractors: int = 0) -> Termination:
    """The function for a task whose worlds show `spec`; of observations with more behind, such as `distractors`, it looks at the worlds' own part.

    Raises `EnvError` for a task that may terminate and that has none.
    """
    known = REGISTERED.get(task) or FAMILIES.get(re.sub(r"-v\d+$", "", task)) or (None if spec.can_terminate else never)
    if known is None:
        raise EnvError(
            f"{task} may terminate, and nothing says at which observations, so it cannot be imagined: give a function with "
            f"steelyard.envs.terminations.register({task!r}, function), or leave the model out (agent.model:no-model)."
        )
    own = spec.obs_size - distractors
    return lambda obs: known(obs[:, :own])
