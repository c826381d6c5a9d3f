"""Robust Bellman losses in control: step sizes on Mountain Car, and outliers among the rewards of the pendulum."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from experiments.claim import Claim, Outcome, Workshop, less
from experiments.kept import kept
from experiments.mountain_car_sweep import MountainCarSweep
from experiments.outlier_rewards import CONTAMINATIONS, EPISODE, OutlierRewards
from experiments.over_seeds import mean, show
from experiments.panels import COLOURS, line, panels, save, style
from experiments.threads import one_thread

Array = NDArray[np.float64]
Kind = Literal["QRC", "QRC-Huber", "Q-learning", "DQN"]
SETTING = (5, 100, 8_000)
"""Least seeds, episodes of Mountain Car and steps of the pendulum at which the claims are judged."""
LAST = 10
"""Episodes at the end whose mean return is the final one."""
LEARNED = -200.0
"""Final return above which an agent has learned Mountain Car. Gymnasium cuts its own version there."""
SOURCE = (
    "Patterson, Liao and White 2023, abstract: robust losses are more stable in control and less sensitive to meta-parameters"
)
SETTINGS_SOURCE = "settings of QRC's authors for Mountain Car (Ghiassian et al. 2020, released code)"


@dataclass(frozen=True)
class RobustControl:
    """Robust Bellman losses in control: sensitivity to the step size on Mountain Car, and SAC while some rewards are outliers."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Training seeds of everything."""
    agents: tuple[Kind, ...] = ("QRC", "QRC-Huber", "Q-learning", "DQN")
    """Agents on Mountain Car. DQN has a target network that is copied now and then, Q-learning copies it at each update."""
    exponents: tuple[int, ...] = tuple(range(-12, -5))
    """Step sizes, as powers of two; h has the same."""
    threshold: float = 1.0
    """Threshold of QRC-Huber's bound on expected errors, and of the clipped errors of Q-learning and DQN."""
    target_period: int = 64
    """Updates between two copies of DQN's target network."""
    car: MountainCarSweep = field(default_factory=MountainCarSweep)
    """Mountain Car, and what all agents on it share."""
    outliers: OutlierRewards = field(default_factory=OutlierRewards)
    """The pendulum, and what all agents on it share."""
    compile: bool = True
    """Compile the updates, which takes about ten minutes in all; without, an update takes six times as long."""

    def obstacle(self) -> str | None:
        """It runs anywhere."""
        return None

    def scaled(self) -> str:
        """What is too little to judge a claim by."""
        given = {
            "seeds": len(self.seeds),
            "episodes of Mountain Car": self.car.episodes,
            "steps of the pendulum": self.outliers.steps,
        }
        return ", ".join(less(SETTING, given))

    def measure(self, workshop: Workshop) -> Outcome:
        """Train all agents and judge the claims by their returns."""
        with one_thread():
            car = {kind: self.sweep(workshop.folder, kind) for kind in self.agents}
            pendulum = {name: self.with_outliers(workshop.folder, name) for name in self.outliers.objectives()}
        tables = {"step sizes": self.step_sizes(car), "outliers": self.outlier_table(pendulum)}
        picture = self.draw(workshop.folder / "returns.png", car, pendulum)
        return Outcome(self.claims(car, pendulum), tables=tables, pictures={"returns": picture})

    def sweep(self, folder: Path, kind: Kind) -> Array:
        """[step sizes, seeds, episodes] returns of an agent on Mountain Car, kept in the folder."""
        period = self.target_period if kind == "DQN" else 1
        pairs = [(2.0**exponent, seed) for exponent in self.exponents for seed in self.seeds]
        configs = [self.car.agent(kind, step_size, period, self.threshold) for step_size, _ in pairs]
        found = kept(
            folder / "mountain-car" / f"{kind}.npz",
            (self.car, self.seeds, configs),
            lambda: self.car.returns(configs, [seed for _, seed in pairs], self.compile),
        )
        return found.reshape(len(self.exponents), len(self.seeds), -1)

    def with_outliers(self, folder: Path, name: str) -> Array:
        """[contaminations, seeds, episodes] returns of an objective on the pendulum, kept in the folder."""
        objective = self.outliers.objectives()[name]
        return kept(
            folder / "pendulum" / f"{name}.npz",
            (self.outliers, self.seeds, objective),
            lambda: self.outliers.returns(objective, self.seeds, self.compile),
        )

    def step_sizes(self, car: dict[str, Array]) -> list[dict[str, object]]:
        """One line per agent and step size."""
        return [
            {
                "agent": kind,
                "step size": f"2^{exponent}",
                "mean return of all episodes": show(mean(returns[i].mean(-1))),
                f"of the last {LAST}": show(mean(final(returns[i]))),
                "seeds that learned": f"{(final(returns[i]) > LEARNED).sum()} of {len(self.seeds)}",
            }
            for kind, returns in car.items()
            for i, exponent in enumerate(self.exponents)
        ]

    def outlier_table(self, pendulum: dict[str, Array]) -> list[dict[str, object]]:
        """One line per objective."""
        return [
            {"objective": name, **{sign: show(mean(final(found[i]))) for i, sign in enumerate(CONTAMINATIONS)}}
            for name, found in pendulum.items()
        ]

    def claims(self, car: dict[str, Array], pendulum: dict[str, Array]) -> list[Claim]:
        """Whether each agent learns, whose curve over step sizes is flatter, and who stands outliers."""
        learned = [self.learns(kind, returns) for kind, returns in car.items()]
        flatter = [
            self.flatter(car["QRC-Huber"], car[other], other) for other in car if other != "QRC-Huber" and "QRC-Huber" in car
        ]
        return [*learned, *flatter, *self.withstands(pendulum)]

    def learns(self, kind: str, returns: Array) -> Claim:
        """The final return at the step size of the highest mean return."""
        best = int(returns.mean((1, 2)).argmax())
        found = mean(final(returns[best]))
        return Claim(
            sentence=f"{kind} learns Mountain Car at its best step size.",
            source=SETTINGS_SOURCE,
            expected=f"mean return of the last {LAST} of {self.car.episodes} episodes above {LEARNED:g}",
            measured=f"{show(found)} at 2^{self.exponents[best]}",
            seeds=len(self.seeds),
            holds=found.value > LEARNED and not self.scaled(),
            note=self.note(),
        )

    def flatter(self, huber: Array, other: Array, name: str) -> Claim:
        """Loss by a step size that is not the best, for the same seeds."""
        own, others = sensitivity(huber), sensitivity(other)
        difference = mean(others - own)
        return Claim(
            sentence=f"The curve over step sizes is flatter for QRC-Huber than for {name}.",
            source=SOURCE,
            expected="return lost on average over step sizes, against the best one: less for QRC-Huber, interval of the difference above 0",
            measured=f"QRC-Huber {show(mean(own))}, {name} {show(mean(others))}, difference {show(difference)}",
            seeds=len(self.seeds),
            holds=bool(difference.low > 0) and not self.scaled(),
            note=self.note(),
        )

    def withstands(self, pendulum: dict[str, Array]) -> list[Claim]:
        """The final return with outliers of either sign, against the squared error's."""
        place = CONTAMINATIONS.index("either sign")
        squared = mean(final(pendulum["squared"][place]))
        robust = {name: mean(final(found[place])) for name, found in pendulum.items() if name != "squared"}
        episodes = self.outliers.steps // EPISODE
        return [
            Claim(
                sentence=f"SAC stands outliers among its rewards better with the loss: {name}.",
                source=SOURCE
                if "Huber" in name
                else "DQN's clipped error (Mnih et al. 2015), the baseline that the source argues against",
                expected=f"return of the last {LAST} of {episodes} episodes above that with the squared error, intervals apart",
                measured=f"{show(found)}, squared {show(squared)}",
                seeds=len(self.seeds),
                holds=bool(found.low > squared.high) and not self.scaled(),
                note=self.note(),
            )
            for name, found in robust.items()
        ]

    def note(self) -> str:
        """What a reader must know besides."""
        return f"Scaled down ({self.scaled()})." if self.scaled() else ""

    def draw(self, path: Path, car: dict[str, Array], pendulum: dict[str, Array]) -> Path:
        """Returns over step sizes, and learning curves with outliers of either sign."""
        figure, (left, right) = panels(2, width=5.2, height=3.8)
        for (kind, returns), colour in zip(car.items(), COLOURS, strict=False):
            line(left, self.exponents, returns.mean(-1), kind, colour)
        left.set_xticks(self.exponents, [f"$2^{{{exponent}}}$" for exponent in self.exponents])
        style(left, "Mountain Car", "step size", f"mean return of {self.car.episodes} episodes")
        for (name, found), colour in zip(pendulum.items(), COLOURS[len(car) :], strict=False):
            curve = found[CONTAMINATIONS.index("either sign")].T
            line(right, (np.arange(len(curve)) + 1) * EPISODE / 1000, curve, name, colour)
        style(right, "SAC on the pendulum, outliers of either sign", "environment steps (thousands)", "return without outliers")
        caption = "Line: mean over seeds. Band: 95 % bootstrap interval over seeds."
        return save(figure, path, caption, (left, right))


def final(returns: Array) -> Array:
    """[...] mean return of the last episodes of returns [..., episodes]."""
    return returns[..., -LAST:].mean(-1)


def sensitivity(returns: Array) -> Array:
    """[seeds] return that a step size loses on average against the best one, which is chosen by the mean over seeds [step sizes, seeds, episodes]."""
    area = returns.mean(-1)
    return area[int(area.mean(1).argmax())] - area.mean(0)
