"""Slot `weighting`: how much each sample counts in the critic's regression."""

from dataclasses import dataclass

from torch import Tensor

from steelyard.agents.parts.objective import Regression
from steelyard.agents.parts.part import Part
from steelyard.agents.types import Spec


@dataclass(frozen=True)
class Uniform:
    """Every sample counts as the sampler says."""

    def build(self, spec: Spec, critics: int) -> "UniformWeighting":
        """The part; it learns nothing."""
        del spec, critics
        return UniformWeighting()


class UniformWeighting(Part):
    """The part that `Uniform` describes."""

    def forward(self, weight: Tensor, regression: Regression) -> Tensor:
        """Weights [batch] (or [critics, batch]) from the sampler's weights [batch]."""
        del regression
        return weight


Weighting = Uniform
