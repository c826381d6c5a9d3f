# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""What Gymnasium's five locomotion tasks (-v5) observe, reward and end on, for many worlds at once, in torch.

Each follows `gymnasium/envs/mujoco/*_v5.py` (Gymnasium 1.4) term by term with its default arguments.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium.envs.mujoco
import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelyard.envs.tasks.task import State, Task


class Locomotion(Task):
    """A task that rewards moving forward. Reward: w_f dx/dt + w_h healthy - w_c |action|^2 - contact cost."""

    xml: str
    """Model file in Gymnasium's assets."""
    forward_weight: float = 1.0
    control_weight: float = 1e-3
    healthy_reward: float = 1.0
    """Given in every step that ends in a healthy state; an unhealthy state is terminal."""
    hidden_positions: int = 1
    """Leading components of qpos that are not observed: where in the world the robot is."""
    velocity_limit: float | None = None
    """Observed velocities are clipped to this magnitude."""
    reset_noise: float = 5e-3
    """Start positions are qpos0 + U(-noise, noise)."""
    normal_velocities: bool = False
    """Start velocities are noise * N(0, 1) instead of U(-noise, noise)."""
    can_terminate = True
    fresh = False
    control_type = np.float32
    contacts = 24
    constraints = 64
    camera = "track"

    def __init__(self, name: str):
        super().__init__(name, Path(gymnasium.envs.mujoco.__file__).parent / "assets" / self.xml)

    def start(self, data: mujoco.MjData, random: np.random.Generator) -> Mapping[str, NDArray[Any]]:
        """Noise around the model's pose, drawn as Gymnasium draws it."""
        noise = self.reset_noise
        data.qpos += random.uniform(-noise, noise, self.model.nq)
        if self.normal_velocities:
            data.qvel[:] = noise * random.standard_normal(self.model.nv)
        else:
            data.qvel[:] = random.uniform(-noise, noise, self.model.nv)
        return {}

    def observe(self, state: State) -> Tensor:
        """[num_envs, obs_size]: positions but for where in the world the robot is, velocities."""
        velocity = state["qvel"]
        if self.velocity_limit is not None:
            velocity = velocity.clamp(-self.velocity_limit, self.velocity_limit)
        return torch.cat([state["qpos"][:, self.hidden_positions :], velocity], dim=1)

    def position(self, state: State) -> Tensor:
        """[num_envs] the x coordinate whose change is rewarded."""
        return state["qpos"][:, 0]

    def healthy(self, state: State) -> Tensor | None:
        """[num_envs] bool, or None for a task without terminal states."""
        return None

    def terminated(self, state: State) -> Tensor | None:
        """[num_envs] bool: not healthy."""
        healthy = self.healthy(state)
        return None if healthy is None else ~healthy

    def contact_cost(self, state: State) -> Tensor | None:
        """[num_envs], or None for a task that does not mind contacts."""
        return None

    def reward(self, state: State, control: Tensor, velocity: Tensor) -> Tensor:
        """[num_envs] from the state reached, the control and dx/dt.

        Gymnasium sums the squares of a float32 action in float32; here it is done in the precision of `control`.
        """
        reward = self.forward_weight * velocity
        healthy = self.healthy(state)
        if healthy is not None:
            reward = reward + healthy * self.healthy_reward
        costs = self.control_weight * control.square().sum(dim=1)
        contact_cost = self.contact_cost(state)
        if contact_cost is not None:
            costs = costs + contact_cost
        return reward - costs


class HalfCheetah(Locomotion):
    """Never ends before its time."""

    xml = "half_cheetah.xml"
    frame_skip = 5
    control_weight = 0.1
    can_terminate = False
    reset_noise = 0.1
    normal_velocities = True


class Hopper(Locomotion):
    """Ends when the torso is low or tilted, or when a component of the state is large."""

    xml = "hopper.xml"
    frame_skip = 4
    velocity_limit = 10.0

    def healthy(self, state: State) -> Tensor:
        """[num_envs] bool: upright, and nothing beyond 100 but the position along the track."""
        qpos, qvel = state["qpos"], state["qvel"]
        small = (qpos[:, 2:].abs() < 100).all(dim=1) & (qvel.abs() < 100).all(dim=1)
        return small & (qpos[:, 1] > 0.7) & (qpos[:, 2].abs() < 0.2)


class Walker2d(Locomotion):
    """Ends when the torso is low, high or tilted."""

    xml = "walker2d_v5.xml"
    frame_skip = 4
    velocity_limit = 10.0

    def healthy(self, state: State) -> Tensor:
        """[num_envs] bool: upright, between two heights."""
        height, angle = state["qpos"][:, 1], state["qpos"][:, 2]
        return (height > 0.8) & (height < 2.0) & (angle.abs() < 1.0)


class Ant(Locomotion):
    """Ends when the torso is low or high or the state is not finite. Contact forces are observed and cost."""

    xml = "ant.xml"
    frame_skip = 5
    control_weight = 0.5
    hidden_positions = 2
    reset_noise = 0.1
    normal_velocities = True
    fields = ("xpos", "cfrc_ext")

    def observe(self, state: State) -> Tensor:
        """[num_envs, 105]: positions, velocities, clipped contact forces."""
        forces = state["cfrc_ext"][:, 1:].clamp(-1.0, 1.0).flatten(start_dim=1)
        return torch.cat([super().observe(state), forces], dim=1)

    def position(self, state: State) -> Tensor:
        """Of the torso, as the simulator computed it before its last substep: Gymnasium reads it so too."""
        return state["xpos"][:, 1, 0]

    def healthy(self, state: State) -> Tensor:
        """[num_envs] bool: finite, between two heights."""
        qpos, qvel = state["qpos"], state["qvel"]
        finite = qpos.isfinite().all(dim=1) & qvel.isfinite().all(dim=1)
        return finite & (qpos[:, 2] >= 0.2) & (qpos[:, 2] <= 1.0)

    def contact_cost(self, state: State) -> Tensor:
        """[num_envs] from clipped forces."""
        return 5e-4 * state["cfrc_ext"].clamp(-1.0, 1.0).square().sum(dim=(1, 2))


class Humanoid(Locomotion):
    """Ends when the torso is low or high. Inertias, velocities of bodies, actuator and contact forces are observed."""

    xml = "humanoid.xml"
    frame_skip = 5
    forward_weight = 1.25
    control_weight = 0.1
    healthy_reward = 5.0
    hidden_positions = 2
    reset_noise = 1e-2
    fields = ("xipos", "cinert", "cvel", "qfrc_actuator", "cfrc_ext")
    model_fields = ("body_mass",)

    def observe(self, state: State) -> Tensor:
        """[num_envs, 348]: positions, velocities, inertias and velocities of bodies, actuator forces, contact forces."""
        bodies = [state[name][:, 1:].flatten(start_dim=1) for name in ("cinert", "cvel")]
        forces = [state["qfrc_actuator"][:, 6:], state["cfrc_ext"][:, 1:].flatten(start_dim=1)]
        return torch.cat([super().observe(state), *bodies, *forces], dim=1)

    def position(self, state: State) -> Tensor:
        """Of the centre of mass."""
        mass = state["body_mass"]
        return (state["xipos"][:, :, 0] * mass).sum(dim=1) / mass.sum(dim=1)

    def healthy(self, state: State) -> Tensor:
        """[num_envs] bool: between two heights."""
        height = state["qpos"][:, 2]
        return (height > 1.0) & (height < 2.0)

    def contact_cost(self, state: State) -> Tensor:
        """[num_envs] from unclipped forces, at most 10."""
        return (5e-7 * state["cfrc_ext"].square().sum(dim=(1, 2))).clamp(max=10.0)


LOCOMOTION: dict[str, type[Locomotion]] = {
    "HalfCheetah-v5": HalfCheetah,
    "Hopper-v5": Hopper,
    "Walker2d-v5": Walker2d,
    "Ant-v5": Ant,
    "Humanoid-v5": Humanoid,
}
"""Gymnasium's ids."""
