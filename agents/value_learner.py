"""What all agents share that learn action values: their slots, and the critic's regression."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from steelyard.agents.acting import PARTS_SEED, ActingAgent, Buildable, Setting
from steelyard.agents.agent import seeded
from steelyard.agents.networks import MLP, Network
from steelyard.agents.networks.augmentation import Augmentation, Unaugmented
from steelyard.agents.networks.critic import ChoiceCritic, Critic, build_critic
from steelyard.agents.networks.encoders import Encoder, Unencoded
from steelyard.agents.networks.heads import Scalar, ValueHead
from steelyard.agents.networks.normalizers import ObservationNormalizer, RawObservations, RewardScaler, UnscaledRewards
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import (
    Model,
    NoIntervention,
    NoModel,
    Objective,
    Part,
    Plasticity,
    Regression,
    Squared,
    Uniform,
    Weighting,
)
from steelyard.agents.types import Batch, Metrics, Records, Spec


@dataclass(frozen=True)
class ValueLearner(Buildable):
    """Hyperparameters and slots that every agent with action values has."""

    critic: Network = field(default_factory=MLP)
    """Network of the action value."""
    critics: int = 2
    """Number of critics; targets take the smallest of them (clipped double Q). One turns that off."""
    head: ValueHead = field(default_factory=Scalar)
    """What the critic's output means."""
    observations: ObservationNormalizer = field(default_factory=RawObservations)
    """Normalisation of observations."""
    augmentation: Augmentation = field(default_factory=Unaugmented)
    """Augmentation of pictures in a batch."""
    encoder: Encoder = field(default_factory=Unencoded)
    """What makes features of pictures; the critic's loss trains it."""
    rewards: RewardScaler = field(default_factory=UnscaledRewards)
    """Scaling of rewards."""
    objective: Objective = field(default_factory=Squared)
    """How a Bellman error becomes a loss."""
    weighting: Weighting = field(default_factory=Uniform)
    """How much each sample counts in the critic's regression."""
    model: Model = field(default_factory=NoModel)
    """Imagined data."""
    plasticity: Plasticity = field(default_factory=NoIntervention)
    """Interventions that keep networks trainable."""
    optimizer: Adam = field(default_factory=Adam)
    """Optimiser of every loss, each with a state of its own."""
    discount: float | None = 0.99
    """gamma; None chooses clip(1 - 5 / horizon, 0.95, 0.995) from the task's horizon in decisions (SimbaV2)."""
    n_step: int = 1
    """Rewards summed before bootstrapping."""
    batch_size: int = 256
    """Transitions per update."""
    target_rate: float = 0.005
    """tau: how far the target networks move per update."""

    def gamma(self, spec: Spec) -> float:
        """The discount for a task."""
        if self.discount is not None:
            return self.discount
        return 0.99 if spec.horizon is None else min(max(1 - 5 / spec.horizon, 0.95), 0.995)


class ValueLearningAgent(ActingAgent):
    """An agent with a critic and the slots of `ValueLearner`."""

    slots: ClassVar[tuple[str, ...]] = ("objective", "weighting", "model", "plasticity")
    bootstraps: ClassVar[bool] = True
    """Whether `backup` reaches the bootstrap value through the critic that it is given. IQL's is another network's."""
    model_draw: int | None = None
    """Which of an update's draws is the model's; None if the agent has none for it."""
    shares_target: bool = True
    """Whether all critics regress to one target [batch, size], or each to its own [critics, batch, size]."""
    critic: Critic | ChoiceCritic
    target_critic: nn.Module

    def __init__(self, config: ValueLearner, setting: Setting):
        super().__init__(config, setting, config.gamma(setting.spec))
        spec = self.seen
        self.value_learner, self.target_rate = config, config.target_rate
        self.head = config.head.build()
        with seeded(setting.seed + PARTS_SEED):
            self.objective = config.objective.build(spec, config.critics)
            self.weighting = config.weighting.build(spec, config.critics)
            self.model = config.model.build(spec)
            self.plasticity = config.plasticity.build(spec)
        self.critic = self.build_critic()
        self.target_critic = self.build_critic()

    def optimizer_of(self, name: str) -> Adam:
        """The optimiser's configuration for the loss called `name`."""
        own = cast(Part, self.get_submodule(name)).optimizer if name in self.slots else None
        return own or self.value_learner.optimizer

    def build_critic(self) -> Critic | ChoiceCritic:
        """A critic with all its members."""
        return build_critic(self.value_learner.critic, self.seen, self.head.size, self.value_learner.critics)

    def prepare(self, batch: Batch, noise: Tensor) -> Batch:
        """Normalised observations and scaled rewards, by the statistics of this moment; part of them imagined, if there is a model."""
        return super().prepare(self.model.mix(cast(Any, self), batch, noise), noise)

    def fit(self, records: Records) -> None:
        """Set statistics from a whole data set, before learning from it."""
        super().fit(records)
        self.weighting.fit(records._replace(reward=self.reward_scale(records.reward)))

    def backup(self, critic: nn.Module, batch: Batch, noise: Tensor) -> Tensor:
        """Bellman target [batch, size] computed with `critic`."""
        raise NotImplementedError

    def regression(self, batch: Batch, noise: Tensor) -> Regression:
        """The critic's regression problem for a normalised batch."""
        output = self.critic(batch.obs, batch.action)
        return Regression(
            head=self.head,
            obs=batch.obs,
            action=batch.action,
            output=output,
            critic=self.critic,
            target_critic=self.target_critic,
            backup=partial(self.backup, batch=batch, noise=noise),
        )

    def critic_loss(self, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
        """Sum over critics of the batch mean of weight * objective(output, target)."""
        regression = self.regression(batch, noise)
        loss = self.weighting(batch.weight, regression) * self.objective(regression)
        return loss.mean(-1).sum(), {"value": self.head.value(regression.output).mean()}
