"""What all actor-critic agents share beside their critic: a policy, the balance that conditions it, and what it climbs."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from steelyard.agents.acting import Setting
from steelyard.agents.networks import MLP, Network
from steelyard.agents.networks.heads import pessimistic
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import Balance, Fixed
from steelyard.agents.value_learner import ValueLearner, ValueLearningAgent


@dataclass(frozen=True)
class ActorCritic(ValueLearner):
    """Hyperparameters and slots that every actor-critic agent has."""

    actor: Network = field(default_factory=MLP)
    """Network of the policy."""
    target_subset: int | None = None
    """Critics drawn at random in each update, of which targets take the smallest (REDQ, RLPD); None takes all."""
    policy_value: Literal["lowest", "first", "mean"] = "lowest"
    """What the policy climbs: the smallest value of all critics, the first critic's, or their mean."""
    balance: Balance = field(default_factory=Fixed)
    """Improvement against closeness to the data."""
    actor_optimizer: Adam | None = None
    """Optimiser of the policy, where it differs."""


class ActorCriticAgent(ValueLearningAgent):
    """An agent with a critic, a policy and the slots of `ActorCritic`."""

    slots: ClassVar[tuple[str, ...]] = ("objective", "weighting", "balance", "model", "plasticity")

    def __init__(self, config: ActorCritic, setting: Setting):
        super().__init__(config, setting)
        self.config = config

    def count_draws(self, own: int) -> None:
        """Sets how much noise an update needs: the agent's own draws, and behind them the model's and one for the subset of critics."""
        self.model_draw, self.subset_draw = own, own + self.model.draws
        super().count_draws(own + self.model.draws + (self.config.target_subset is not None))

    def optimizer_of(self, name: str) -> Adam:
        """The optimiser's configuration for the loss called `name`."""
        return (self.config.actor_optimizer if name == "actor" else None) or super().optimizer_of(name)

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
