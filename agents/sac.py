"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905): maximum-entropy policy, clipped double Q, tuned temperature."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from steelyard.agents.actor_critic import ActorCritic, ActorCriticAgent
from steelyard.agents.agent import Execution, seeded
from steelyard.agents.networks.heads import Gaussian, GaussianPolicy
from steelyard.agents.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class SAC(ActorCritic):
    """Soft actor-critic."""

    policy: Gaussian = field(default_factory=Gaussian)
    """Distribution of actions."""
    initial_temperature: float = 1.0
    """alpha at the start."""
    entropy_per_action: float = -1.0
    """Target entropy in units of the number of action components: -|A| in the paper, -|A|/2 in SimbaV2."""

    def build(
        self,
        spec: Spec,
        *,
        num_envs: int,
        total_updates: int,
        seed: int,
        device: str | torch.device = "cpu",
        execution: Execution | None = None,
    ) -> "SoftActorCritic":
        """The agent for a task.

        Args:
            spec: The task's observation and action sizes.
            num_envs: Worlds that will be collected from (the return statistics keep one running return per world).
            total_updates: Updates of the whole run, over which learning rates decay.
            seed: Seed of initial weights and of the agent's noise.
            device: Where everything lives.
            execution: Precision and compilation.
        """
        with seeded(seed):
            return SoftActorCritic(self, spec, num_envs, total_updates, seed, torch.device(device), execution or Execution())


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
    draws = 2

    def __init__(
        self, config: SAC, spec: Spec, num_envs: int, total_updates: int, seed: int, device: torch.device, execution: Execution
    ):
        super().__init__(config, spec, num_envs, seed, device, execution)
        self.actor = GaussianPolicy(self.build_actor_body((spec.action_size, spec.action_size)), config.policy)
        self.temperature = Temperature(config.initial_temperature)
        self.target_entropy = config.entropy_per_action * spec.action_size
        self.finish(config.optimizer, total_updates, config.target_rate)

    def actor_loss(self, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
        """E[alpha log pi(a|s) - min_i Q_i(s, a)], a ~ pi reparameterised (equation 7)."""
        action, log_prob = self.actor(self.balance.condition(batch.obs), noise[0])
        improvement = self.temperature().detach() * log_prob - self.lowest_value(batch.obs, action)
        return self.balance(improvement, action, batch.action).mean(), {"entropy": -log_prob.mean()}

    def temperature_loss(self, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
        """alpha (H - target entropy), H the entropy that the actor's loss saw (equation 18)."""
        temperature = self.temperature()
        return temperature * (seen["entropy"] - self.target_entropy), {"temperature": temperature}

    def backup(self, critic: nn.Module, batch: Batch, noise: Tensor) -> Tensor:
        """r + gamma^n (1 - terminated) (min_i Q_i(s', a') - alpha log pi(a'|s')), a' ~ pi (equation 3)."""
        action, log_prob = self.actor(self.balance.condition(batch.next_obs), noise[1])
        output = self.pessimistic(critic(batch.next_obs, action))
        return self.head.backup(output, batch.reward, batch.discount, self.temperature() * log_prob)
