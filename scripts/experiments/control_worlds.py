"""Mountain Car and the pendulum for many worlds at once, by the rules of Gymnasium's MountainCar-v0 and Pendulum-v1."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from steelyard.agents.types import Spec, Step

Rule = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


class Worlds:
    """`count` worlds whose state is two float64 numbers each; one that ends begins anew in the same call.

    Args:
        count: Worlds.
        limit: Steps after which an episode is cut.
        generator: Draws the first states.
    """

    spec: Spec

    def __init__(self, count: int, limit: int, generator: torch.Generator):
        self.count, self.limit, self.generator = count, limit, generator
        self.state = self.first()
        self.age = torch.zeros(count, dtype=torch.int64)

    def uniform(self, low: float, high: float) -> Tensor:
        """Random numbers [count] float64."""
        return low + (high - low) * torch.rand(self.count, generator=self.generator, dtype=torch.float64)

    def first(self) -> Tensor:
        """States [count, 2] to begin an episode in."""
        raise NotImplementedError

    def observe(self) -> Tensor:
        """Observations [count, obs_size] float32 of the present states."""
        raise NotImplementedError

    def advance(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Next states [count, 2], rewards [count] and whether an episode reached its end [count], for actions [count, action_size]."""
        raise NotImplementedError

    def step(self, action: Tensor) -> Step:
        """One step of every world."""
        self.state, reward, terminated = self.advance(action)
        next_obs, self.age = self.observe(), self.age + 1
        truncated = (self.age >= self.limit) & ~terminated
        done = terminated | truncated
        if bool(done.any()):
            self.state = torch.where(done[:, None], self.first(), self.state)
            self.age[done] = 0
        return Step(self.observe(), next_obs, reward.float(), terminated, truncated, torch.ones_like(done), {})


class MountainCar(Worlds):
    """A car too weak for the hill (Moore 1990): reward -1 at each step until the top. The state is position and velocity.

    Observations are scaled to [-1, 1].
    """

    spec = Spec(obs_size=2, action_size=3, discrete=True)

    def first(self) -> Tensor:
        """At rest near the bottom."""
        position = self.uniform(-0.6, -0.4)
        return torch.stack((position, torch.zeros_like(position)), -1)

    def observe(self) -> Tensor:
        """Position and velocity."""
        position, velocity = self.state.unbind(-1)
        return torch.stack(((position + 0.3) / 0.9, velocity / 0.07), -1).float()

    def advance(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Push left, not at all, or right."""
        position, velocity = self.state.unbind(-1)
        velocity = velocity + 0.001 * (action.argmax(-1) - 1) - 0.0025 * torch.cos(3 * position)
        velocity = velocity.clamp(-0.07, 0.07)
        position = (position + velocity).clamp(-1.2, 0.6)
        velocity = torch.where((position == -1.2) & (velocity < 0), 0.0, velocity)
        return torch.stack((position, velocity), -1), torch.full_like(position, -1.0), (position >= 0.5) & (velocity >= 0)


class Pendulum(Worlds):
    """A pendulum to swing up and balance; it only runs out of time. The state is angle from upright and angular velocity."""

    spec = Spec(obs_size=3, action_size=1, can_terminate=False)

    def first(self) -> Tensor:
        """Anywhere, turning slowly."""
        return torch.stack((self.uniform(-math.pi, math.pi), self.uniform(-1.0, 1.0)), -1)

    def observe(self) -> Tensor:
        """Cosine and sine of the angle, and angular velocity."""
        angle, velocity = self.state.unbind(-1)
        return torch.stack((angle.cos(), angle.sin(), velocity), -1).float()

    def advance(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turn by up to two units of torque."""
        angle, velocity = self.state.unbind(-1)
        torque = 2 * action[:, 0].double().clamp(-1, 1)
        from_upright = (angle + math.pi) % (2 * math.pi) - math.pi
        reward = -(from_upright.square() + 0.1 * velocity.square() + 0.001 * torque.square())
        velocity = (velocity + 0.05 * (15.0 * angle.sin() + 3.0 * torque)).clamp(-8, 8)
        return torch.stack((angle + 0.05 * velocity, velocity), -1), reward, torch.zeros(self.count, dtype=torch.bool)
