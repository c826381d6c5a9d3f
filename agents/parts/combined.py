"""Several interventions at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from steelyard.agents.errors import SlotError
from steelyard.agents.parts.injection import PlasticityInjection
from steelyard.agents.parts.part import Part
from steelyard.agents.parts.plasticity import Reset, ShrinkAndPerturb
from steelyard.agents.parts.redo import ReDo
from steelyard.agents.parts.regularizers import L2Init, SpectralRegularization
from steelyard.agents.types import Batch, Spec

if TYPE_CHECKING:
    from steelyard.agents.value_learner import ValueLearningAgent

Intervention = Reset | ShrinkAndPerturb | ReDo | PlasticityInjection | L2Init | SpectralRegularization


@dataclass(frozen=True)
class Combined:
    """Several interventions, in the order given; for presets and Python, not for the command line."""

    interventions: tuple[Intervention, ...] = ()
    """At least one."""

    def __post_init__(self) -> None:
        kinds = [type(intervention) for intervention in self.interventions]
        if PlasticityInjection in kinds and (Reset in kinds or ShrinkAndPerturb in kinds):
            raise SlotError("what PlasticityInjection freezes would be lost in a reset or a perturbation; leave one of them out.")

    def build(self, spec: Spec) -> "CombinedInterventions":
        """The part; it learns nothing."""
        # What changes networks begins before what looks at them.
        ordered = sorted(self.interventions, key=lambda intervention: not isinstance(intervention, PlasticityInjection))
        return CombinedInterventions([intervention.build(spec) for intervention in ordered])


class CombinedInterventions(Part):
    """The part that `Combined` describes."""

    def __init__(self, parts: list[Part]):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def each(self) -> Iterator[Part]:
        """The interventions."""
        return (cast(Part, part) for part in self.parts)

    def begin(self, agent: "ValueLearningAgent") -> None:
        """Each in turn."""
        for part in self.each():
            part.begin(agent)

    def refresh(self, agent: "ValueLearningAgent") -> None:
        """Each in turn."""
        for part in self.each():
            part.refresh(agent)

    def watches(self, update: int) -> bool:
        """Whether one of them asks."""
        return any(part.watches(update) for part in self.each())

    def watch(self, agent: "ValueLearningAgent", batch: Batch, noise: Tensor) -> None:
        """Show it to those that ask."""
        for part in self.each():
            if part.watches(agent.update_count + 1):
                part.watch(agent, batch, noise)

    def intervene(self, agent: "ValueLearningAgent", update_count: int) -> None:
        """Each in turn."""
        for part in self.each():
            part.intervene(agent, update_count)

    def regularizer(self, agent: "ValueLearningAgent", name: str) -> Tensor | None:
        """The sum of theirs."""
        terms = [term for part in self.each() if (term := part.regularizer(agent, name)) is not None]
        return sum(terms[1:], terms[0]) if terms else None
