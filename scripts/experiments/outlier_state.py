"""One state whose Bellman error cannot be small: what squared, Huber and absolute losses make of it, exactly."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from experiments.claim import Claim, Outcome, Workshop
from experiments.panels import COLOURS, panels, save, style
from experiments.robust_regression import huber, least_absolute, least_squares

Array = NDArray[np.floating]
PROTOTYPE: dict[tuple[str, float], tuple[float, float, float | None]] = {
    ("squared", 5): (6.8, 0.69, 2.3),
    ("squared", 50): (68, 6.9, 23),
    ("squared", 500): (679, 69, 231),
    ("Huber 1", 5): (1.57, 0.158, 5.9),
    ("Huber 1", 50): (1.57, 0.158, 72),
    ("Huber 1", 500): (1.57, 0.158, 734),
    ("Huber 0.1", 5): (0.155, 0.02, None),
    ("Huber 0.1", 50): (0.155, 0.02, None),
    ("Huber 0.1", 500): (0.155, 0.02, None),
}
"""A prototype's distance to the value without the outlier, largest error elsewhere, and error to the true value."""
TOLERANCE = 0.25
"""Share by which ours may differ: the prototype does not say how the walk ends."""
SOURCE = "Patterson, Liao and White 2023: squared errors skew the solution; prototype of this experiment for the numbers"


@dataclass(frozen=True)
class Line:
    """One loss with one outlier."""

    loss: str
    """Name of the loss."""
    outlier: float
    """How bad the outlier is, X."""
    predicted: Array
    """[states] value that minimises the loss."""
    without: float
    """Root mean squared distance to the value that the states would have without the outlier, which is zero."""
    elsewhere: float
    """Largest Bellman error in the other states."""
    true: float
    """Root mean squared error to the true value."""


@dataclass(frozen=True)
class OutlierState:
    """A state with a large irreducible Bellman error: bounded losses ignore it, the squared loss bends to it."""

    states: int = 20
    """States of a walk that goes to either neighbour, and stays where it cannot."""
    discount: float = 0.95
    """Discount per step."""
    degree: int = 4
    """Degree of the polynomial that predicts the value."""
    outliers: tuple[float, ...] = (5.0, 50.0, 500.0)
    """Punishments X in the middle state; all other rewards are zero."""
    thresholds: tuple[float, ...] = (1.0, 0.1)
    """Where the Huber function becomes linear."""

    def obstacle(self) -> str | None:
        """It runs anywhere."""
        return None

    def scaled(self) -> str:
        """Nothing is: the solutions are exact."""
        return ""

    def problem(self, outlier: float) -> tuple[Array, Array, Array, Array]:
        """(features [states, d], Bellman differences [states, d], reward [states], true value [states]).

        The Bellman error of weights w is reward - differences w.
        """
        places = np.arange(self.states)
        moves = np.zeros((self.states, self.states))
        for step in (-1, 1):
            np.add.at(moves, (places, np.clip(places + step, 0, self.states - 1)), 0.5)
        # Legendre polynomials span the same functions as powers and are far better conditioned.
        features = np.polynomial.legendre.legvander(np.linspace(-1, 1, self.states), self.degree)
        reward = np.zeros(self.states)
        reward[self.states // 2] = -outlier
        system = np.eye(self.states) - self.discount * moves
        return features, system @ features, reward, np.linalg.solve(system, reward)

    def solve(self, loss: str, outlier: float) -> Line:
        """Minimise one loss."""
        features, differences, reward, value = self.problem(outlier)
        kind, *threshold = loss.split()
        if kind == "Huber":
            weights = huber(differences, reward, float(threshold[0]))
        else:
            weights = least_squares(differences, reward) if kind == "squared" else least_absolute(differences, reward)
        predicted, error = features @ weights, np.abs(reward - differences @ weights)
        others = np.arange(self.states) != self.states // 2
        return Line(loss, outlier, predicted, root_mean(predicted), float(error[others].max()), root_mean(predicted - value))

    def losses(self) -> list[str]:
        """Names of the losses."""
        return ["squared", *(f"Huber {threshold:g}" for threshold in self.thresholds), "absolute"]

    def measure(self, workshop: Workshop) -> Outcome:
        """Solve all and compare."""
        lines = [self.solve(loss, outlier) for loss in self.losses() for outlier in self.outliers]
        table: list[dict[str, object]] = [
            {
                "loss": line.loss,
                "outlier": f"{line.outlier:g}",
                "distance to the value without outlier": show(line.without),
                "largest error elsewhere": show(line.elsewhere),
                "error to the true value": show(line.true),
                "prototype": prototype(line),
            }
            for line in lines
        ]
        picture = self.draw(workshop.folder / "values.png", lines)
        return Outcome(self.claims(lines), tables={"solutions": table}, pictures={"values": picture})

    def claims(self, lines: list[Line]) -> list[Claim]:
        """Bounded influence, its price, and the prototype's numbers."""
        by_loss = {loss: [line for line in lines if line.loss == loss] for loss in self.losses()}
        squared, robust = by_loss["squared"], [line for loss, of_loss in by_loss.items() if loss != "squared" for line in of_loss]
        grows = [line.without / line.outlier for line in squared]
        bounded = {loss: [line.without for line in of_loss] for loss, of_loss in by_loss.items() if loss != "squared"}
        steady = all(max(found) - min(found) < 1e-3 * max(max(found), 1e-3) for found in bounded.values())
        exact = {(line.loss, line.outlier): line for line in lines}
        prices = [line.true / exact["squared", line.outlier].true for line in robust]
        pairs = [(exact[key], row) for key, row in PROTOTYPE.items() if key in exact]
        apart = [abs(line.without / row[0] - 1) for line, row in pairs] + [
            abs(line.true / row[2] - 1) for line, row in pairs if row[2]
        ]
        claims = [
            Claim(
                sentence="One outlier skews the solution of the squared loss in proportion to its size; robust losses bound its influence.",
                source=SOURCE,
                expected="distance to the value without outlier: squared in proportion to X, Huber and absolute the same for every X",
                measured=f"squared {', '.join(show(line.without) for line in squared)}; "
                + "; ".join(f"{loss} {', '.join(map(show, found))}" for loss, found in bounded.items()),
                seeds=0,
                holds=steady and max(grows) - min(grows) < 1e-6,
                note="Exact, nothing is random.",
            ),
            Claim(
                sentence="The price is that the outlier is ignored: the true value, which contains it, is predicted worse.",
                source=SOURCE,
                expected="error to the true value more than twice that of the squared loss, for every robust loss and outlier",
                measured=f"between {min(prices):.2g} and {max(prices):.2g} times that of the squared loss",
                seeds=0,
                holds=min(prices) > 2,
                note="Exact. If the outlier matters, as a cliff does in control, ignoring it is no virtue.",
            ),
        ]
        of_prototype = Claim(
            sentence="Distances to the value without outlier and errors to the true value are those of the prototype.",
            source="prototype of this experiment",
            expected=f"each within {TOLERANCE:.0%}",
            measured=f"at most {max(apart, default=0):.0%} apart",
            seeds=0,
            holds=max(apart, default=0) <= TOLERANCE,
            note="How the prototype's walk ends is not known; ours stays where it cannot go on. Its absolute loss left 0.015, what "
            "reweighted least squares leaves; ours is a linear program.",
        )
        return [*claims, of_prototype] if self.as_prototype() else claims

    def as_prototype(self) -> bool:
        """Whether all but outliers and thresholds are those of the prototype."""
        return dataclasses.replace(self, outliers=OutlierState.outliers, thresholds=OutlierState.thresholds) == OutlierState()

    def draw(self, path: Path, lines: list[Line]) -> Path:
        """Predicted values for the smallest outlier, and how they move with its size."""
        figure, (left, middle, right) = panels(3, width=3.9)
        smallest = min(self.outliers)
        left.plot(self.problem(smallest)[3], color="#555555", linestyle="--", linewidth=1.2, label="true value")
        for loss, colour in zip(self.losses(), COLOURS, strict=False):
            own = [line for line in lines if line.loss == loss]
            values = next(line.predicted for line in own if line.outlier == smallest)
            left.plot(values, color=colour, linewidth=1.8, label=loss)
            outliers = [line.outlier for line in own]
            without = [max(line.without, 1e-3) for line in own]
            middle.plot(outliers, without, color=colour, linewidth=1.8, marker="o", markersize=4)
            right.plot(outliers, [line.true for line in own], color=colour, linewidth=1.8, marker="o", markersize=4)
        for ax in (middle, right):
            ax.set_xscale("log")
            ax.set_yscale("log")
        left.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        style(left, f"outlier of {smallest:g}", "state", "predicted value")
        style(middle, "influence of the outlier", "outlier X", "distance to the value without it")
        style(right, "its price", "outlier X", "error to the true value")
        caption = "Exact solutions. Distances below 0.001 are drawn there. On the right the robust losses lie on each other."
        return save(figure, path, caption, [left])


def root_mean(values: Array) -> float:
    """Root of the mean square."""
    return float(np.sqrt((values**2).mean()))


def show(number: float) -> str:
    """Three digits; what only rounding left is zero."""
    return f"{number:.3g}" if number > 1e-6 else "0"


def prototype(line: Line) -> str:
    """The prototype's three numbers, where it has them."""
    found = PROTOTYPE.get((line.loss, line.outlier), ())
    return ", ".join("-" if number is None else f"{number:g}" for number in found)
