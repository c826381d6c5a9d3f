"""Slot `plasticity`: interventions that keep networks trainable, as far as they restart something. `regularizers.py` has those that pull weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from steelyard.agents.errors import SlotError
from steelyard.agents.optimizer import AdamState
from steelyard.agents.parts.fresh import followers, networks_of, project, twin, weights
from steelyard.agents.parts.part import Part
from steelyard.agents.types import Spec

if TYPE_CHECKING:
    from steelyard.agents.value_learner import ValueLearningAgent


@dataclass(frozen=True)
class NoIntervention:
    """Networks are left to their optimisers."""

    def build(self, spec: Spec) -> "Untouched":
        """The part; it learns nothing."""
        del spec
        return Untouched()


class Untouched(Part):
    """The part that `NoIntervention` describes."""


class Periodic(Part):
    """An intervention after each `period` updates. Where several updates are one launch it comes after the launch."""

    def __init__(self, period: int):
        super().__init__()
        self.period, self.done = period, 0

    def passed(self, update_count: int) -> bool:
        """Whether a further multiple of the period was reached since the last call that said so."""
        reached = update_count // self.period
        passed, self.done = reached > self.done, max(reached, self.done)
        return passed

    def get_extra_state(self) -> Tensor:
        """How many periods are over."""
        return torch.tensor(self.done)

    def set_extra_state(self, state: Tensor) -> None:
        """The inverse of `get_extra_state`."""
        self.done = int(state)


def require(name: str, **values: int | float) -> None:
    """Raises `SlotError` unless every value is positive."""
    for field, value in values.items():
        if not value > 0:
            raise SlotError(f"{field} of {name} is {value}; give a positive number.")


@dataclass(frozen=True)
class Reset:
    """Begin anew with fresh networks and optimisers every so many updates, and keep replay (Nikishin et al. 2022, arXiv 2205.07802).

    Actor, critic, temperature, learned parts and all targets are made anew, with the state of every optimiser: learning-rate schedules begin
    again too. Statistics of normalisers, exploration schedules and random streams go on.
    """

    period: int = 200_000
    """Updates between resets: not steps, so that a higher ratio resets more often (D'Oro et al. 2023). Published: 200,000 for SAC, 2,560,000 in
    SR-SAC."""
    times: int | None = None
    """Number of resets in all; None for no limit."""
    spared: float = 0.0
    """Share of the run's updates, of both phases where there are two, at its end, in which nothing is reset any more."""
    keep: tuple[str, ...] = ()
    """What survives with its optimiser's moments: every parameter with one of these words in its dotted name, such as `encoder` or
    `convolutions` to reset heads alone, or `actor`, `temperature`. A loss of which something survives keeps its count of steps."""

    def __post_init__(self) -> None:
        require("Reset", period=self.period, times=1 if self.times is None else self.times)
        if not 0 <= self.spared < 1:
            raise SlotError(f"spared of Reset is {self.spared}; give a share of the run below one.")

    def build(self, spec: Spec) -> "Resetting":
        """The part; it learns nothing."""
        del spec
        return Resetting(self)


class Resetting(Periodic):
    """The part that `Reset` describes."""

    def __init__(self, config: Reset):
        super().__init__(config.period)
        self.config = config

    def kept(self, name: str) -> bool:
        """Whether the parameter of this name survives."""
        return any(word in name.split(".") for word in self.config.keep)

    def begin(self, agent: "ValueLearningAgent") -> None:
        """Raises `SlotError` if something that is to be kept does not exist."""
        words = {word for name, _ in agent.named_parameters() for word in name.split(".") if not name.startswith("optimizers.")}
        for word in self.config.keep:
            if word not in words:
                raise SlotError(
                    f"keep of Reset names {word!r}, and no parameter of this agent has that in its name; leave it out."
                )

    def intervene(self, agent: "ValueLearningAgent", update_count: int) -> None:
        """Reset if it is time for it."""
        before = self.done
        if not self.passed(update_count):
            return
        times = self.config.times
        late = update_count > (1 - self.config.spared) * agent.setting.all_updates and self.config.spared > 0
        if late or (times is not None and before >= times):
            return
        reset(agent, twin(agent, self.done), self.kept)


def reset(agent: "ValueLearningAgent", fresh: Any, kept: Callable[[str], bool]) -> None:
    """Give every trained child and every target the twin's weights, in place, and their optimisers a fresh state, but for what is kept."""
    spared: set[str] = set()
    for weight in weights(agent, fresh, (*agent.trained, *agent.slow)):
        if kept(weight.name):
            spared.add(weight.name.partition(".")[0])
            continue
        weight.value.copy_(weight.fresh)
        for moment in weight.moments:
            moment.zero_()
    for name in agent.trained:
        if name not in spared:
            cast(AdamState, agent.optimizers[name]).steps.zero_()


@dataclass(frozen=True)
class ShrinkAndPerturb:
    """Move networks part of the way to fresh weights: theta <- a theta + (1 - a) theta_fresh (Ash & Adams 2020, arXiv 1910.08475)."""

    share: float = 0.8
    """a: what is kept of the weights; 0.5 to 0.8 at intervals, 0.999999 at every update."""
    period: int = 40_000
    """Updates between perturbations."""
    redraw: int = 1
    """Perturbations that use the same fresh weights before others are drawn, which takes as long as building the agent: give 1,000 with a period
    of one."""
    networks: tuple[str, ...] = ()
    """Which of the agent's own networks, with their targets; none for all."""

    def __post_init__(self) -> None:
        require("ShrinkAndPerturb", period=self.period, redraw=self.redraw)
        if not 0 <= self.share < 1:
            raise SlotError(f"share of ShrinkAndPerturb is {self.share}; give a number from 0 to below 1.")

    def build(self, spec: Spec) -> "Perturbing":
        """The part; it learns nothing."""
        del spec
        return Perturbing(self)


class Perturbing(Periodic):
    """The part that `ShrinkAndPerturb` describes. Moments of optimisers stay."""

    def __init__(self, config: ShrinkAndPerturb):
        super().__init__(config.period)
        self.config = config
        self.drawn: tuple[int, Any] | None = None

    def begin(self, agent: "ValueLearningAgent") -> None:
        """Raises `SlotError` for a network that does not exist."""
        self.names = networks_of(agent, self.config.networks, "ShrinkAndPerturb")

    def intervene(self, agent: "ValueLearningAgent", update_count: int) -> None:
        """Perturb if it is time for it, for all periods that passed since the last call."""
        before = self.done
        if not self.passed(update_count):
            return
        number = 1 + (self.done - 1) // self.config.redraw
        if self.drawn is None or self.drawn[0] != number:
            self.drawn = number, twin(agent, number)  # made again from its number where a run is resumed
        share = self.config.share ** (self.done - before)
        names = (*self.names, *followers(agent, self.names))
        for weight in weights(agent, self.drawn[1], names):
            weight.value.mul_(share).add_(weight.fresh, alpha=1 - share)
        project(agent, names)
