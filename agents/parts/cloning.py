"""Slot `cloning` of deterministic agents: what keeps the policy near the data's actions (TD3+BC, ReBRAC)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from steelyard.agents.errors import SteelyardError, require
from steelyard.agents.parts.part import Part

if TYPE_CHECKING:
    from steelyard.agents.value_learner import ValueLearningAgent


class CloningError(SteelyardError):
    """A cloning penalty cannot be built as configured."""


@dataclass(frozen=True)
class NoCloning:
    """The policy is free."""

    def build(self) -> "FreePolicy":
        """The part; it learns nothing."""
        return FreePolicy()


class FreePolicy(Part):
    """The part that `NoCloning` describes."""

    columns: frozenset[str] = frozenset()
    """Columns of replay that it reads beyond the usual ones."""

    def scale(self, value: Tensor) -> Tensor | float:
        """Factor of the improvement, given the values [batch] that the policy climbs."""
        return 1.0

    def penalty(self, action: Tensor, data_action: Tensor) -> Tensor:
        """Added to the policy's loss [batch]."""
        return torch.zeros_like(action[..., 0])

    def discount_bonus(self, reward: Tensor, action: Tensor, data_action: Tensor | None) -> Tensor:
        """Subtracted from the bootstrap value: [batch]."""
        return torch.zeros_like(reward)


@dataclass(frozen=True)
class ActionDistance:
    """Squared distance to the data's actions, the improvement divided by the mean absolute value.

    TD3+BC (Fujimoto & Gu 2021) takes the mean over action components, with the balance `Fixed(2.5)`. ReBRAC (Tarasov et al. 2023) sums over
    components, penalises the critic's target too, and has weights of its own for every data set.
    """

    actor: float | None = 1.0
    """beta_1: weight of |pi(s) - a|^2 in the policy's loss; None for what was published for the data set."""
    critic: float | None = 0.0
    """beta_2: weight of |a' - a'_data|^2 in the critic's target, zero in the online phase; None for what was published for the data set."""
    per_component: bool = True
    """Divide the policy's distance by the number of action components (TD3+BC), or sum it (ReBRAC)."""
    online_decay: int | None = None
    """Online updates over which the policy's weight falls linearly; None keeps it."""
    online_floor: float = 0.5
    """Share of the policy's weight at which that fall ends."""

    def __post_init__(self) -> None:
        for name in ("actor", "critic"):
            weight = getattr(self, name)
            require(weight is None or weight >= 0, f"{name} of ActionDistance is {weight}; give a weight of zero or more.")
        require(
            self.online_decay is None or self.online_decay >= 1,
            f"online_decay of ActionDistance is {self.online_decay}; give one update or more, or None for no decay.",
        )
        require(0 <= self.online_floor <= 1, f"online_floor of ActionDistance is {self.online_floor}; give a share from 0 to 1.")

    def build(self) -> "CloningPenalty":
        """The part; it learns nothing."""
        return CloningPenalty(self)


class CloningPenalty(Part):
    """The part that `ActionDistance` describes."""

    online: Tensor
    updates: Tensor

    def __init__(self, config: ActionDistance):
        super().__init__()
        if config.actor is None or config.critic is None:
            raise CloningError("the weights of ReBRAC's penalties are open; give agent.cloning.actor and agent.cloning.critic.")
        self.config, self.actor, self.critic = config, config.actor, config.critic
        self.columns = frozenset({"next_action"} if config.critic else ())
        self.register_buffer("online", torch.zeros(1))
        self.register_buffer("updates", torch.zeros(1))

    def begin_online(self) -> None:
        """The critic's penalty ends and the policy's begins to fall."""
        self.online.fill_(1.0)

    def refresh(self, agent: "ValueLearningAgent") -> None:
        """Count an update in the online phase, the one that begins: within the graph, since several updates may be one launch."""
        self.updates.add_(self.online)

    def scale(self, value: Tensor) -> Tensor:
        """1 / mean |Q|, a constant."""
        return 1 / value.abs().mean().detach()

    def penalty(self, action: Tensor, data_action: Tensor) -> Tensor:
        """beta_1 |pi(s) - a|^2 [batch], summed over components or their mean."""
        distance = (action - data_action).square()
        weight: Tensor | float = self.actor
        if self.config.online_decay is not None:
            before = (self.updates - self.online) / self.config.online_decay
            weight = weight * (1 - before).clamp(min=self.config.online_floor, max=1)
        return weight * (distance.mean(-1) if self.config.per_component else distance.sum(-1))

    def discount_bonus(self, reward: Tensor, action: Tensor, data_action: Tensor | None) -> Tensor:
        """beta_2 |a' - a'_data|^2 [batch] offline, zero online."""
        if self.critic == 0 or data_action is None:
            return torch.zeros_like(reward)
        return self.critic * (1 - self.online) * (action - data_action).square().sum(-1)


Cloning = NoCloning | ActionDistance
