"""Fresh weights for an agent: what resets, recycling and perturbations take them from."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from torch import Tensor, nn

from steelyard.agents.errors import SlotError
from steelyard.agents.networks.hidden import descendants
from steelyard.agents.networks.matrices import matrices
from steelyard.agents.optimizer import AdamState

if TYPE_CHECKING:
    from steelyard.agents.value_learner import ValueLearningAgent

SEEDS = 10_000_000
"""Distance between the seeds of one set of fresh weights and the next; the first is that much above the run's own seed."""


def twin(agent: "ValueLearningAgent", count: int) -> Any:
    """A complete fresh agent, the `count`-th of this run: it depends on the run's seed and on the count alone, so that resuming is exact."""
    return agent.twin(agent.setting.seed + SEEDS * count)


class Weight(NamedTuple):
    """One parameter of an agent and what belongs to it."""

    name: str
    """Its dotted name in the agent."""
    value: Tensor
    """The parameter, to be written in place."""
    fresh: Tensor
    """The twin's."""
    moments: tuple[Tensor, ...]
    """Adam's moments of it; nothing for targets and frozen copies."""


def weights(agent: "ValueLearningAgent", fresh: Any, names: Iterable[str]) -> Iterator[Weight]:
    """Every parameter of the named children, beside the twin's."""
    for name in names:
        moments = moments_of(agent, name) if name in agent.trained else {}
        others = dict(fresh.get_submodule(name).named_parameters())
        for key, parameter in agent.get_submodule(name).named_parameters():
            yield Weight(f"{name}.{key}", parameter, others[key], moments.get(parameter, ()))


def moments_of(agent: "ValueLearningAgent", name: str) -> dict[Tensor, tuple[Tensor, Tensor]]:
    """Adam's moments by the parameters of the child `name`."""
    state = cast(AdamState, agent.optimizers[name])
    own = (parameter for parameter in agent.get_submodule(name).parameters() if parameter.requires_grad)
    return {parameter: (mean, square) for parameter, mean, square in zip(own, state.means, state.squares, strict=True)}


def followers(agent: "ValueLearningAgent", names: Iterable[str]) -> list[str]:
    """The target networks of the named children."""
    wanted = set(names)
    return [slow for slow, fast in agent.slow.items() if fast in wanted]


def networks_of(agent: "ValueLearningAgent", names: tuple[str, ...], intervention: str) -> tuple[str, ...]:
    """The agent's own children that have matrices: those named, or all of them if none is.

    Raises `SlotError` for a name that is none of them.
    """
    found = tuple(name for name in agent.losses if matrices(agent.get_submodule(name)))
    unknown = [name for name in names if name not in found]
    if unknown:
        raise SlotError(
            f"networks of {intervention} names {unknown[0]!r}, and this agent has {', '.join(found)}; name some of these, or none for all."
        )
    return names or found


def project(agent: "ValueLearningAgent", names: Iterable[str]) -> None:
    """Put weights back where their networks keep them (SimbaV2's sphere)."""
    for name in names:
        for _, module in descendants(agent.get_submodule(name)):
            if hasattr(module, "project"):
                cast(Any, module).project()


def projected(module: nn.Module) -> bool:
    """Whether the module keeps its weights on a sphere."""
    return any(hasattr(child, "project") for _, child in descendants(module))
