"""Slot `improvement` of value-based agents: what the policy makes of a state's action values, and what it earns besides reward."""

from dataclasses import dataclass

import torch
from torch import Tensor

from steelyard.agents.errors import SlotError
from steelyard.agents.parts.part import Part


@dataclass(frozen=True)
class Greedy:
    """The best action, or mostly it."""

    random_share: float = 0.0
    """Share of the mean over actions in the value of a state: the value of an epsilon-greedy policy (QRC takes 0.1)."""

    def __post_init__(self) -> None:
        if not 0 <= self.random_share <= 1:
            raise SlotError(f"random_share of Greedy is {self.random_share}; give a probability.")

    def build(self) -> "GreedyImprovement":
        """The part; it learns nothing."""
        return GreedyImprovement(self.random_share)


class GreedyImprovement(Part):
    """The part that `Greedy` describes."""

    def __init__(self, random_share: float):
        super().__init__()
        self.random_share = random_share

    def policy(self, values: Tensor) -> Tensor:
        """Probabilities [batch, choices] of actions with the given values, constants."""
        choices = torch.arange(values.shape[-1], device=values.device)
        best = (values.argmax(-1, keepdim=True) == choices).to(values.dtype)
        return (1 - self.random_share) * best + self.random_share / values.shape[-1]

    def entropy_bonus(self, values: Tensor) -> Tensor:
        """Subtracted from the value of the next state: [batch]."""
        return torch.zeros_like(values[..., 0])

    def reward_bonus(self, values: Tensor, action: Tensor) -> Tensor:
        """Added to the reward of one-hot actions [batch, choices] in a state with the given values: [batch]."""
        return torch.zeros_like(values[..., 0])


@dataclass(frozen=True)
class Munchausen:
    """A softmax policy, whose own log probability joins the reward (M-DQN, Vieillard et al. 2020, arXiv 2007.14430)."""

    temperature: float = 0.03
    """tau: the sum of the weights of the entropy (0.003) and of the divergence from the policy before (0.027)."""
    weight: float = 0.9
    """alpha: the divergence's share of that sum."""
    lowest: float = -1.0
    """l_0: tau log pi is not counted below it."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise SlotError(
                f"temperature of Munchausen is {self.temperature}; give a positive number, or the improvement Greedy for zero."
            )
        if not 0 <= self.weight <= 1:
            raise SlotError(f"weight of Munchausen is {self.weight}; give a number from 0 to 1.")
        if not self.lowest < 0:
            raise SlotError(f"lowest of Munchausen is {self.lowest}; log probabilities are negative, give a negative number.")

    def build(self) -> "MunchausenImprovement":
        """The part; it learns nothing."""
        return MunchausenImprovement(self)


class MunchausenImprovement(Part):
    """The part that `Munchausen` describes."""

    def __init__(self, config: Munchausen):
        super().__init__()
        self.config = config

    def log_policy(self, values: Tensor) -> Tensor:
        """tau log pi [batch, choices], pi = softmax(Q / tau)."""
        temperature = self.config.temperature
        return temperature * (values / temperature).log_softmax(-1)

    def policy(self, values: Tensor) -> Tensor:
        """softmax(Q / tau) [batch, choices]."""
        return (values / self.config.temperature).softmax(-1)

    def entropy_bonus(self, values: Tensor) -> Tensor:
        """sum_a pi(a|s') tau log pi(a|s') [batch], minus tau times the entropy."""
        return (self.policy(values) * self.log_policy(values)).sum(-1)

    def reward_bonus(self, values: Tensor, action: Tensor) -> Tensor:
        """alpha clip(tau log pi(a|s), l_0, 0) [batch]."""
        return self.config.weight * (self.log_policy(values) * action).sum(-1).clamp(self.config.lowest, 0)


Improvement = Greedy | Munchausen
