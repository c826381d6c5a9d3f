"""Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018, arXiv 1802.09477).

With something in its `cloning` slot it is TD3+BC (Fujimoto & Gu 2021) or ReBRAC (Tarasov et al. 2023).
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor, nn

from steelyard.agents.acting import Setting
from steelyard.agents.actor_critic import ActorCritic, ActorCriticAgent
from steelyard.agents.networks.policies import DeterministicPolicy
from steelyard.agents.parts.cloning import Cloning, NoCloning
from steelyard.agents.types import Batch, Metrics


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
    policy_value: Literal["lowest", "first", "mean"] = "first"
    """What the policy climbs: the first critic's value (TD3), the smallest of all (ReBRAC), or their mean."""
    cloning: Cloning = field(default_factory=NoCloning)
    """What keeps the policy near the data's actions."""

    def make(self, setting: Setting) -> "TwinDelayed":
        """The agent that this configuration describes."""
        return TwinDelayed(self, setting)


class TwinDelayed(ActorCriticAgent):
    """The agent that `TD3` describes."""

    losses = ("critic", "actor")
    slots: ClassVar[tuple[str, ...]] = (*ActorCriticAgent.slots, "cloning")
    slow: ClassVar[dict[str, str]] = {"target_critic": "critic", "target_actor": "actor"}
    actor: DeterministicPolicy

    def __init__(self, config: TD3, setting: Setting):
        super().__init__(config, setting)
        self.actor = DeterministicPolicy(self.body_builder(config.actor)((self.spec.action_size,)), config.exploration_noise)
        self.target_actor = DeterministicPolicy(
            self.body_builder(config.actor)((self.spec.action_size,)), config.exploration_noise
        )
        self.target_noise, self.target_noise_clip = config.target_noise, config.target_noise_clip
        self.cloning = config.cloning.build()
        self.columns = self.cloning.columns
        self.every = {"actor": config.policy_delay, "slow": config.policy_delay}
        self.count_draws(1)

    def backup(self, critic: nn.Module, batch: Batch, noise: Tensor) -> Tensor:
        """r + gamma^n (1 - terminated) (min_i Q_i(s', a') - cloning penalty of a'), a' = clip(pi'(s') + clip(noise, -c, c), -1, 1).

        Section 5.3; the penalty is ReBRAC's, zero elsewhere.
        """
        smoothing = (noise[0] * self.target_noise).clamp(-self.target_noise_clip, self.target_noise_clip)
        action = (self.target_actor(self.view(batch.next_obs)) + smoothing).clamp(-1, 1)
        output = self.pessimistic(critic(batch.next_obs, action), noise)
        bonus = self.cloning.discount_bonus(batch.reward, action, batch.next_action)
        return self.head.backup(output, batch.reward, batch.discount, bonus)

    def actor_loss(self, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
        """-E[c Q_1(s, pi(s))], every `policy_delay`-th update (algorithm 1: c = 1).

        With cloning -E[c Q / mean|Q|] + E[penalty of pi(s) - a], c the balance's coefficient (TD3+BC, equation 5).
        """
        coefficient = self.balance.sample(batch.obs, noise)
        action = self.actor(self.balance.condition(batch.obs, coefficient))
        value = self.climbed_value(batch.obs, action)
        improvement = self.weighting.state_mean(batch, self.cloning.scale(value) * coefficient * value)
        penalty = self.cloning.penalty(action, batch.action)
        return self.weighting.mean(batch, penalty) - improvement, {}
