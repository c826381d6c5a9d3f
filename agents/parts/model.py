"""Slot `model`: imagined data from learned dynamics."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from steelyard.agents.parts.ensemble import Ensemble
from steelyard.agents.parts.part import Part
from steelyard.agents.types import Batch, Spec

if TYPE_CHECKING:
    from steelyard.agents.value_learner import ValueLearningAgent


@dataclass(frozen=True)
class NoModel:
    """Real data only."""

    def build(self, spec: Spec) -> "RealDataOnly":
        """The part; it learns nothing."""
        del spec
        return RealDataOnly()


class RealDataOnly(Part):
    """The part that `NoModel` describes."""

    def mix(self, agent: "ValueLearningAgent", batch: Batch, noise: Tensor) -> Batch:
        """The raw batch that the agent learns from, given the one drawn from replay and the update's noise."""
        return batch


Model = NoModel | Ensemble
