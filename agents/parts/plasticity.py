"""Slot `plasticity`: interventions that keep networks trainable."""

from dataclasses import dataclass

from steelyard.agents.parts.part import Part
from steelyard.agents.types import Spec


@dataclass(frozen=True)
class NoIntervention:
    """Networks are left to their optimisers."""

    def build(self, spec: Spec) -> "Untouched":
        """The part; it learns nothing."""
        del spec
        return Untouched()


class Untouched(Part):
    """The part that `NoIntervention` describes."""


Plasticity = NoIntervention
