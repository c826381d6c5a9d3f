"""Baird's counterexample: which methods of linear prediction diverge, hang, or converge."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments import linear_prediction as methods
from experiments.claim import Claim, Outcome, Workshop, less
from experiments.linear_prediction import Method, learn
from experiments.over_seeds import mean, show
from experiments.panels import COLOURS, line, panels, save, style
from experiments.prediction_problems import baird, experience

Array = NDArray[np.floating]
SETTING = (5, 20_000)
"""Least seeds and steps at which the claims are judged."""
CEILING = 1e12
"""What diverged counts as, so that it can be drawn and averaged."""
SOURCE = "Patterson, Liao and White 2023 (robust losses); prototype of this experiment for the numbers"


@dataclass(frozen=True)
class Case:
    """A method, its step size, and what is expected of it."""

    method: Method
    """What is run."""
    step_size: float
    """Published where there is one (Ghiassian et al. 2020), else that of TD."""
    sentence: str
    """What the source says."""
    above: float
    """Least final error that agrees with the sentence, as a share of the error at the start."""
    below: float
    """Largest one."""
    prototype: tuple[float, float]
    """Where the prototype's final error lay."""


@dataclass(frozen=True)
class Baird:
    """Baird's counterexample: semi-gradient TD diverges, clipping its error makes it hang, gradient corrections converge."""

    seeds: tuple[int, ...] = tuple(range(20))
    """Seeds of the behaviour."""
    steps: int = SETTING[1]
    """Transitions."""
    discount: float = 0.99
    """Discount per step."""
    threshold: float = 1.0
    """What the robust methods bound h by, and clipped ones the error."""
    step_size: float = 2**-8
    """Step size of all but TDRC."""
    tdrc_step_size: float = 2**-6
    """Step size of TDRC, with and without clips."""
    start: float = 10.0
    """First weight of the last state's own feature; all others start at 1."""

    def obstacle(self) -> str | None:
        """It runs anywhere."""
        return None

    def scaled(self) -> str:
        """What is too little to judge a claim by."""
        return ", ".join(less(SETTING, {"seeds": len(self.seeds), "steps": self.steps}))

    def cases(self) -> dict[str, Case]:
        """Every method by its name."""
        t, alpha, regularised, small = self.threshold, self.step_size, self.tdrc_step_size, 0.05
        hangs = "Clipping the sampled error keeps TD from diverging, not from a large error: it minimises no Bellman error."
        huber = "Bounding h inside the gradient correction still converges, to a larger error in the same time."
        return {
            "TD": Case(methods.TD, alpha, "Semi-gradient TD diverges.", 10, np.inf, (1e9, 1e9)),
            "TD, clipped error": Case(methods.clipped_td(t), alpha, hangs, 0.25, 10, (7, 40)),
            "TDC": Case(methods.TDC, alpha, "TDC converges.", 0, small, (0.01, 0.02)),
            "TDRC": Case(methods.TDRC, regularised, "TDRC converges.", 0, small, (0.02, 0.02)),
            "GTD2": Case(methods.GTD2, alpha, "GTD2 converges.", 0, small, (0.009, 0.009)),
            "GTD2-Huber": Case(methods.gtd2_huber(t), alpha, "GTD2-Huber converges.", 0, small, (0.009, 0.009)),
            "TDC-Huber": Case(methods.tdc_huber(t), alpha, huber, 0, small, (0.15, 0.2)),
            "TDRC, both clipped": Case(
                methods.both_clipped(t, decay=1.0),
                regularised,
                "Clipping the error as well does no harm here.",
                0,
                small,
                (2e-4, 4e-3),
            ),
            "GTD2, absolute": Case(
                methods.gtd2_huber(t, "sign"), alpha, "The absolute loss hovers with constant steps.", 0.01, 1, (0.3, 1.2)
            ),
        }

    def as_prototype(self) -> bool:
        """Whether the constants are those of the prototype."""
        return dataclasses.replace(self, seeds=Baird.seeds) == Baird()

    def measure(self, workshop: Workshop) -> Outcome:
        """Run every method on the same transitions."""
        problem, every = baird(self.discount), max(self.steps // 200, 1)
        lived = experience(problem, self.steps, self.seeds)
        start = np.append(np.ones(7), self.start)
        errors, first = {}, float(problem.projected_bellman_error(start))
        for name, case in self.cases().items():
            weights = learn(case.method, lived, problem.features, np.array([case.step_size]), start, every)[:, 0]
            errors[name] = np.minimum(problem.projected_bellman_error(weights), CEILING)
        picture = self.draw(workshop.folder / "errors.png", errors, every)
        table = [self.row(name, case, errors[name]) for name, case in self.cases().items()]
        return Outcome(self.claims(errors, first), tables={"errors": table}, pictures={"errors": picture})

    def row(self, name: str, case: Case, error: Array) -> dict[str, object]:
        """One line of the table."""
        return {
            "method": name,
            "step size": f"2^{np.log2(case.step_size):g}",
            "final error": show(mean(error[-1])),
            "prototype": between(case.prototype),
        }

    def claims(self, errors: dict[str, Array], first: float) -> list[Claim]:
        """One per method, and one about the prototype's numbers, from errors [records, seeds] and the error at the start."""
        scaled = f"Scaled down ({self.scaled()})." if self.scaled() else ""
        notes = {
            "TD": f"Errors are cut at {CEILING:.0e}.",
            "TDRC, both clipped": "Rewards here are zero and only the path is random, so the bias of clipping the sampled error cannot "
            "show; `rare-reward` shows it.",
        }
        result, apart = [], {}
        for name, case in self.cases().items():
            found = mean(errors[name][-1])
            least, most = case.above * first, case.below * first
            apart[name] = max(case.prototype[0] / found.value, found.value / case.prototype[1])
            bounds = [f"above {least:.2g}"] * (least > 0) + [f"below {most:.2g}"] * (most < np.inf)
            result.append(
                Claim(
                    sentence=case.sentence,
                    source=SOURCE,
                    expected=f"{' and '.join(bounds)}, interval included (it starts at {first:.2g})",
                    measured=f"error {show(found)} after {self.steps:,} steps",
                    seeds=len(self.seeds),
                    holds=least <= found.low <= found.high <= most and not scaled,
                    note=" ".join(filter(None, (notes.get(name), scaled))),
                )
            )
        farthest = max(apart, key=lambda name: apart[name])
        of_prototype = Claim(
            sentence="Final errors are those of the prototype.",
            source="prototype of this experiment",
            expected="each within its range, or outside it by a factor of at most 2",
            measured=f"at most a factor of {apart[farthest]:.2g} outside ({farthest})",
            seeds=len(self.seeds),
            holds=apart[farthest] <= 2 and not scaled,
            note=scaled,
        )
        return [*result, of_prototype] if self.as_prototype() else result

    def draw(self, path: Path, errors: dict[str, Array], every: int) -> Path:
        """Errors over time."""
        figure, (ax,) = panels(1, width=7.6, height=4.2)
        steps = every * np.arange(1, len(errors["TD"]) + 1)
        for i, (name, error) in enumerate(errors.items()):
            colour = COLOURS[i % len(COLOURS)]
            line(ax, steps, np.maximum(error, 1e-6), name, colour, "-" if i < len(COLOURS) else "--")
        ax.set_yscale("log")
        ax.set_ylim(1e-3, 1e5)
        style(ax, "Baird's counterexample", "transitions", "root mean squared projected Bellman error")
        return save(figure, path, "Line: mean over seeds. Band: 95 % bootstrap interval over seeds. TD leaves the picture.", [ax])


def between(ends: tuple[float, float]) -> str:
    """A range in words."""
    return f"{ends[0]:g}" if ends[0] == ends[1] else f"{ends[0]:g} to {ends[1]:g}"
