"""What all actor-critic agents share: their slots, their networks, and the critic's regression."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal, cast

from torch import Tensor, nn

from steelyard.agents.acting import ActingAgent, Buildable, Setting
from steelyard.agents.networks import MLP, Network
from steelyard.agents.networks.critic import Critic
from steelyard.agents.networks.heads import Scalar, ValueHead, pessimistic
from steelyard.agents.networks.normalizers import ObservationNormalizer, RawObservations, RewardScaler, UnscaledRewards
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import (
    Balance,
    Fixed,
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
class ActorCritic(Buildable):
    """Hyperparameters and slots that every actor-critic agent has."""

    actor: Network = field(default_factory=MLP)
    """Network of the policy."""
    critic: Network = field(default_factory=MLP)
    """Network of the action value."""
    critics: int = 2
    """Number of critics; targets take the smallest of them (clipped double Q). One turns that off."""
    target_subset: int | None = None
    """Critics drawn at random in each update, of which targets take the smallest (REDQ, RLPD); None takes all."""
    policy_value: Literal["lowest", "first", "mean"] = "lowest"
    """What the policy climbs: the smallest value of all critics, the first critic's, or their mean."""
    head: ValueHead = field(default_factory=Scalar)
    """What the critic's output means."""
    observations: ObservationNormalizer = field(default_factory=RawObservations)
    """Normalisation of observations."""
    rewards: RewardScaler = field(default_factory=UnscaledRewards)
    """Scaling of rewards."""
    objective: Objective = field(default_factory=Squared)
    """How a Bellman error becomes a loss."""
    weighting: Weighting = field(default_factory=Uniform)
    """How much each sample counts in the critic's regression."""
    balance: Balance = field(default_factory=Fixed)
    """Improvement against closeness to the data."""
    model: Model = field(default_factory=NoModel)
    """Imagined data."""
    plasticity: Plasticity = field(default_factory=NoIntervention)
    """Interventions that keep networks trainable."""
    optimizer: Adam = field(default_factory=Adam)
    """Optimiser of every loss, each with a state of its own."""
    actor_optimizer: Adam | None = None
    """Optimiser of the policy, where it differs."""
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


class ActorCriticAgent(ActingAgent):
    """An agent with a critic, a policy and the slots of `ActorCritic`."""

    slots: ClassVar[tuple[str, ...]] = ("objective", "weighting", "balance", "model", "plasticity")
    target_critic: nn.Module

    def __init__(self, config: ActorCritic, setting: Setting):
        spec = setting.spec
        super().__init__(config, setting, config.gamma(spec))
        self.config, self.target_rate = config, config.target_rate
        self.head = config.head.build()
        self.objective = config.objective.build(spec, config.critics)
        self.weighting = config.weighting.build(spec, config.critics)
        self.model = config.model.build(spec)
        self.plasticity = config.plasticity.build(spec)
        self.critic = self.build_critic()
        self.target_critic = self.build_critic()

    def count_draws(self, own: int) -> None:
        """Sets how much noise an update needs: first the agent's own draws, then one for the subset of critics, last the balance's."""
        self.subset_draw = own
        self.draws = own + (self.config.target_subset is not None) + self.balance.draws

    def optimizer_of(self, name: str) -> Adam:
        """The optimiser's configuration for the loss called `name`."""
        if name in self.slots:
            return cast(Part, self.get_submodule(name)).optimizer or self.config.optimizer
        return self.config.actor_optimizer or self.config.optimizer if name == "actor" else self.config.optimizer

    def build_critic(self) -> Critic:
        """A critic with all its members."""
        inputs = self.spec.obs_size + self.spec.action_size
        return Critic(self.config.critic.build(inputs, (self.head.size,), self.config.critics))

    def prepare(self, batch: Batch) -> Batch:
        """Normalised observations and scaled rewards, by the statistics of this moment; part of them imagined, if there is a model."""
        return super().prepare(self.model.mix(batch))

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

    def climbed_value(self, obs: Tensor, action: Tensor) -> Tensor:
        """The value [batch] of the current critics that the policy climbs, as `policy_value` says."""
        values = self.head.value(self.critic(obs, action))
        match self.config.policy_value:
            case "lowest":
                return values.amin(0)
            case "first":
                return values[0]
            case "mean":
                return values.mean(0)

    def lowest_target_value(self, obs: Tensor, action: Tensor) -> Tensor:
        """min_i Q'_i(s, a) [batch] of the target critics."""
        return self.head.value(self.target_critic(obs, action)).amin(0)

    def pessimistic(self, output: Tensor, noise: Tensor) -> Tensor:
        """[critics, batch, size] -> [batch, size]: each sample's output of the critic that values it least, of all or of this update's subset."""
        if self.config.target_subset is not None:
            order = noise[self.subset_draw].flatten()[: self.config.critics].argsort()
            output = output[order[: self.config.target_subset]]
        return pessimistic(self.head, output)

    def intervene(self) -> None:
        """The plasticity slot's turn."""
        self.plasticity.intervene(cast(Any, self), self.update_count)  # a linked folder makes this class two for a type checker
