"""DrQ-v2: deterministic policy gradients from pixels (Yarats et al. 2021, arXiv 2107.09645)."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from steelyard.agents.acting import Setting
from steelyard.agents.actor_critic import ActorCritic, ActorCriticAgent
from steelyard.agents.networks import Bottleneck, Network
from steelyard.agents.networks.augmentation import Augmentation, RandomShift
from steelyard.agents.networks.encoders import Encoder, PictureEncoder
from steelyard.agents.networks.scheduled_noise import ScheduledNoise, ScheduledNoisePolicy
from steelyard.agents.optimizer import Adam
from steelyard.agents.types import Batch, Metrics, Step


@dataclass(frozen=True)
class DrQV2(ActorCritic):
    """Deterministic policy gradients from pixels, with the released configuration.

    The critic's loss is that of the other agents, half of the squared error: half of what the released code sums, which Adam's steps do not
    tell apart; weights of penalties (`Plasticity`) that were chosen for the whole count double here.
    """

    augmentation: Augmentation = field(default_factory=RandomShift)
    """Augmentation of pictures in a batch."""
    encoder: Encoder = field(default_factory=PictureEncoder)
    """What makes features of pictures; the critic's loss trains it."""
    actor: Network = field(default_factory=Bottleneck)
    """Network of the policy."""
    critic: Network = field(default_factory=Bottleneck)
    """Network of the action value."""
    noise: ScheduledNoise = field(default_factory=ScheduledNoise)
    """Noise on actions, collected and in updates."""
    optimizer: Adam = field(default_factory=lambda: Adam(1e-4))
    """Optimiser of every loss, each with a state of its own."""
    n_step: int = 3
    """Rewards summed before bootstrapping."""
    target_rate: float = 0.01
    """tau: how far the target critic moves per update."""

    def make(self, setting: Setting) -> "DataRegularizedQ":
        """The agent that this configuration describes."""
        return DataRegularizedQ(self, setting)


class DataRegularizedQ(ActorCriticAgent):
    """The agent that `DrQV2` describes. The encoder is trained first, by the critic's loss; policy and targets read its features as they are."""

    losses = ("critic", "actor")
    slow: ClassVar[dict[str, str]] = {"target_critic": "critic"}
    actor: ScheduledNoisePolicy

    def __init__(self, config: DrQV2, setting: Setting):
        super().__init__(config, setting)
        self.actor = config.noise.build(self.body_builder(config.actor), self.spec.action_size)
        self.count_draws(2)

    def backup(self, critic: nn.Module, batch: Batch, noise: Tensor) -> Tensor:
        """r + gamma^n (1 - terminated) min_i Q_i(s', a'), a' = pi(s') + clip(noise, -c, c) (section 3.1, equation 1)."""
        action = self.actor.propose(self.view(batch.next_obs), noise[0])
        output = self.pessimistic(critic(batch.next_obs, action), noise)
        return self.head.backup(output, batch.reward, batch.discount, torch.zeros_like(batch.reward))

    def actor_loss(self, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
        """-E[c min_i Q_i(s, pi(s) + clip(noise, -c, c))], the balance's coefficient being 1 (section 3.1, equation 2)."""
        coefficient = self.balance.sample(batch.obs, noise)
        action = self.actor.propose(self.balance.condition(batch.obs, coefficient), noise[1])
        value = self.climbed_value(batch.obs, action)
        return -self.weighting.state_mean(batch, coefficient * value), {"deviation": self.actor.deviation().mean()}

    @torch.no_grad()
    def observe(self, step: Step) -> None:
        """Learn running statistics from one step of every world, and explore less."""
        super().observe(step)
        self.actor.observe(step.valid.sum())
