"""Several interventions at once."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from steelyard.agents.errors import SlotError
from steelyard.agents.parts.injection import PlasticityInjection
from steelyard.agents.parts.part import Part
from steelyard.agents.parts.plasticity import NoIntervention, Reset, ShrinkAndPerturb
from steelyard.agents.parts.redo import ReDo
from steelyard.agents.parts.regularizers import L2Init, SpectralRegularization
from steelyard.agents.types import Batch, Spec

if TYPE_CHECKING:
    from steelyard.agents.value_learner import ValueLearningAgent

Intervention = NoIntervention | Reset | ReDo | ShrinkAndPerturb | PlasticityInjection | L2Init | SpectralRegularization


@dataclass(frozen=True)
class Combined:
    """Several interventions: `agent.plasticity:combined agent.plasticity.first:re-do agent.plasticity.second:l2-init`.

    What falls on the same update happens in the order given, but for ReDo, which always comes first, and PlasticityInjection, which comes next.
    """

    first: Intervention = field(default_factory=NoIntervention)
    """One intervention."""
    second: Intervention = field(default_factory=NoIntervention)
    """Another one."""
    third: Intervention = field(default_factory=NoIntervention)
    """A third one."""
    fourth: Intervention = field(default_factory=NoIntervention)
    """A fourth one."""

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """Those that are given."""
        every = (self.first, self.second, self.third, self.fourth)
        return tuple(intervention for intervention in every if intervention != NoIntervention())

    def __post_init__(self) -> None:
        kinds = [type(intervention) for intervention in self.interventions]
        if not kinds:
            raise SlotError("Combined has no interventions; give it some as first and second, or leave it out.")
        if PlasticityInjection in kinds and (Reset in kinds or ShrinkAndPerturb in kinds):
            raise SlotError("what PlasticityInjection freezes would be lost in a reset or a perturbation; leave one of them out.")

    def build(self, spec: Spec) -> "CombinedInterventions":
        """The part; it learns nothing."""
        # Units are recycled before anything makes them anew, since they were found dormant before; and networks are put beside
        # others before parts take their weights down.
        order: dict[type, int] = {ReDo: 0, PlasticityInjection: 1}
        ordered = sorted(self.interventions, key=lambda intervention: order.get(type(intervention), 2))
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
