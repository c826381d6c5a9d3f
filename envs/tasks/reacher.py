# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""The suite's arm that reaches for a target, which lies elsewhere in every episode."""

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelyard.envs.tasks.rewards import tolerance
from steelyard.envs.tasks.suite import SuiteTask
from steelyard.envs.tasks.task import State


class ReacherEasy(SuiteTask):
    """Put the finger on the target. Nothing touches anything in this model, so the target is no part of the simulation."""

    domain = "reacher"
    target_size = 0.05
    """Radius, m."""
    fields = ("geom_xpos",)
    contacts = 8
    constraints = 16

    def __init__(self, name: str):
        super().__init__(name)
        self._finger, self._target = (self.model.geom(part).id for part in ("finger", "target"))
        self._reach = self.target_size + float(self.model.geom_size[self._finger, 0])

    def start(self, data: mujoco.MjData, random: np.random.RandomState) -> Mapping[str, NDArray[Any]]:
        """Joints anywhere in their range; "target" [2] somewhere around the arm, m."""
        super().start(data, random)
        angle, radius = random.uniform(0, 2 * np.pi), random.uniform(0.05, 0.20)
        return {"target": radius * np.array([np.sin(angle), np.cos(angle)])}

    def observe(self, state: State) -> Tensor:
        """[num_envs, 6]: positions, from the finger to the target, velocities."""
        return torch.cat([state["qpos"], self._to_target(state), state["qvel"]], dim=1)

    def reward(self, state: State, control: Tensor, velocity: Tensor) -> Tensor:
        """[num_envs] 1 where finger and target overlap."""
        return tolerance(torch.linalg.vector_norm(self._to_target(state), dim=1), 0.0, self._reach)

    def show(self, model: mujoco.MjModel, episode: Mapping[str, NDArray[Any]]) -> None:
        """Move the target that is drawn."""
        model.geom_pos[self._target, :2] = episode["target"]
        model.geom_size[self._target, 0] = self.target_size

    def _to_target(self, state: State) -> Tensor:
        return state["target"] - state["geom_xpos"][:, self._finger, :2]


class ReacherHard(ReacherEasy):
    """The same with a small target."""

    target_size = 0.015
