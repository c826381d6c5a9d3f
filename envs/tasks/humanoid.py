# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""The suite's humanoid."""

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelyard.envs.tasks.rewards import tolerance
from steelyard.envs.tasks.suite import Moving, randomize_joints
from steelyard.envs.tasks.task import State


class HumanoidStand(Moving):
    """Stand, or walk or run at a speed in any direction, without much force."""

    domain = "humanoid"
    speed = 0.0
    frame_skip = 5
    contacts = 48
    constraints = 192

    def __init__(self, name: str):
        super().__init__(name)
        self._torso, self._head = self.body("torso"), self.body("head")
        self._limbs = [self.body(side + part) for side in ("left_", "right_") for part in ("hand", "foot")]

    def start(self, data: mujoco.MjData, random: np.random.RandomState) -> Mapping[str, NDArray[Any]]:
        """Joints anywhere in their range and the body turned, drawn again until nothing touches anything."""
        touching = True
        while touching:
            randomize_joints(self.model, data, random)
            mujoco.mj_forward(self.model, data)
            touching = data.ncon > 0
        return {}

    def observe(self, state: State) -> Tensor:
        """[num_envs, 67]: joint angles, height of the head, hands and feet seen from the torso, the vertical seen from it, velocities."""
        place, turn = state["xpos"], state["xmat"][:, self._torso]
        limbs = (torch.stack([place[:, limb] for limb in self._limbs], dim=1) - place[:, self._torso, None]) @ turn
        height = place[:, self._head, 2:]
        parts = [state["qpos"][:, 7:], height, limbs.flatten(1), turn[:, 2], self.centre_velocity(state), state["qvel"]]
        return torch.cat(parts, dim=1)

    def reward(self, state: State, control: Tensor, velocity: Tensor) -> Tensor:
        """[num_envs] product of how high, how upright, with how little force and how near the wanted speed."""
        standing = tolerance(state["xpos"][:, self._head, 2], 1.4, torch.inf, margin=0.35)
        upright = tolerance(state["xmat"][:, self._torso, 2, 2], 0.9, torch.inf, margin=1.9, sigmoid="linear", at_margin=0)
        small_control = (4 + tolerance(control, margin=1, sigmoid="quadratic", at_margin=0).mean(dim=1)) / 5
        horizontal = self.centre_velocity(state)[:, :2]
        if self.speed == 0:
            return small_control * standing * upright * tolerance(horizontal, margin=2).mean(dim=1)
        speed = torch.linalg.vector_norm(horizontal, dim=1)
        move = tolerance(speed, self.speed, torch.inf, margin=self.speed, sigmoid="linear", at_margin=0)
        return small_control * standing * upright * (5 * move + 1) / 6


class HumanoidWalk(HumanoidStand):
    """Walk at 1 m/s."""

    speed = 1.0


class HumanoidRun(HumanoidStand):
    """Run at 10 m/s."""

    speed = 10.0
