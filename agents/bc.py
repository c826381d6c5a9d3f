"""Behaviour cloning: the policy imitates the data's actions, and nothing else."""

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from steelyard.agents.acting import ActingAgent, Buildable, Setting
from steelyard.agents.networks import MLP, Network
from steelyard.agents.networks.augmentation import Augmentation, Unaugmented
from steelyard.agents.networks.encoders import Encoder, Unencoded
from steelyard.agents.networks.normalizers import ObservationNormalizer, RawObservations, UnscaledRewards
from steelyard.agents.networks.policies import Deterministic, PolicyHead
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import Fixed
from steelyard.agents.types import Batch, Metrics


@dataclass(frozen=True)
class BC(Buildable):
    """Behaviour cloning. With the sampler `TopFraction` it is 10 % BC."""

    actor: Network = field(default_factory=MLP)
    """Network of the policy."""
    policy: PolicyHead = field(default_factory=Deterministic)
    """A deterministic policy is trained by squared errors, a distribution by likelihood."""
    observations: ObservationNormalizer = field(default_factory=RawObservations)
    """Normalisation of observations."""
    augmentation: Augmentation = field(default_factory=Unaugmented)
    """Augmentation of pictures in a batch."""
    encoder: Encoder = field(default_factory=Unencoded)
    """What makes features of pictures; the policy's loss trains it."""
    optimizer: Adam = field(default_factory=Adam)
    """Optimiser."""
    batch_size: int = 256
    """Transitions per update."""

    # Rewards and successors play no part, and there is nothing to balance.
    rewards: ClassVar[UnscaledRewards] = UnscaledRewards()  # pyright: ignore[reportIncompatibleVariableOverride]
    balance: ClassVar[Fixed] = Fixed()  # pyright: ignore[reportIncompatibleVariableOverride]
    n_step: ClassVar[int] = 1  # pyright: ignore[reportIncompatibleVariableOverride]

    def make(self, setting: Setting) -> "BehaviorCloning":
        """The agent that this configuration describes."""
        return BehaviorCloning(self, setting)


class BehaviorCloning(ActingAgent):
    """The agent that `BC` describes."""

    losses = ("actor",)
    slots: ClassVar[tuple[str, ...]] = ()
    teacher: ClassVar[str] = "actor"

    def __init__(self, config: BC, setting: Setting):
        super().__init__(config, setting, gamma=0.99)
        self.config = config
        self.actor = config.policy.build(self.body_builder(config.actor), self.spec.action_size)
        self.count_draws(0)

    def actor_loss(self, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
        """-E[log pi(a|s)]; |pi(s) - a|^2 for a deterministic policy."""
        return -self.actor.log_prob(self.view(batch.obs), batch.action).mean(), {}

    def optimizer_of(self, name: str) -> Adam:
        """The one optimiser."""
        return self.config.optimizer
