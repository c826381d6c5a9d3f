"""What an experiment sets out to show, and how a published number and a few new seeds are compared."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from scipy import stats

from steelyard.trainers.config import Run
from steelyard.trainers.curves import Curves
from steelyard.trainers.statistics import Interval, summarise


@dataclass(frozen=True)
class Claim:
    """One sentence of a source beside what was measured."""

    sentence: str
    """What the source says."""
    source: str
    """Where it says so."""
    expected: str
    """The number that it gives, and the rule by which ours is judged."""
    measured: str
    """Ours, with its 95 % interval over seeds."""
    seeds: int
    """Number of training seeds that were measured."""
    holds: bool
    """Whether ours meets the rule, at the source's settings."""
    note: str = ""
    """What a reader must know besides, such as that the experiment was scaled down."""


def less(least: Iterable[float], given: Mapping[str, float]) -> list[str]:
    """What is given less of than a claim demands, in words, such as `3 instead of 5 seeds or more`."""
    return [
        f"{own:,} instead of {need:,} {name} or more"
        for need, (name, own) in zip(least, given.items(), strict=True)
        if own < need
    ]


class Experiment(Protocol):
    """One published effect; its fields are its command-line options."""

    def obstacle(self) -> str | None:
        """One sentence that says why the experiment cannot run on this machine, and what to do; None if it can."""
        ...

    def scaled(self) -> str:
        """What these options make smaller than the claims demand, in words; empty if nothing. Then no claim holds."""
        ...

    def measure(self, workshop: "Workshop") -> "Outcome":
        """Train what it needs and judge the claims by it."""
        ...


class Workshop(Protocol):
    """Where an experiment trains."""

    folder: Path
    """For data that later launches reuse."""

    def train(self, runs: Sequence[Run]) -> Curves:
        """Train the runs that are not finished and return the evaluation curves of all."""
        ...

    def run_folder(self, run: Run) -> Path:
        """Where a run's results lie."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What an experiment found."""

    claims: list[Claim]
    """What was claimed and what was measured."""
    curves: Curves = field(default_factory=dict)
    """Learning curves to draw, if there are any."""
    tables: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    """Further numbers by the name of their CSV file."""
    pictures: dict[str, Path] = field(default_factory=dict)
    """Further figures: where they lie, by the name that they get."""


def final_scores(curves: Curves, task: str, label: str) -> dict[int, float]:
    """{seed: score of the last evaluation}: the final one, not the best."""
    return {seed: float(curve.values[-1]) for seed, curve in curves[task][label].items()}


def interval(scores: dict[int, float], task: str) -> Interval:
    """Mean over seeds with its 95 % interval."""
    return summarise({task: scores}).mean


@dataclass(frozen=True)
class Published:
    """A published mean over seeds."""

    mean: float
    """Mean over the source's seeds."""
    deviation: float
    """Their sample standard deviation."""
    seeds: int
    """Their number."""

    def lowest(self, seeds: int) -> float:
        """The mean that `seeds` more seeds of the source's would have stayed above, with 97.5 % confidence.

        The lower end of the 95 % prediction interval for the mean of n further normal values, given m:
        mean - t s sqrt(1/n + 1/m).
        """
        t = float(stats.t.ppf(0.975, self.seeds - 1))
        return self.mean - t * self.deviation * math.sqrt(1 / seeds + 1 / self.seeds)
