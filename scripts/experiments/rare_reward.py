"""A ring of states with a rare large reward: which robust updates still predict the mean."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments import linear_prediction as methods
from experiments.claim import Claim, Outcome, Workshop, less
from experiments.linear_prediction import Method, learn, limit
from experiments.over_seeds import mean, show
from experiments.panels import COLOURS, bars, panels, save, style
from experiments.prediction_problems import experience, ring

Array = NDArray[np.floating]
SETTING = (5, 300_000)
"""Least seeds and steps at which the claims are judged."""
PROTOTYPE = {
    "TD": "2.7 %",
    "TD, clipped error": "98 %",
    "GTD2-Huber": "3.0 %",
    "TDC-Huber": "2.2 %",
    "TDC-Huber, gated": "1.4 %",
    "TDC, both clipped": "177 %",
}
"""Error of a prototype, by method."""
SOUND = ("TD", "GTD2-Huber", "TDC-Huber", "TDC-Huber, gated")
RIGHT, WRONG = 0.10, 0.50
"""Largest error of a sound method, least error of an unsound one."""
SOURCE = "Patterson, Liao and White 2023: rules that clip a sampled error minimise no known loss; prototype for the numbers"


@dataclass(frozen=True)
class RareReward:
    """A rare large reward: bounding the expected error keeps the mean, clipping the sampled error loses it."""

    seeds: tuple[int, ...] = tuple(range(10))
    """Seeds of the rewards."""
    steps: int = SETTING[1]
    """Transitions; weights are averaged over the second half."""
    states: int = 5
    """States of the ring."""
    reward: float = 50.0
    """The reward, on one of the transitions."""
    chance: float = 0.02
    """How likely it is."""
    discount: float = 0.5
    """Discount per step; the saddle-point form slows down as it comes near 1."""
    threshold: float = 1.0
    """What h, or the clipped error, is bounded by."""
    step_size: float = 0.002
    """Step size of the values."""
    speed: float = 4.0
    """Step size of h over that of the values. One reward moves h by reward x step size x speed: beyond the threshold, bounding a
    noisy h is biased as well."""

    def obstacle(self) -> str | None:
        """It runs anywhere."""
        return None

    def scaled(self) -> str:
        """What is too little to judge a claim by."""
        return ", ".join(less(SETTING, {"seeds": len(self.seeds), "steps": self.steps}))

    def methods(self) -> dict[str, Method]:
        """What is compared."""
        t = self.threshold
        found = {
            "TD": methods.TD,
            "TD, clipped error": methods.clipped_td(t),
            "GTD2-Huber": methods.gtd2_huber(t),
            "TDC-Huber": methods.tdc_huber(t),
            "TDC-Huber, gated": methods.gated_tdc_huber(t),
            "TDC, both clipped": methods.both_clipped(t),
        }
        return {name: dataclasses.replace(method, speed=self.speed) for name, method in found.items()}

    def measure(self, workshop: Workshop) -> Outcome:
        """Run every method on the same rewards, and follow its expected update to where it rests."""
        problem = ring(self.states, self.chance, self.reward, self.discount)
        lived = experience(problem, self.steps, self.seeds)
        start, every, value = np.zeros(self.states), max(self.steps // 300, 1), problem.value
        learned, limits = {}, {}
        for name, method in self.methods().items():
            weights = learn(method, lived, problem.features, np.array([self.step_size]), start, every)[:, 0]
            learned[name] = weights[len(weights) // 2 :].mean(0)
            limits[name] = limit(method, problem, start)
        errors = {name: relative(weights, value) for name, weights in learned.items()}
        table: list[dict[str, object]] = [
            {
                "method": name,
                "error": show(mean(100 * errors[name])) + " %",
                "error of its exact limit": f"{100 * relative(limits[name], value):.1f} %",
                "prototype": PROTOTYPE[name],
                "value of the rewarded state": show(mean(learned[name][:, 0])),
                "its exact limit": f"{limits[name][0]:.3f}",
                "truth": f"{value[0]:.3f}",
            }
            for name in errors
        ]
        picture = draw(workshop.folder / "errors.png", errors)
        return Outcome(self.claims(errors), tables={"errors": table}, pictures={"errors": picture})

    def claims(self, errors: dict[str, Array]) -> list[Claim]:
        """Sound methods come near the value, the others do not; errors [seeds] by method."""
        return [self.claim(name, errors[name]) for name in errors]

    def claim(self, name: str, error: Array) -> Claim:
        """The interval of the mean error on the right side of the bound."""
        found, sound = mean(error), name in SOUND
        inside = found.high < RIGHT if sound else found.low > WRONG
        return Claim(
            sentence=f"{name} {'predicts the mean' if sound else 'does not predict the mean'} of a rare large reward.",
            source=SOURCE,
            expected=f"{'below' if sound else 'above'} {RIGHT if sound else WRONG:.0%}, interval included; prototype {PROTOTYPE[name]}",
            measured=f"error {show(mean(100 * error))} %",
            seeds=len(self.seeds),
            holds=inside and not self.scaled(),
            note=f"Scaled down ({self.scaled()})." if self.scaled() else "",
        )


def relative(weights: Array, value: Array) -> Array:
    """[...] distance of tabular weights [..., states] from the value, as a share of the value's length."""
    return np.linalg.norm(weights - value, axis=-1) / np.linalg.norm(value)


def draw(path: Path, errors: dict[str, Array]) -> Path:
    """Errors as bars, sound methods in one colour."""
    figure, (ax,) = panels(1, width=7.0, height=3.0)
    colours = [COLOURS[0] if name in SOUND else COLOURS[1] for name in errors]
    bars(ax, list(errors), [100 * error for error in errors.values()], colours)
    style(ax, "rare reward on a ring", "error of the predicted values, % of their length")
    return save(
        figure, path, "Bar: mean over seeds, points: single seeds. Orange: the sampled error is clipped. Blue: it is not."
    )
