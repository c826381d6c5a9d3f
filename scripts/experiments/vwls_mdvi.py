"""Variance-weighted least squares in mirror-descent value iteration, on linear Markov decision processes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from experiments import sampled_regression
from experiments.claim import Claim, Outcome, Workshop
from experiments.linear_mdps import LinearMDP, hard, heteroscedastic
from experiments.mirror_descent import Regression, design, learned_weighting, regression, value_iteration, weighting
from experiments.over_seeds import mean, ratio, show
from experiments.panels import COLOURS, bars, panels, save, style
from experiments.sampled_regression import Budget, Mode

Array = NDArray[np.floating]
Design = Literal["uniform", "G-optimal"]
Scaling = Literal["correct", "released"]
SETTING = 10
"""Least seeds at which the claims are judged."""
SHARE = 0.2
"""Share of the iterations after which the variance is estimated (Kitamura et al. 2023)."""
PLAIN, KNOWN, INVERSE, LEARNED = "f = 1", "f = f*, known variance", "f = sqrt Var + 1", "learned variance"
SAME_DESIGN = "f = f*, design of f = 1"
MDVI, FITTED, ERROR = "MDVI, gap", "fitted VI, gap", "fitted VI, error of Q"
SOURCE = "Kitamura et al. 2023 (VWLS-MDVI)"
PROTOTYPE = {
    (MDVI, PLAIN): 0.0067,
    (MDVI, KNOWN): 0.0023,
    (MDVI, INVERSE): 0.0020,
    (FITTED, PLAIN): 0.048,
    (FITTED, KNOWN): 0.017,
    (FITTED, INVERSE): 0.015,
    (ERROR, PLAIN): 0.124,
    (ERROR, KNOWN): 0.059,
    (ERROR, INVERSE): 0.058,
}
"""A prototype's numbers on ten heteroscedastic processes."""


@dataclass(frozen=True)
class VwlsMdvi:
    """Regression weighted by inverse variance makes mirror-descent value iteration lose less with the same samples."""

    seeds: tuple[int, ...] = tuple(range(20))
    """Seeds of processes and samples."""
    discount: float = 0.97
    """Discount of the heteroscedastic process."""
    states: int = 40
    """Its states."""
    gamble: float = 8.0
    """Dirichlet weight of the gamble in its uncertain action, against 0.5 of each quiet factor."""
    samples: int = 3
    """Next states drawn per pair and iteration."""
    iterations: int = 400
    """Iterations."""
    variance_samples: int = 100
    """Pairs of next states from which the variance is estimated."""
    hard_seeds: tuple[int, ...] = tuple(range(100))
    """Seeds of the paper's hard processes and their samples."""
    hard_discount: float = 0.9
    """Their discount."""
    hard_samples: int = 100
    """Next states per pair and iteration there."""
    hard_iterations: int = 1_000
    """Iterations there."""
    hard_variance_samples: tuple[int, ...] = (5_000, 100_000)
    """Pairs of next states there."""
    rates: tuple[float, ...] = (0.3, 1.0, 3.0)
    """Step sizes of the gradient descent; every way to weight gets its best."""

    def obstacle(self) -> str | None:
        """It runs anywhere."""
        return None

    def scaled(self) -> str:
        """Fewer seeds than claims need."""
        seeds = min(len(self.seeds), len(self.hard_seeds))
        return f"{seeds} instead of {SETTING} seeds or more" * (seeds < SETTING)

    def measure(self, workshop: Workshop) -> Outcome:
        """Solve both processes and descend the gradient."""
        found = {kind: transpose([self.heteroscedastic(seed, kind) for seed in self.seeds]) for kind in ("uniform", "G-optimal")}
        instances = {
            scaling: transpose([self.hard(seed, scaling) for seed in self.hard_seeds]) for scaling in ("correct", "released")
        }
        descent = self.descend()
        tables: dict[str, list[dict[str, object]]] = {
            "heteroscedastic": [
                {
                    "design": kind,
                    "what": what,
                    "weights": name,
                    "value": show(mean(values)),
                    "prototype": PROTOTYPE.get((what, name), "") if kind == "uniform" else "",
                }
                for kind, numbers in found.items()
                for (what, name), values in numbers.items()
            ],
            "hard": [
                {"scaling of G": scaling, "weights": name, "gap": show(mean(values))}
                for scaling, numbers in instances.items()
                for name, values in numbers.items()
            ],
            "gradient descent": [
                {"weights": mode, "step size": rate, "error of Q": show(mean(values))} for (mode, rate), values in descent.items()
            ],
        }
        picture = draw(workshop.folder / "gaps.png", found["uniform"], instances)
        claims = [*self.weighting_claims(found), *self.hard_claims(instances), self.descent_claim(descent)]
        return Outcome(claims, tables=tables, pictures={"gaps": picture})

    def heteroscedastic(self, seed: int, kind: Design) -> dict[tuple[str, str], float]:
        """{(what is measured, weights): value} on one heteroscedastic process."""
        mdp = heteroscedastic(seed, self.states, discount=self.discount, gamble=self.gamble)
        best, action_values = mdp.optimal()
        variance, points = mdp.variance(best), len(mdp.features)
        even = np.full(points, 1 / points)

        def fit(f: Array) -> Regression:
            return regression(mdp.features, f, even if kind == "uniform" else design(mdp.features / f[:, None]))

        known = {PLAIN: np.ones(points), KNOWN: weighting(variance, mdp.horizon), INVERSE: np.sqrt(variance) + 1}
        found: dict[tuple[str, str], float] = {}
        for name, f in known.items():
            # The same generator for all: the comparison is of weights, not of luck.
            theta = value_iteration(mdp, fit(f), self.samples, self.iterations, np.random.default_rng([seed, 1]))
            found[MDVI, name] = loss(mdp, theta, best)
            theta = value_iteration(mdp, fit(f), self.samples, self.iterations, np.random.default_rng([seed, 1]), averaging=False)
            found[FITTED, name] = loss(mdp, theta, best)
            found[ERROR, name] = float(np.abs(mdp.features @ theta - action_values).max() / action_values.max())
        generator, first = np.random.default_rng([seed, 2]), round(SHARE * self.iterations)
        f = learned_weighting(mdp, fit(np.ones(points)), self.samples, first, self.variance_samples, generator)
        theta = value_iteration(mdp, fit(f), self.samples, self.iterations - first, generator)
        found[MDVI, LEARNED] = loss(mdp, theta, best)
        return found

    def hard(self, seed: int, scaling: Scaling) -> dict[str, float]:
        """{weights: gap of MDVI} on one of the paper's hard processes."""
        mdp = hard(seed, discount=self.hard_discount)
        best, _ = mdp.optimal()
        one, samples, iterations = np.ones(len(mdp.features)), self.hard_samples, self.hard_iterations

        def fit(f: Array, designed_for: Array | None = None) -> Regression:
            rho = design(mdp.features / (f if designed_for is None else designed_for)[:, None])
            return regression(mdp.features, f, rho, scaling)

        known = weighting(mdp.variance(best), mdp.horizon)
        found = {
            name: loss(mdp, value_iteration(mdp, way, samples, iterations, np.random.default_rng([seed, 1])), best)
            for name, way in {PLAIN: fit(one), KNOWN: fit(known), SAME_DESIGN: fit(known, one)}.items()
        }
        first = round(SHARE * iterations)
        for number in self.hard_variance_samples:
            generator = np.random.default_rng([seed, 2])
            f = learned_weighting(mdp, fit(one), samples, first, number, generator)
            theta = value_iteration(mdp, fit(f), samples, iterations - first, generator)
            found[f"{LEARNED} of {number:,}"] = loss(mdp, theta, best)
        return found

    def descend(self) -> dict[tuple[Mode, float], Array]:
        """{(weights, step size): error of Q [seeds]} by stochastic gradient descent with one next state per pair."""
        modes: tuple[Mode, ...] = ("none", "learned", "oracle")
        budget = {rate: Budget(periods=60, updates=150, batch=64, rate=rate, discount=0.95) for rate in self.rates}
        return {(mode, rate): sampled_regression.solve(self.seeds, mode, budget[rate]) for mode in modes for rate in self.rates}

    def claim(
        self, sentence: str, expected: str, pair: tuple[Array, Array], holds: Callable[[float, float], bool], note: str = ""
    ) -> Claim:
        """A claim about the ratio of two means, judged by the ends of its interval."""
        found = ratio(*pair)
        low, high = (found.value, found.value) if np.isnan(found.low) else (found.low, found.high)
        scaled = f"Scaled down ({self.scaled()})." if self.scaled() else ""
        return Claim(
            sentence=sentence,
            source=SOURCE,
            expected=expected,
            measured=f"{show(mean(pair[0]))} against {show(mean(pair[1]))}, ratio {show(found, 2)}",
            seeds=len(pair[0]),
            holds=holds(low, high) and not scaled,
            note=" ".join(filter(None, (note, scaled))),
        )

    def weighting_claims(self, found: Mapping[str, dict[tuple[str, str], Array]]) -> list[Claim]:
        """What weighting and averaging do on the heteroscedastic process."""
        numbers, optimal = found["uniform"], found["G-optimal"]
        pure = (
            f"With a G-optimal design the ratio is {show(ratio(optimal[MDVI, KNOWN], optimal[MDVI, PLAIN]), 2)}: that design samples "
            "pairs that are nearly one factor each, so noise does not mix and there is little left to weight."
        )
        rule = "ratio below 0.6, interval included; prototype {:.2f}"
        claims = [
            self.claim(
                f"Weights of the {'known' if name == KNOWN else 'learned'} variance reduce what is lost: {what}, uniform design.",
                rule.format(PROTOTYPE[what, KNOWN] / PROTOTYPE[what, PLAIN])
                if name == KNOWN
                else "ratio below 0.6, interval included",
                (numbers[what, name], numbers[what, PLAIN]),
                lambda low, high: high < 0.6,
                note,
            )
            for what, name, note in ((MDVI, KNOWN, pure), (MDVI, LEARNED, ""), (FITTED, KNOWN, ""), (ERROR, KNOWN, ""))
        ]
        averaging = self.claim(
            "The averaging of mirror descent reduces the gap as well.",
            f"ratio below 0.5, interval included; prototype {PROTOTYPE[MDVI, PLAIN] / PROTOTYPE[FITTED, PLAIN]:.2f}",
            (numbers[MDVI, PLAIN], numbers[FITTED, PLAIN]),
            lambda low, high: high < 0.5,
        )
        return [*claims, averaging]

    def hard_claims(self, found: Mapping[str, dict[str, Array]]) -> list[Claim]:
        """The paper's figure, which rests on a slip, and what is left without it."""
        correct, released = found["correct"], found["released"]
        size = (
            f"{self.hard_samples} next states, {self.hard_iterations:,} iterations and {len(self.hard_seeds)} processes; published: 100, "
            "1,000 and 100"
        )
        own, same = show(ratio(correct[KNOWN], correct[PLAIN]), 2), float((correct[SAME_DESIGN] == correct[PLAIN]).mean())
        return [
            self.claim(
                "Weighting cannot help on the paper's hard process: with f the known scale the gap is that of f = 1.",
                "ratio above 0.8, interval included, where both have the same design; prototype 0.0076 against 0.0076",
                (correct[SAME_DESIGN], correct[PLAIN]),
                lambda low, high: low > 0.8,
                "The features of its two states have no place in common, and within a state f is constant to one percent, so it cancels "
                f"from the regression ({size}). The policy is the same in {same:.0%} of the processes; the others have near ties. With a design "
                f"of its own, hence other samples, the ratio is {own}.",
            ),
            *(
                self.claim(
                    f"The released notebook's figure, {name}, follows from its scaling.",
                    f"ratio below {bound}, interval included; prototype {prototype} against 0.0076",
                    (released[name], released[PLAIN]),
                    lambda low, high, bound=bound: high < bound,
                    "It divides G by f instead of f^2, so every target shrinks by about 1 / f: a damped update, no regression.",
                )
                for name, bound, prototype in self.released_expectations()
            ),
        ]

    def released_expectations(self) -> list[tuple[str, float, str]]:
        """(weights, largest ratio, the prototype's gap)."""
        learned = [f"{LEARNED} of {number:,}" for number in self.hard_variance_samples]
        published = {5_000: (0.6, "0.0021"), 100_000: (0.2, "0.0004")}
        known = [
            (name, *published[number])
            for name, number in zip(learned, self.hard_variance_samples, strict=True)
            if number in published
        ]
        return [(KNOWN, 0.2, "0.0002"), *known]

    def descent_claim(self, descent: dict[tuple[Mode, float], Array]) -> Claim:
        """Learned weights against none, each at its best step size."""
        best = {
            mode: min((values for (name, _), values in descent.items() if name == mode), key=lambda values: values.mean())
            for mode in ("none", "learned", "oracle")
        }
        return self.claim(
            "Weights learned by Deep Variance Weighting reduce the error of Q under stochastic gradient descent.",
            "ratio below 1, interval included; prototype 0.068 against 0.081",
            (best["learned"], best["none"]),
            lambda low, high: high < 1,
            f"Each at its best of the step sizes; known variance: {show(mean(best['oracle']))}.",
        )


def transpose(found: list[dict]) -> dict:
    """{name: [seeds]} from {name: value} of each seed."""
    return {name: np.array([each[name] for each in found]) for name in found[0]}


def loss(mdp: LinearMDP, theta: Array, best: Array) -> float:
    """What the greedy policy of theta loses."""
    return mdp.gap(mdp.greedy(mdp.features @ theta), best)


def draw(path: Path, found: dict[tuple[str, str], Array], instances: Mapping[str, dict[str, Array]]) -> Path:
    """Gaps on both processes."""
    figure, axes = panels(2, 2, width=5.4, height=2.3)
    for ax, what in zip(axes, (MDVI, FITTED), strict=False):
        own = {name: values for (kind, name), values in found.items() if kind == what}
        bars(ax, list(own), list(own.values()), COLOURS)
        style(ax, f"heteroscedastic: {what.split(',')[0]}", "gap, share of the largest value")
    for ax, (scaling, own) in zip(axes[2:], instances.items(), strict=True):
        names = [name.replace("learned variance of ", "learned, ") for name in own]
        bars(ax, names, list(own.values()), COLOURS)
        style(ax, f"hard, {scaling} scaling of G", "gap, share of the largest value")
    axes[3].set_xlim(axes[2].get_xlim())
    return save(figure, path, "Bar: mean over processes, points: single ones. The last two panels share their scale.")
