"""Slot `objective`: how a Bellman error becomes a loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steelyard.agents.errors import SlotError
from steelyard.agents.networks.heads import CategoricalValue, ScalarValue
from steelyard.agents.parts.part import Part
from steelyard.agents.types import Spec


class Regression(NamedTuple):
    """The critic's regression problem of one batch."""

    head: ScalarValue | CategoricalValue
    """What outputs mean."""
    obs: Tensor
    """[batch, obs_size] normalised."""
    action: Tensor
    """[batch, action_size]."""
    output: Tensor
    """[critics, batch, size]: the critic's outputs at (obs, action)."""
    critic: nn.Module
    """The critic that is trained."""
    target_critic: nn.Module
    """The slowly moving copy that targets come from."""
    backup: Callable[[nn.Module], Tensor]
    """Target [batch, size] computed with the given critic. Differentiable, so that with `critic` itself a saddle-point objective reaches
    the bootstrap value."""

    def target(self) -> Tensor:
        """[batch, size]: the usual semi-gradient target, without a gradient."""
        with torch.no_grad():
            return self.backup(self.target_critic)


@dataclass(frozen=True)
class Squared:
    """Squared error of a scalar head, cross-entropy of a categorical one, against the semi-gradient target."""

    def build(self, spec: Spec, critics: int) -> "SquaredObjective":
        """The part; it learns nothing."""
        del spec, critics
        return SquaredObjective()


class SquaredObjective(Part):
    """The part that `Squared` describes."""

    def forward(self, regression: Regression) -> Tensor:
        """Loss per critic and sample [critics, batch]."""
        return regression.head.loss(regression.output, regression.target())


@dataclass(frozen=True)
class ClippedSemiGradient:
    """Smooth-L1 of the sampled error against the semi-gradient target: DQN's clipped error (Mnih et al. 2015).

    The baseline that Patterson et al. (2023) argue against: the clip sits on the sample, so where noise is skewed its fixed point is not the
    value. Errors are those of the value, also of a categorical head.
    """

    threshold: float = 1.0
    """Error up to which the loss is half its square, and beyond which it grows linearly."""

    def __post_init__(self) -> None:
        require_positive("ClippedSemiGradient", self.threshold)

    def build(self, spec: Spec, critics: int) -> "ClippedObjective":
        """The part; it learns nothing."""
        del spec, critics
        return ClippedObjective(self.threshold)


class ClippedObjective(Part):
    """The part that `ClippedSemiGradient` describes."""

    def __init__(self, threshold: float):
        super().__init__()
        self.threshold = threshold

    def forward(self, regression: Regression) -> Tensor:
        """delta^2 / 2 up to the threshold t, t (|delta| - t / 2) beyond: [critics, batch]."""
        head = regression.head
        value = head.value(regression.output)
        return F.huber_loss(value, head.expectation(regression.target()).expand_as(value), reduction="none", delta=self.threshold)


def require_positive(name: str, threshold: float) -> None:
    """Raises `SlotError` for a threshold that bounds nothing."""
    if not threshold > 0:
        raise SlotError(
            f"the threshold of {name} is {threshold}; give a positive number, in units of the temporal-difference error."
        )
