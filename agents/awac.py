"""Advantage-weighted actor-critic (Nair et al. 2020, arXiv 2006.09359): policy iteration with a policy fitted to weighted data actions."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from steelyard.agents.acting import Setting
from steelyard.agents.actor_critic import ActorCritic, ActorCriticAgent
from steelyard.agents.networks.policies import PolicyHead, UnsquashedGaussian
from steelyard.agents.parts import Balance, Fixed
from steelyard.agents.types import Batch, Metrics


@dataclass(frozen=True)
class AWAC(ActorCritic):
    """Advantage-weighted actor-critic."""

    policy: PolicyHead = field(default_factory=lambda: UnsquashedGaussian("linear", low=-20.0))
    """Distribution of actions."""
    largest_weight: float = 100.0
    """Bound on the weights of the policy's regression."""
    balance: Balance = field(default_factory=lambda: Fixed(3.0))
    """1 / lambda, the inverse temperature of the weights exp(A / lambda): one number, or a family of them (FamO2O)."""

    def make(self, setting: Setting) -> "AdvantageWeighted":
        """The agent that this configuration describes."""
        return AdvantageWeighted(self, setting)


class AdvantageWeighted(ActorCriticAgent):
    """The agent that `AWAC` describes."""

    losses = ("critic", "actor")
    slow: ClassVar[dict[str, str]] = {"target_critic": "critic"}

    def __init__(self, config: AWAC, setting: Setting):
        super().__init__(config, setting)
        self.actor = config.policy.build(self.body_builder(config.actor), self.spec.action_size)
        self.log_largest_weight = math.log(config.largest_weight)
        self.count_draws(2)

    def backup(self, critic: nn.Module, batch: Batch, noise: Tensor) -> Tensor:
        """r + gamma^n (1 - terminated) min_i Q_i(s', a'), a' ~ pi (equation 4)."""
        action = self.actor.sample(self.view(batch.next_obs), noise[1])
        output = self.pessimistic(critic(batch.next_obs, action), noise)
        return self.head.backup(output, batch.reward, batch.discount, torch.zeros_like(batch.reward))

    def actor_loss(self, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
        """-E[min(exp(A / lambda), largest) log pi(a|s)], A = min_i Q_i(s, a) - min_i Q_i(s, a~), a~ ~ pi, one sample (equation 8)."""
        coefficient = self.balance.sample(batch.obs, noise)
        obs = self.balance.condition(batch.obs, coefficient)
        with torch.no_grad():
            baseline = self.climbed_value(batch.obs, self.actor.sample(obs, noise[0]))
            advantage = self.climbed_value(batch.obs, batch.action) - baseline
            weight = (coefficient * advantage).clamp(max=self.log_largest_weight).exp()
        loss = self.weighting.mean(batch, -weight * self.actor.log_prob(obs, batch.action))
        return loss, {"advantage": advantage.mean(), "actor_weight": weight.mean()}
