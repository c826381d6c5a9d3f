"""Implicit Q-learning (Kostrikov et al. 2021, arXiv 2110.06169): values by expectile regression, policy by weighted regression."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from steelyard.agents.acting import Setting
from steelyard.agents.actor_critic import ActorCritic, ActorCriticAgent
from steelyard.agents.networks import MLP, Network
from steelyard.agents.networks.policies import PolicyHead, UnsquashedGaussian
from steelyard.agents.parts import Balance, Fixed
from steelyard.agents.types import Batch, Metrics


@dataclass(frozen=True)
class IQL(ActorCritic):
    """Implicit Q-learning."""

    policy: PolicyHead = field(default_factory=UnsquashedGaussian)
    """Distribution of actions; a deterministic one is trained by weighted squared errors."""
    value: Network = field(default_factory=MLP)
    """Network of the state value."""
    expectile: float = 0.7
    """tau of the expectile that the state value regresses to: 1/2 is the mean, towards 1 the best action in the data."""
    largest_weight: float = 100.0
    """Bound on the weights of the policy's regression."""
    balance: Balance = field(default_factory=lambda: Fixed(3.0))
    """beta, the inverse temperature of the weights exp(beta A): one number, or a family of them (FamO2O)."""

    def make(self, setting: Setting) -> "ImplicitQLearning":
        """The agent that this configuration describes."""
        return ImplicitQLearning(self, setting)


class StateValue(nn.Module):
    """V(s) [batch] from a network with one output."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, obs: Tensor) -> Tensor:
        return self.body(obs)[0].squeeze(-1)


class ImplicitQLearning(ActorCriticAgent):
    """The agent that `IQL` describes. Policy and critic see the state value of this update, as in the released code."""

    losses = ("value", "actor", "critic")
    slow: ClassVar[dict[str, str]] = {"target_critic": "critic"}
    bootstraps: ClassVar[bool] = False

    def __init__(self, config: IQL, setting: Setting):
        super().__init__(config, setting)
        self.value = StateValue(config.value.build(self.seen.obs_size, (1,)))
        self.actor = config.policy.build(self.body_builder(config.actor), self.spec.action_size)
        self.expectile, self.log_largest_weight = config.expectile, math.log(config.largest_weight)
        self.count_draws(0)

    def advantage(self, batch: Batch) -> Tensor:
        """min_i Q'_i(s, a) - V(s) [batch], Q' the target critics."""
        return self.lowest_target_value(batch.obs, batch.action) - self.value(batch.obs)

    def value_loss(self, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
        """E[|tau - 1(u < 0)| u^2], u = min_i Q'_i(s, a) - V(s) (equation 5)."""
        advantage = self.advantage(batch)
        weight = torch.where(advantage > 0, self.expectile, 1 - self.expectile)
        return self.weighting.mean(batch, weight * advantage.square()), {"advantage": advantage.mean()}

    def actor_loss(self, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
        """-E[min(exp(beta A), largest) log pi(a|s)] over the data's actions (equation 7)."""
        coefficient = self.balance.sample(batch.obs, noise)
        # Bounded before it is exponentiated: exp of a large advantage would be infinite.
        weight = (coefficient * self.advantage(batch)).clamp(max=self.log_largest_weight).exp()
        log_prob = self.actor.log_prob(self.balance.condition(batch.obs, coefficient), batch.action)
        return self.weighting.mean(batch, -weight * log_prob), {"actor_weight": weight.mean()}

    def backup(self, critic: nn.Module, batch: Batch, noise: Tensor) -> Tensor:
        """r + gamma^n (1 - terminated) V(s') (equation 6)."""
        return self.head.point(batch.reward + batch.discount * self.value(batch.next_obs))
