"""What all actor-critic agents share beside their critic: a policy, the balance that conditions it, and what it climbs."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from steelyard.agents.acting import PARTS_SEED, Setting
from steelyard.agents.agent import seeded
from steelyard.agents.errors import SlotError, require
from steelyard.agents.networks import MLP, Network
from steelyard.agents.networks.exploration import Exploration, SameNoise
from steelyard.agents.networks.heads import pessimistic
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import Balance, Fixed
from steelyard.agents.types import Step
from steelyard.agents.value_learner import ValueLearner, ValueLearningAgent


@dataclass(frozen=True)
class ActorCritic(ValueLearner):
    """Hyperparameters and slots that every actor-critic agent has."""

    actor: Network = field(default_factory=MLP)
    """Network of the policy."""
    target_subset: int | None = None
    """Critics drawn at random in each update, of which targets take the smallest (REDQ, RLPD); None takes all."""
    target_draw: Literal["distinct", "independent"] = "distinct"
    """How that subset is drawn: different critics (REDQ, RLPD), or each among all of them, so that two draws may be one critic (WSRL's released
    code)."""
    target_value: Literal["lowest", "own"] = "lowest"
    """What critics regress to: all to the target of the critic that values the next action least (clipped double Q), or each to that of its own slow
    copy (FastSAC, arXiv 2512.01996)."""
    policy_value: Literal["lowest", "first", "mean"] = "lowest"
    """What the policy climbs: the smallest value of all critics, the first critic's, or their mean."""
    exploration: Exploration = field(default_factory=SameNoise)
    """What becomes of each world's noise before the policy acts with it."""
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
        self.require_targets()
        self.shares_target = config.target_value == "lowest"
        with seeded(setting.seed + PARTS_SEED):
            self.exploration = config.exploration.build(setting.num_envs, self.spec.action_size)

    def require_targets(self) -> None:
        """Raises `SlotError` for targets of each critic's own where there are none, or of more critics than there are."""
        subset, critics = self.config.target_subset, self.config.critics
        require(
            subset is None or subset <= critics,
            f"target_subset is {subset} of {critics} critics; give at most {critics}, or None for all.",
        )
        if self.config.target_value == "lowest":
            return
        if not self.bootstraps:
            raise SlotError(
                f"target_value is own, and targets of {type(self.config).__name__} come from another network; use target_value lowest."
            )
        if self.config.target_subset is not None:
            raise SlotError("target_value is own, which takes no smallest of a subset; leave target_subset out.")

    def explore(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Exploratory actions for raw observations and standard normal noise, of which `exploration` decides what is used."""
        with torch.no_grad():
            return self.choose(obs, self.exploration(noise))

    @torch.no_grad()
    def observe(self, step: Step) -> None:
        """Learn running statistics from one step of every world, and see which episodes ended."""
        super().observe(step)
        self.exploration.observe(step)

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
        """[critics, batch, size] -> [batch, size]: each sample's output of the critic that values it least, of all or of this update's subset.

        Unchanged where each critic has a target of its own.
        """
        if not self.shares_target:
            return output
        if self.config.target_subset is not None:
            output = output[self.drawn_subset(noise[self.subset_draw].flatten(), self.config.target_subset)]
        return pessimistic(self.head, output)

    def drawn_subset(self, normal: Tensor, size: int) -> Tensor:
        """Indices [size] of critics, from standard normal numbers."""
        critics = self.config.critics
        if self.config.target_draw == "distinct":
            return normal[:critics].argsort()[:size]
        uniform = 0.5 * torch.erfc(-normal[:size] / 2**0.5)
        return (uniform * critics).long().clamp(max=critics - 1)
