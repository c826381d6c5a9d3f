"""What Gymnasium's five locomotion tasks (-v5) observe, reward and end on, for many worlds at once, in torch.

Each follows `gymnasium/envs/mujoco/*_v5.py` (Gymnasium 1.4) term by term with its default arguments. A simulator, on CPU threads
or on a GPU, supplies the fields of `MjData` that a task names in `fields`, each as a tensor [num_envs, ...].
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

State = Mapping[str, Tensor]
"""Field of `MjData` to tensor [num_envs, ...]: "qpos", "qvel", and those that the task names."""


@dataclass(frozen=True)
class Locomotion:
    """A task that rewards moving forward. Reward: w_f dx/dt + w_h healthy - w_c |action|^2 - contact cost."""

    xml: str
    """Model file in Gymnasium's assets."""
    frame_skip: int
    """Steps of the simulator per environment step."""
    forward_weight: float = 1.0
    control_weight: float = 1e-3
    healthy_reward: float = 1.0
    """Given in every step that ends in a healthy state; an unhealthy state is terminal."""
    can_terminate: bool = True
    hidden_positions: int = 1
    """Leading components of qpos that are not observed: where in the world the robot is."""
    velocity_limit: float | None = None
    """Observed velocities are clipped to this magnitude."""
    reset_noise: float = 5e-3
    """Start positions are qpos0 + U(-noise, noise)."""
    normal_velocities: bool = False
    """Start velocities are noise * N(0, 1) instead of U(-noise, noise)."""
    fields: tuple[str, ...] = ()
    """Fields of `MjData` read besides qpos and qvel."""
    reads_contact_forces: bool = False
    """Whether `cfrc_ext` [num_envs, bodies, 6] is read too. MuJoCo computes it only on request (mj_rnePostConstraint)."""
    horizon: int = 1000

    def observe(self, state: State) -> Tensor:
        """[num_envs, obs_size] in the simulator's precision."""
        velocity = state["qvel"]
        if self.velocity_limit is not None:
            velocity = velocity.clamp(-self.velocity_limit, self.velocity_limit)
        return torch.cat([state["qpos"][:, self.hidden_positions :], velocity], dim=1)

    def position(self, state: State, body_mass: Tensor) -> Tensor:
        """[num_envs] the x coordinate whose change is rewarded. `body_mass`: [bodies] of the model."""
        return state["qpos"][:, 0]

    def healthy(self, state: State) -> Tensor | None:
        """[num_envs] bool, or None for a task without terminal states."""
        return None

    def contact_cost(self, state: State) -> Tensor | None:
        """[num_envs], or None for a task that does not mind contacts."""
        return None

    def reward(self, state: State, control: Tensor, velocity: Tensor, healthy: Tensor | None) -> Tensor:
        """[num_envs] from the state reached, the control [num_envs, action_size] in the model's units and dx/dt [num_envs].

        Gymnasium sums the squares of a float32 action in float32; here it is done in the precision of `control`.
        """
        reward = self.forward_weight * velocity
        if healthy is not None:
            reward = reward + healthy * self.healthy_reward
        costs = self.control_weight * control.square().sum(dim=1)
        contact_cost = self.contact_cost(state)
        if contact_cost is not None:
            costs = costs + contact_cost
        return reward - costs


@dataclass(frozen=True)
class HalfCheetah(Locomotion):
    """Never ends before its time."""

    xml: str = "half_cheetah.xml"
    frame_skip: int = 5
    control_weight: float = 0.1
    can_terminate: bool = False
    reset_noise: float = 0.1
    normal_velocities: bool = True


@dataclass(frozen=True)
class Hopper(Locomotion):
    """Ends when the torso is low or tilted, or when a component of the state is large."""

    xml: str = "hopper.xml"
    frame_skip: int = 4
    velocity_limit: float | None = 10.0

    def healthy(self, state: State) -> Tensor:
        """[num_envs] bool: upright, and nothing beyond 100 but the position along the track."""
        qpos, qvel = state["qpos"], state["qvel"]
        small = (qpos[:, 2:].abs() < 100).all(dim=1) & (qvel.abs() < 100).all(dim=1)
        return small & (qpos[:, 1] > 0.7) & (qpos[:, 2].abs() < 0.2)


@dataclass(frozen=True)
class Walker2d(Locomotion):
    """Ends when the torso is low, high or tilted."""

    xml: str = "walker2d_v5.xml"
    frame_skip: int = 4
    velocity_limit: float | None = 10.0

    def healthy(self, state: State) -> Tensor:
        """[num_envs] bool: upright, between two heights."""
        height, angle = state["qpos"][:, 1], state["qpos"][:, 2]
        return (height > 0.8) & (height < 2.0) & (angle.abs() < 1.0)


@dataclass(frozen=True)
class Ant(Locomotion):
    """Ends when the torso is low or high or the state is not finite. Contact forces are observed and cost."""

    xml: str = "ant.xml"
    frame_skip: int = 5
    control_weight: float = 0.5
    hidden_positions: int = 2
    reset_noise: float = 0.1
    normal_velocities: bool = True
    fields: tuple[str, ...] = ("xpos",)
    reads_contact_forces: bool = True

    def observe(self, state: State) -> Tensor:
        """[num_envs, 105]: positions, velocities, clipped contact forces."""
        forces = state["cfrc_ext"][:, 1:].clamp(-1.0, 1.0).flatten(start_dim=1)
        return torch.cat([super().observe(state), forces], dim=1)

    def position(self, state: State, body_mass: Tensor) -> Tensor:
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


@dataclass(frozen=True)
class Humanoid(Locomotion):
    """Ends when the torso is low or high. Inertias, velocities of bodies, actuator and contact forces are observed."""

    xml: str = "humanoid.xml"
    frame_skip: int = 5
    forward_weight: float = 1.25
    control_weight: float = 0.1
    healthy_reward: float = 5.0
    hidden_positions: int = 2
    reset_noise: float = 1e-2
    fields: tuple[str, ...] = ("xipos", "cinert", "cvel", "qfrc_actuator")
    reads_contact_forces: bool = True

    def observe(self, state: State) -> Tensor:
        """[num_envs, 348]: positions, velocities, inertias and velocities of bodies, actuator forces, contact forces."""
        bodies = [state[name][:, 1:].flatten(start_dim=1) for name in ("cinert", "cvel")]
        forces = [state["qfrc_actuator"][:, 6:], state["cfrc_ext"][:, 1:].flatten(start_dim=1)]
        return torch.cat([super().observe(state), *bodies, *forces], dim=1)

    def position(self, state: State, body_mass: Tensor) -> Tensor:
        """Of the centre of mass."""
        return state["xipos"][:, :, 0] @ body_mass / body_mass.sum()

    def healthy(self, state: State) -> Tensor:
        """[num_envs] bool: between two heights."""
        height = state["qpos"][:, 2]
        return (height > 1.0) & (height < 2.0)

    def contact_cost(self, state: State) -> Tensor:
        """[num_envs] from unclipped forces, at most 10."""
        return (5e-7 * state["cfrc_ext"].square().sum(dim=(1, 2))).clamp(max=10.0)


TASKS: dict[str, Locomotion] = {
    "HalfCheetah-v5": HalfCheetah(),
    "Hopper-v5": Hopper(),
    "Walker2d-v5": Walker2d(),
    "Ant-v5": Ant(),
    "Humanoid-v5": Humanoid(),
}
