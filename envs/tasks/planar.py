# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""The suite's robots that move in a plane: cheetah, walker, hopper."""

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelyard.envs.tasks.rewards import tolerance
from steelyard.envs.tasks.suite import Moving
from steelyard.envs.tasks.task import State


class CheetahRun(Moving):
    """Run at 10 m/s."""

    domain = "cheetah"
    speed = 10.0
    fields = ("sensordata",)
    contacts = 24
    constraints = 64
    starts = 1024  # each takes 200 steps of the simulator

    def start(self, data: mujoco.MjData, random: np.random.RandomState) -> Mapping[str, NDArray[Any]]:
        """Limited joints anywhere in their range, then 200 steps in which the body falls and settles.

        The first of them goes on from what was computed for the model's default pose, as it does in dm-control.
        """
        model = self.model
        limited = model.jnt_limited == 1
        mujoco.mj_forward(model, data)
        data.qpos[limited] = random.uniform(*model.jnt_range[limited].T)
        mujoco.mj_step2(model, data)
        mujoco.mj_step(model, data, nstep=199)
        data.time = 0
        return {}

    def observe(self, state: State) -> Tensor:
        """[num_envs, 17]: positions but for where in the world the body is, velocities."""
        return torch.cat([state["qpos"][:, 1:], state["qvel"]], dim=1)

    def reward(self, state: State, control: Tensor, velocity: Tensor) -> Tensor:
        """[num_envs] in proportion to the speed, 1 from 10 m/s on."""
        speed = self.centre_velocity(state)[:, 0]
        return tolerance(speed, self.speed, torch.inf, margin=self.speed, sigmoid="linear", at_margin=0)


class WalkerStand(Moving):
    """Stand, or walk or run at a speed."""

    domain = "walker"
    speed = 0.0
    frame_skip = 10
    contacts = 24
    constraints = 64

    def __init__(self, name: str):
        super().__init__(name)
        self._torso = self.body("torso")

    def observe(self, state: State) -> Tensor:
        """[num_envs, 24]: directions of the bodies, height, velocities."""
        turned = state["xmat"][:, 1:, 0, ::2].flatten(start_dim=1)
        return torch.cat([turned, state["xpos"][:, self._torso, 2:], state["qvel"]], dim=1)

    def reward(self, state: State, control: Tensor, velocity: Tensor) -> Tensor:
        """[num_envs] for height and uprightness, times one for speed."""
        standing = tolerance(state["xpos"][:, self._torso, 2], 1.2, torch.inf, margin=0.6)
        upright = (1 + state["xmat"][:, self._torso, 2, 2]) / 2
        stand = (3 * standing + upright) / 4
        if self.speed == 0:
            return stand
        speed = self.centre_velocity(state)[:, 0]
        move = tolerance(speed, self.speed, torch.inf, margin=self.speed / 2, sigmoid="linear", at_margin=0.5)
        return stand * (5 * move + 1) / 6


class WalkerWalk(WalkerStand):
    """Walk at 1 m/s."""

    speed = 1.0


class WalkerRun(WalkerStand):
    """Run at 8 m/s."""

    speed = 8.0


class HopperStand(Moving):
    """Stand without much force."""

    domain = "hopper"
    speed = 0.0
    frame_skip = 4
    fields = ("xipos", "sensordata")
    reads_forces = True
    contacts = 24
    constraints = 64

    def __init__(self, name: str):
        super().__init__(name)
        self._torso, self._foot = self.body("torso"), self.body("foot")
        self._touch = [self.sensor(name) for name in ("touch_toe", "touch_heel")]

    def observe(self, state: State) -> Tensor:
        """[num_envs, 15]: positions but for where in the world the body is, velocities, logarithms of touch at toe and heel."""
        touch = torch.cat([state["sensordata"][:, place] for place in self._touch], dim=1).log1p()
        return torch.cat([state["qpos"][:, 1:], state["qvel"], touch], dim=1)

    def reward(self, state: State, control: Tensor, velocity: Tensor) -> Tensor:
        """[num_envs] for the height of the torso above the foot, times one for little force or for speed."""
        places = state["xipos"][..., 2]
        standing = tolerance(places[:, self._torso] - places[:, self._foot], 0.6, 2.0)
        if self.speed == 0:
            small_control = tolerance(control, margin=1, sigmoid="quadratic", at_margin=0).mean(dim=1)
            return standing * (small_control + 4) / 5
        speed = self.centre_velocity(state)[:, 0]
        return standing * tolerance(speed, self.speed, torch.inf, margin=self.speed / 2, sigmoid="linear", at_margin=0.5)


class HopperHop(HopperStand):
    """Hop forward at 2 m/s."""

    speed = 2.0
