"""Policies over a few choices: the one of the highest value, explored by chance."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steelyard.agents.errors import SlotError
from steelyard.agents.networks.critic import ChoiceCritic
from steelyard.agents.networks.heads import CategoricalValue, ScalarValue


@dataclass(frozen=True)
class EpsilonGreedy:
    """The best choice, or with a probability that falls linearly a random one."""

    start: float = 1.0
    """Probability of a random choice at the first transition."""
    end: float = 0.1
    """The same once it has fallen."""
    decay_steps: int = 1_000_000
    """Transitions over which it falls."""

    def __post_init__(self) -> None:
        if not (0 <= self.start <= 1 and 0 <= self.end <= 1 and self.decay_steps >= 1):
            raise SlotError(
                f"EpsilonGreedy goes from {self.start} to {self.end} in {self.decay_steps} steps; give probabilities and one step or more."
            )

    def build(self) -> "EpsilonGreedyChoice":
        """The module that counts transitions and chooses."""
        return EpsilonGreedyChoice(self)


class EpsilonGreedyChoice(nn.Module):
    """The module that `EpsilonGreedy` describes."""

    transitions: Tensor

    def __init__(self, config: EpsilonGreedy):
        super().__init__()
        self.config = config
        self.register_buffer("transitions", torch.zeros(1, dtype=torch.float64))

    def observe(self, count: Tensor) -> None:
        """Count transitions."""
        self.transitions.add_(count)

    def epsilon(self) -> Tensor:
        """Probability [1] of a random choice now."""
        share = (self.transitions / self.config.decay_steps).clamp(max=1.0).float()
        return self.config.start + (self.config.end - self.config.start) * share

    def forward(self, values: Tensor, noise: Tensor) -> Tensor:
        """One-hot choices [rows, choices] for values and standard normal noise of that shape; zero noise gives the best choice.

        The sum of independent normal numbers says nothing of which is the largest: the sum decides whether to explore, the largest where.
        """
        chance = torch.erfc(noise.sum(-1).abs() / math.sqrt(2 * noise.shape[-1]))  # uniform in (0, 1), and 1 for zero noise
        explore = chance < self.epsilon()
        return F.one_hot(torch.where(explore, noise.argmax(-1), values.argmax(-1)), values.shape[-1]).float()


class GreedyPolicy(nn.Module):
    """Chooses by a critic's values."""

    def __init__(self, critic: ChoiceCritic, head: ScalarValue | CategoricalValue, exploration: EpsilonGreedyChoice):
        super().__init__()
        self.critic, self.head, self.exploration = critic, head, exploration

    def values(self, obs: Tensor) -> Tensor:
        """The mean over critics of every choice's value [rows, choices]."""
        return self.head.value(self.critic.every(obs)).mean(0)

    def sample(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Exploratory one-hot choices [rows, choices]; zero noise gives the best."""
        return self.exploration(self.values(obs), noise)

    def mode(self, obs: Tensor) -> Tensor:
        """The best choices, one-hot [rows, choices]."""
        values = self.values(obs)
        return F.one_hot(values.argmax(-1), values.shape[-1]).float()
