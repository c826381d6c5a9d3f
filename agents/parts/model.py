"""Slot `model`: imagined data from learned dynamics."""

from dataclasses import dataclass

from steelyard.agents.parts.part import Part
from steelyard.agents.types import Batch, Spec


@dataclass(frozen=True)
class NoModel:
    """Real data only."""

    def build(self, spec: Spec) -> "RealDataOnly":
        """The part; it learns nothing."""
        del spec
        return RealDataOnly()


class RealDataOnly(Part):
    """The part that `NoModel` describes."""

    def mix(self, batch: Batch) -> Batch:
        """The batch that the agent learns from, given one drawn from real replay."""
        return batch


Model = NoModel
