"""How sensitive methods of linear prediction are to their step size."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.ticker import StrMethodFormatter
from numpy.typing import NDArray

from experiments import linear_prediction as methods
from experiments.claim import Claim, Outcome, Workshop, less
from experiments.linear_prediction import Method, learn
from experiments.over_seeds import mean, show
from experiments.panels import COLOURS, line, panels, save, style
from experiments.prediction_problems import Prediction, boyan_chain, experience, random_walk

Array = NDArray[np.floating]
SETTING = (10, 3_000)
"""Least seeds and steps at which the claims are judged."""
RECORDS = 300
"""Times that the error is looked at."""
SOURCE = "Patterson, Liao and White 2023, abstract: robust losses are less sensitive to meta-parameters"


@dataclass(frozen=True)
class StepSizes:
    """Sensitivity to the step size: whether the error's curve over step sizes is flatter for the mean Huber Bellman error."""

    seeds: tuple[int, ...] = tuple(range(30))
    """Seeds of the chains."""
    steps: int = SETTING[1]
    """Transitions."""
    exponents: tuple[int, ...] = tuple(range(-8, 1))
    """Step sizes, as powers of two."""
    thresholds: tuple[float, ...] = (4.0, 1.0, 0.25, 0.0625)
    """Thresholds of the Huber function, in units of the reward; the claims are about the second."""

    def obstacle(self) -> str | None:
        """It runs anywhere."""
        return None

    def scaled(self) -> str:
        """What is too little to judge a claim by."""
        return ", ".join(less(SETTING, {"seeds": len(self.seeds), "steps": self.steps}))

    def methods(self) -> dict[str, Method]:
        """What is compared."""
        robust = {huber(threshold): methods.gtd2_huber(threshold) for threshold in self.thresholds}
        return {"TD": methods.TD, "TDRC": methods.TDRC, "GTD2": methods.GTD2, **robust}

    def measure(self, workshop: Workshop) -> Outcome:
        """Sweep every method on both chains."""
        problems = {"Boyan's chain": boyan_chain(), "random walk, dependent features": random_walk()}
        areas = {
            name: {method: self.area(problem, kind) for method, kind in self.methods().items()}
            for name, problem in problems.items()
        }
        table = [row for problem, found in areas.items() for row in self.rows(problem, found)]
        curves = [row for problem, found in areas.items() for row in self.points(problem, found)]
        picture = self.draw(workshop.folder / "curves.png", areas)
        claims = [self.claim(problem, found) for problem, found in areas.items()]
        return Outcome(claims, tables={"flatness": table, "areas": curves}, pictures={"curves": picture})

    def area(self, problem: Prediction, method: Method) -> Array:
        """[step sizes, seeds] mean error over time, each at most that of zero weights."""
        lived, start = experience(problem, self.steps, self.seeds), np.zeros(problem.features.shape[1])
        every = max(self.steps // RECORDS, 1)
        weights = learn(method, lived, problem.features, 2.0 ** np.array(self.exponents), start, every)
        return np.minimum(problem.projected_bellman_error(weights), problem.projected_bellman_error(start)).mean(0)

    def rows(self, problem: str, areas: dict[str, Array]) -> list[dict[str, object]]:
        """Flatness of every method, by itself and measured from the best method."""
        best = {method: int(area.mean(1).argmin()) for method, area in areas.items()}
        least = np.min([area.min(0) for area in areas.values()], 0)
        return [
            {
                "problem": problem,
                "method": method,
                "flatness (0 is flat)": show(mean(flatness(area))),
                "the same above the best method": show(mean(np.log2(area / least).mean(0))),
                "area at the best step size": show(mean(area[best[method]])),
                "best step size": f"2^{self.exponents[best[method]]}",
            }
            for method, area in areas.items()
        ]

    def points(self, problem: str, areas: dict[str, Array]) -> list[dict[str, object]]:
        """The curves as numbers."""
        return [
            {"problem": problem, "step size": f"2^{exponent}", **{m: f"{area[i].mean():.3g}" for m, area in areas.items()}}
            for i, exponent in enumerate(self.exponents)
        ]

    def claim(self, problem: str, areas: dict[str, Array]) -> Claim:
        """Flatter than TD and TDRC, the intervals apart."""
        threshold = self.thresholds[min(1, len(self.thresholds) - 1)]
        found = {name: mean(flatness(area)) for name, area in areas.items()}
        robust, others = found[huber(threshold)], [found["TD"], found["TDRC"]]
        same = np.allclose(areas[huber(threshold)][:-1], areas["GTD2"][:-1], rtol=0.02)
        notes = [
            "Bounding by less than the errors slows learning and moves the curve towards larger steps; the flattest curve is that of a "
            "threshold so small that hardly anything is learned.",
            "Errors here hardly ever reach the threshold, so the method is GTD2.",
        ]
        return Claim(
            sentence=f"The curve over step sizes is flatter with the mean Huber projected Bellman error: {problem}.",
            source=SOURCE,
            expected=f"flatness of GTD2-Huber with threshold {threshold:g} below those of TD and TDRC, 95 % intervals apart",
            measured=", ".join(f"{name} {show(found[name])}" for name in ("TD", "TDRC", "GTD2", huber(threshold))),
            seeds=len(self.seeds),
            holds=all(robust.high < other.low for other in others) and not self.scaled(),
            note=notes[same] + f" Scaled down ({self.scaled()})." * bool(self.scaled()),
        )

    def draw(self, path: Path, areas: dict[str, dict[str, Array]]) -> Path:
        """Areas over step sizes."""
        figure, axes = panels(len(areas), width=5.2, height=3.8)
        for ax, (problem, found) in zip(axes, areas.items(), strict=True):
            for (name, area), colour in zip(found.items(), COLOURS, strict=False):
                # GTD2 is what its robust form is where nothing is bounded: dotted, on top of it.
                line(ax, self.exponents, area, name, colour, ":" if name == "GTD2" else "-")
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            ax.yaxis.set_minor_formatter(StrMethodFormatter("{x:.2g}"))
            ax.set_xticks(self.exponents, [f"$2^{{{exponent}}}$" for exponent in self.exponents])
            style(ax, problem, "step size", "mean error over time")
        caption = (
            f"Root mean squared projected Bellman error, mean over {self.steps:,} transitions. Line: mean over seeds. Band: 95 % bootstrap "
            "interval over seeds."
        )
        return save(figure, path, caption, axes)


def huber(threshold: float) -> str:
    """Name of the robust method."""
    return f"GTD2-Huber {threshold:g}"


def flatness(area: Array) -> Array:
    """[seeds] how far above its best a method is on average: mean over step sizes of log2(area / smallest area) [step sizes, seeds]."""
    return np.log2(area / area.min(0)).mean(0)
