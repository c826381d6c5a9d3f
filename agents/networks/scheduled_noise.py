"""A deterministic policy whose exploration noise shrinks with the transitions collected."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steelyard.agents.errors import SlotError
from steelyard.agents.networks.policies import BodyBuilder, DeterministicPolicy

INSIDE = 1 - 1e-6
"""Noisy actions are kept this far inside [-1, 1]."""


@dataclass(frozen=True)
class ScheduledNoise:
    """a = tanh(f(s)) + noise of a deviation that falls linearly (DrQ-v2, Yarats et al. 2021, equation 3)."""

    start: float = 1.0
    """Standard deviation at the first transition."""
    end: float = 0.1
    """The same once it has fallen."""
    decay_steps: int = 100_000
    """Transitions (decisions of one world) over which it falls."""
    clip: float = 0.3
    """Bound on the noise in updates; when it acts, the policy's noise has none."""

    def __post_init__(self) -> None:
        if not (self.start >= 0 and self.end >= 0 and self.decay_steps >= 1 and self.clip >= 0):
            raise SlotError(
                f"ScheduledNoise goes from {self.start} to {self.end} in {self.decay_steps} steps, cut off at {self.clip}; "
                "give deviations that are not negative, and one step or more."
            )

    def build(self, body: BodyBuilder, action_size: int) -> "ScheduledNoisePolicy":
        """The policy on a network with one output."""
        return ScheduledNoisePolicy(body((action_size,)), self)


class ScheduledNoisePolicy(DeterministicPolicy):
    """The policy that `ScheduledNoise` describes."""

    transitions: Tensor

    def __init__(self, body: nn.Module, config: ScheduledNoise):
        super().__init__(body, config.end)
        self.config = config
        self.register_buffer("transitions", torch.zeros(1, dtype=torch.float64))

    def observe(self, count: Tensor) -> None:
        """Count transitions."""
        self.transitions.add_(count)

    def deviation(self) -> Tensor:
        """Standard deviation [1] of the noise now."""
        share = (self.transitions / self.config.decay_steps).clamp(max=1.0).float()
        return self.config.start + (self.config.end - self.config.start) * share

    def propose(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Actions [batch, action_size] for updates: the noise is bounded, and where an action is cut off the gradient passes as if it were not."""
        action = self(obs) + (self.deviation() * noise).clamp(-self.config.clip, self.config.clip)
        return action + (action.clamp(-INSIDE, INSIDE) - action).detach()

    def sample(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Exploratory actions [batch, action_size]; zero noise gives the deterministic ones."""
        return (self(obs) + self.deviation() * noise).clamp(-INSIDE, INSIDE)
