"""Slot `plasticity`: interventions that keep networks trainable."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from steelyard.agents.parts.part import Part
from steelyard.agents.types import Spec

if TYPE_CHECKING:
    from steelyard.agents.actor_critic import ActorCriticAgent


@dataclass(frozen=True)
class NoIntervention:
    """Networks are left to their optimisers."""

    def build(self, spec: Spec) -> "Untouched":
        """The part; it learns nothing."""
        del spec
        return Untouched()


class Untouched(Part):
    """The part that `NoIntervention` describes."""

    def intervene(self, agent: "ActorCriticAgent", update_count: int) -> None:
        """Change the agent after its update number `update_count`, outside the compiled graph."""


Plasticity = NoIntervention
