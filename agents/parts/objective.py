"""Slot `objective`: how a Bellman error becomes a loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

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


Objective = Squared
