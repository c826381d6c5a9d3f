"""Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018, arXiv 1802.09477)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from steelyard.agents.actor_critic import ActorCritic, ActorCriticAgent
from steelyard.agents.agent import Execution, seeded
from steelyard.agents.networks.heads import DeterministicPolicy
from steelyard.agents.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class TD3(ActorCritic):
    """Twin delayed deep deterministic policy gradient."""

    exploration_noise: float = 0.1
    """Standard deviation of the Gaussian noise on collected actions."""
    target_noise: float = 0.2
    """Standard deviation of the noise on target actions (target policy smoothing)."""
    target_noise_clip: float = 0.5
    """Bound on that noise."""
    policy_delay: int = 2
    """Critic updates per update of the policy and of the target networks."""

    def build(
        self,
        spec: Spec,
        *,
        num_envs: int,
        total_updates: int,
        seed: int,
        device: str | torch.device = "cpu",
        execution: Execution | None = None,
    ) -> "TwinDelayed":
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
            return TwinDelayed(self, spec, num_envs, total_updates, seed, torch.device(device), execution or Execution())


class TwinDelayed(ActorCriticAgent):
    """The agent that `TD3` describes."""

    losses = ("critic", "actor")
    slow: ClassVar[dict[str, str]] = {"target_critic": "critic", "target_actor": "actor"}
    draws = 1

    def __init__(
        self, config: TD3, spec: Spec, num_envs: int, total_updates: int, seed: int, device: torch.device, execution: Execution
    ):
        super().__init__(config, spec, num_envs, seed, device, execution)
        self.actor = DeterministicPolicy(self.build_actor_body((spec.action_size,)), config.exploration_noise)
        self.target_actor = DeterministicPolicy(self.build_actor_body((spec.action_size,)), config.exploration_noise)
        self.target_noise, self.target_noise_clip = config.target_noise, config.target_noise_clip
        self.every = {"actor": config.policy_delay, "slow": config.policy_delay}
        self.finish(config.optimizer, total_updates, config.target_rate)

    def backup(self, critic: nn.Module, batch: Batch, noise: Tensor) -> Tensor:
        """r + gamma^n (1 - terminated) min_i Q_i(s', clip(pi'(s') + clip(noise, -c, c), -1, 1)) (section 5.3)."""
        smoothing = (noise[0] * self.target_noise).clamp(-self.target_noise_clip, self.target_noise_clip)
        action = (self.target_actor(self.balance.condition(batch.next_obs)) + smoothing).clamp(-1, 1)
        output = self.pessimistic(critic(batch.next_obs, action))
        return self.head.backup(output, batch.reward, batch.discount, torch.zeros_like(batch.reward))

    def actor_loss(self, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
        """-E[Q_1(s, pi(s))], every `policy_delay`-th update (algorithm 1)."""
        action = self.actor(self.balance.condition(batch.obs))
        improvement = -self.head.value(self.critic(batch.obs, action))[0]
        return self.balance(improvement, action, batch.action).mean(), {}
