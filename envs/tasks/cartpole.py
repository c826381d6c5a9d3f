# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""The suite's cart with a pole."""

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


class Balance(SuiteTask):
    """Keep the pole up, near the middle."""

    domain = "cartpole"
    swing_up = False
    """Whether the pole begins pointing down."""
    sparse = False
    """Whether the reward is 1 for an upright pole in the middle and 0 otherwise."""
    fields = ("xmat",)
    contacts = 8
    constraints = 16

    def start(self, data: mujoco.MjData, random: np.random.RandomState) -> Mapping[str, NDArray[Any]]:
        """Near the upright state, or, for a swing-up, in the middle with the pole down."""
        if self.swing_up:
            data.qpos[0] = 0.01 * random.randn()
            data.qpos[1] = np.pi + 0.01 * random.randn()
        else:
            data.qpos[0] = random.uniform(-0.1, 0.1)
            data.qpos[1:] = random.uniform(-0.034, 0.034, self.model.nv - 1)
        data.qvel[:] = 0.01 * random.randn(self.model.nv)
        return {}

    def observe(self, state: State) -> Tensor:
        """[num_envs, 5]: place of the cart, cosine and sine of the pole's angle, velocities."""
        pole = state["xmat"][:, 2]
        return torch.cat([state["qpos"][:, :1], pole[:, 2, 2, None], pole[:, 0, 2, None], state["qvel"]], dim=1)

    def reward(self, state: State, control: Tensor, velocity: Tensor) -> Tensor:
        """[num_envs] product of how upright, how central, how still and with how little force."""
        cosine, place = state["xmat"][:, 2, 2, 2], state["qpos"][:, 0]
        if self.sparse:
            return tolerance(place, -0.25, 0.25) * tolerance(cosine, 0.995, 1.0)
        small_control = (4 + tolerance(control[:, 0], margin=1, sigmoid="quadratic", at_margin=0)) / 5
        small_velocity = (1 + tolerance(state["qvel"][:, 1], margin=5)) / 2
        central = (1 + tolerance(place, margin=2)) / 2
        return (cosine + 1) / 2 * small_control * small_velocity * central


class SwingUp(Balance):
    """Swing the pole up first."""

    swing_up = True


class BalanceSparse(Balance):
    """Balance with a reward of 0 or 1."""

    sparse = True


class SwingUpSparse(SwingUp):
    """Swing up with a reward of 0 or 1."""

    sparse = True
