"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905): maximum-entropy policy, clipped double Q, tuned temperature."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from steelyard.agents.acting import Setting
from steelyard.agents.actor_critic import ActorCritic, ActorCriticAgent
from steelyard.agents.networks.policies import Gaussian, GaussianPolicy
from steelyard.agents.optimizer import Adam
from steelyard.agents.types import Batch, Metrics


@dataclass(frozen=True)
class SAC(ActorCritic):
    """Soft actor-critic."""

    policy: Gaussian = field(default_factory=Gaussian)
    """Distribution of actions."""
    initial_temperature: float = 1.0
    """alpha at the start."""
    entropy_per_action: float = -1.0
    """Target entropy in units of the number of action components: -|A| in the paper, -|A|/2 in SimbaV2."""
    entropy_backup: bool = True
    """Count the policy's entropy in the critic's target. RLPD on sparse tasks and CQL leave it out."""
    policy_delay: int = 1
    """Critic updates per update of policy and temperature (20 in RLPD)."""
    target_delay: int = 1
    """Updates per move of the target networks."""
    temperature_optimizer: Adam | None = None
    """Optimiser of the temperature, where it differs."""

    def make(self, setting: Setting) -> "SoftActorCritic":
        """The agent that this configuration describes."""
        return SoftActorCritic(self, setting)


class Temperature(nn.Module):
    """alpha = exp(parameter)."""

    def __init__(self, initial: float):
        super().__init__()
        self.log = nn.Parameter(torch.tensor(initial).log())

    def forward(self) -> Tensor:
        return self.log.exp()


class SoftActorCritic(ActorCriticAgent):
    """The agent that `SAC` describes. One batch serves all losses, in the order of SimbaV2's released code."""

    losses = ("actor", "temperature", "critic")
    slow: ClassVar[dict[str, str]] = {"target_critic": "critic"}
    actor: GaussianPolicy

    def __init__(self, config: SAC, setting: Setting):
        super().__init__(config, setting)
        self.actor = config.policy.build(self.body_builder(config.actor), self.spec.action_size)
        self.temperature = Temperature(config.initial_temperature)
        self.target_entropy = config.entropy_per_action * self.spec.action_size
        self.entropy_backup = config.entropy_backup
        self.every = {"actor": config.policy_delay, "temperature": config.policy_delay, "slow": config.target_delay}
        self.temperature_optimizer = config.temperature_optimizer
        self.count_draws(2)

    def optimizer_of(self, name: str) -> Adam:
        """The optimiser's configuration for the loss called `name`."""
        return (self.temperature_optimizer if name == "temperature" else None) or super().optimizer_of(name)

    def actor_loss(self, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
        """E[alpha log pi(a|s) - c min_i Q_i(s, a)], a ~ pi reparameterised, c the balance's coefficient (equation 7: c = 1)."""
        coefficient = self.balance.sample(batch.obs, noise)
        action, log_prob = self.actor(self.balance.condition(batch.obs, coefficient), noise[0])
        loss = self.temperature().detach() * log_prob - coefficient * self.climbed_value(batch.obs, action)
        return self.weighting.mean(batch, loss), {"entropy": self.weighting.mean(batch, -log_prob)}

    def temperature_loss(self, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
        """alpha (H - target entropy), H the entropy that the actor's loss saw (equation 18)."""
        temperature = self.temperature()
        return temperature * (seen["entropy"] - self.target_entropy), {"temperature": temperature}

    def backup(self, critic: nn.Module, batch: Batch, noise: Tensor) -> Tensor:
        """r + gamma^n (1 - terminated) (min_i Q_i(s', a') - alpha log pi(a'|s')), a' ~ pi (equation 3)."""
        action, log_prob = self.actor(self.view(batch.next_obs), noise[1])
        output = self.pessimistic(critic(batch.next_obs, action), noise)
        return self.head.backup(output, batch.reward, batch.discount, self.entropy_bonus(log_prob))

    def entropy_bonus(self, log_prob: Tensor) -> Tensor:
        """alpha log pi [batch], or zero where the target leaves entropy out."""
        return self.temperature() * log_prob if self.entropy_backup else torch.zeros_like(log_prob)
