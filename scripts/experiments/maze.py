"""Deep Variance Weighting on a stochastic maze, with and without KL and entropy regularisation."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.claim import Claim, Outcome, Workshop, less
from experiments.maze_solver import Budget, Weighting, solve
from experiments.over_seeds import mean, ratio, show
from experiments.panels import COLOURS, line, panels, save, style
from experiments.stochastic_maze import maze

Array = NDArray[np.floating]
Variant = tuple[Weighting, bool]
Gaps = dict[Variant, Array]
SETTING = (10, 600)
"""Least seeds and iterations at which the claims are judged."""
SOURCE = "Kitamura et al. 2023 (Deep Variance Weighting), released results of the maze at M = 3"
PUBLISHED: dict[Variant, float] = {
    ("none", False): 0.889,
    ("learned", False): 0.734,
    ("oracle", False): 0.625,
    ("none", True): 0.725,
    ("learned", True): 0.275,
    ("oracle", True): 0.170,
}
"""Gap at the end, by weighting and whether KL and entropy regularise."""
NAMES: dict[Weighting, str] = {"none": "f = 1", "learned": "learned variance", "oracle": "known variance"}
POINTS = 60
"""Evaluations."""


@dataclass(frozen=True)
class StochasticMaze:
    """On a stochastic maze variance weighting and regularisation both help, and unweighted regression gets worse late."""

    seeds: tuple[int, ...] = tuple(range(10))
    """Seeds of mazes, networks and samples."""
    size: int = 9
    """Cells along a side; published: 25."""
    pits: int = 3
    """Cells that cannot be left; published: 8."""
    discount: float = 0.99
    """Discount of solver and evaluation; the released code evaluates with 0.995 what it solves with 0.99."""
    samples: int = 3
    """M: next states drawn per cell and action; published: 3 and 10."""
    iterations: int = SETTING[1]
    """Refreshes of the targets; published: 20,000."""
    gradient_steps: tuple[int, ...] = (25, 50)
    """Full-batch steps in each, all tried; published: 100. More of them fit the noise of each refresh more closely."""
    width: int = 64
    """Width of the two hidden layers; published: 128."""
    rate: float = 1e-3
    """Learning rate of Q."""
    temperature: float = 2e-3
    """KL and entropy coefficient together where they regularise; KL has the share of the discount."""

    def obstacle(self) -> str | None:
        """It runs anywhere."""
        return None

    def scaled(self) -> str:
        """What is too little to judge a claim by."""
        return ", ".join(less(SETTING, {"seeds": len(self.seeds), "iterations": self.iterations}))

    def measure(self, workshop: Workshop) -> Outcome:
        """Solve every maze in six ways."""
        mazes = [maze(self.size, self.pits, self.discount, seed) for seed in self.seeds]
        every = max(self.iterations // POINTS, 1)
        gaps: dict[int, Gaps] = {}
        table: list[dict[str, object]] = []
        for steps in self.gradient_steps:
            budget = Budget(self.iterations, steps, self.samples, self.width, self.rate, self.temperature, every)
            gaps[steps] = {}
            for weighting, regularised in PUBLISHED:
                found = solve(mazes, self.seeds, weighting, regularised, budget)
                gaps[steps][weighting, regularised] = found.gaps
                table.append(
                    {
                        "gradient steps": steps,
                        "weights": NAMES[weighting],
                        "KL and entropy": "yes" if regularised else "no",
                        "early gap": show(mean(early(found.gaps))),
                        "late gap": show(mean(late(found.gaps))),
                        "published": PUBLISHED[weighting, regularised],
                        "smallest, mean and largest weight": ", ".join(f"{number:.2f}" for number in found.weights[-1]),
                    }
                )
        picture = draw(workshop.folder / "gaps.png", gaps, every)
        return Outcome(self.claims(gaps), tables={"gaps": table}, pictures={"gaps": picture})

    def claims(self, gaps: dict[int, Gaps]) -> list[Claim]:
        """The pattern at every number of gradient steps, and what happens late at the largest."""
        result = []
        for steps, found in gaps.items():
            ends = {variant: late(each) for variant, each in found.items()}
            result += [
                self.lower(
                    f"Weights of the learned variance lower the gap {how(regularised)}",
                    steps,
                    ends,
                    ("learned", regularised),
                    ("none", regularised),
                )
                for regularised in (False, True)
            ]
            result += [
                self.lower(
                    f"KL and entropy lower the gap, {NAMES[weighting]}", steps, ends, (weighting, True), (weighting, False)
                )
                for weighting in ("none", "learned")
            ]
        most = max(gaps)
        starts, ends = ({variant: when(each) for variant, each in gaps[most].items()} for when in (early, late))
        plain, weighted = (ends[weighting, True] - starts[weighting, True] for weighting in ("none", "learned"))
        rise, kept, spared = mean(plain), mean(weighted), mean(plain - weighted)
        note = f"{most} gradient steps. Early is the second tenth of the iterations, late the last quarter."
        result += [
            self.claim(
                "Without weights the policy gets worse late in training, with KL and entropy.",
                "late gap above early gap, interval included; published 0.41 to 0.73",
                f"{show(mean(starts['none', True]))} to {show(mean(ends['none', True]))}, change {show(rise)}",
                rise.low > 0,
                note,
            ),
            self.claim(
                "Weights prevent that.",
                "smaller change with learned weights than without, interval included",
                f"change {show(kept)} with and {show(rise)} without, difference {show(spared)}",
                spared.low > 0,
                note,
            ),
        ]
        return result

    def lower(self, sentence: str, steps: int, ends: Gaps, better: Variant, worse: Variant) -> Claim:
        """One variant's late gap [seeds] below another's, by the ratio of means over the same mazes."""
        found = ratio(ends[better], ends[worse])
        return self.claim(
            f"{sentence} ({steps} gradient steps).",
            f"ratio below 1, interval included; published {PUBLISHED[better]} against {PUBLISHED[worse]}",
            f"{show(mean(ends[better]))} against {show(mean(ends[worse]))}, ratio {show(found, 2)}",
            found.high < 1,
            f"{self.size} x {self.size} cells, {self.pits} pits, {self.iterations:,} iterations, width {self.width}; published 25 x 25, 8, "
            "20,000 of 100 steps, 128.",
        )

    def claim(self, sentence: str, expected: str, measured: str, holds: bool, note: str) -> Claim:
        """A claim of this experiment."""
        scaled = f" Scaled down ({self.scaled()})." if self.scaled() else ""
        return Claim(sentence, SOURCE, expected, measured, len(self.seeds), holds and not scaled, note + scaled)


def how(regularised: bool) -> str:
    """The regularisation in words."""
    return "with KL and entropy" if regularised else "without KL and entropy"


def early(gaps: Array) -> Array:
    """[seeds] mean over the second tenth of the evaluations [evaluations, seeds]."""
    tenth = max(len(gaps) // 10, 1)
    return gaps[tenth : 2 * tenth].mean(0)


def late(gaps: Array) -> Array:
    """[seeds] mean over the last quarter: one greedy policy's worst cell jumps from refresh to refresh."""
    return gaps[-max(len(gaps) // 4, 1) :].mean(0)


def draw(path: Path, gaps: dict[int, Gaps], every: int) -> Path:
    """Gaps over iterations: a row per number of gradient steps, a column without and one with regularisation."""
    figure, axes = panels(2, len(gaps), width=5.0, height=3.1)
    kinds = [(steps, regularised) for steps in gaps for regularised in (False, True)]
    for ax, (steps, regularised) in zip(axes, kinds, strict=True):
        for (weighting, name), colour in zip(NAMES.items(), COLOURS, strict=False):
            values = gaps[steps][weighting, regularised]
            line(ax, every * np.arange(1, len(values) + 1), values, name, colour)
        ax.set_ylim(0, 1)
        style(ax, f"{steps} steps, {how(regularised)}", "iterations", "gap, share of the largest value")
    caption = "Loss of the greedy policy in its worst cell. Line: mean over mazes. Band: 95 % bootstrap interval over mazes."
    return save(figure, path, caption, axes[:1])
