"""Variance weights in a critic of continuous actions, on a line of which one part is noisy."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.claim import Claim, Outcome, Workshop, less
from experiments.noisy_line import SPEC, Evaluator, Line
from experiments.over_seeds import mean, show
from experiments.panels import COLOURS, line, panels, save, style
from experiments.side_by_side import AdamOfEach, SideBySide
from experiments.threads import one_thread
from steelyard.agents.agent import Execution
from steelyard.agents.networks import MLP
from steelyard.agents.parts import InverseVariance
from steelyard.agents.types import Batch

Array = NDArray[np.floating]
SETTING = (10, 3_000, 3_000)
"""Least seeds, transitions and updates at which the claims are judged."""
REGIONS = ("quiet", "noisy", "whole line")
SOURCE = (
    "design after Kitamura et al. 2023 (weights of the inverse variance make the regression more efficient); no published numbers"
)


@dataclass(frozen=True)
class DvwContinuous:
    """Variance weights of a continuous critic: whether its values become more accurate where a partly noisy world is quiet."""

    seeds: tuple[int, ...] = tuple(range(10))
    """Seeds; each has data, initial weights and batches of its own."""
    transitions: int = SETTING[1]
    """Size of each data set."""
    updates: int = SETTING[2]
    """Updates of each critic."""
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    """Learning rates of the critic, swept with and without weights."""
    shared_rate: float = 1e-3
    """The one at which the two are compared at equal learning rates."""
    variance_rate: float = 1e-3
    """Learning rate of the variance."""
    period: int = 200
    """Updates between two generations of critics and variances."""
    target_rate: float = 0.05
    """tau: how far the target network moves per update."""
    width: int = 64
    """Width of the two hidden layers of every network."""
    batch_size: int = 64
    """Transitions per update."""
    homes: tuple[float, ...] = (0.75, -0.25)
    """Where the policies go that are evaluated: into the noise, on which values then depend everywhere, and away from it."""
    world: Line = field(default_factory=Line)
    """The line."""
    compile: bool = True
    """Compile the update, which takes a minute; without, the same takes several times as long."""

    def obstacle(self) -> str | None:
        """It runs anywhere."""
        return None

    def scaled(self) -> str:
        """What is too little to judge a claim by."""
        given = {"seeds": len(self.seeds), "transitions": self.transitions, "updates": self.updates}
        return ", ".join(less(SETTING, given))

    def agent(self, home: float, learning_rate: float, weighted: bool) -> Evaluator:
        """A critic's configuration."""
        network = MLP((self.width, self.width))
        plain = Evaluator(
            home=home,
            critic=network,
            optimizer=AdamOfEach(learning_rate),
            discount=self.world.discount,
            target_rate=self.target_rate,
            batch_size=self.batch_size,
        )
        weights = InverseVariance(network=network, optimizer=AdamOfEach(self.variance_rate), period=self.period)
        return dataclasses.replace(plain, weighting=weights) if weighted else plain

    def measure(self, workshop: Workshop) -> Outcome:
        """Fit all critics and compare them with the exact values."""
        with one_thread():
            errors = {name: self.errors(name == "weighted") for name in ("unweighted", "weighted")}
        table: list[dict[str, object]] = [
            {
                "policy's home": home,
                "weights": name,
                "learning rate": rate,
                **{f"RMSE, {region}": show(mean(found[region][p, i])) for region in REGIONS},
            }
            for p, home in enumerate(self.homes)
            for name, found in errors.items()
            for i, rate in enumerate(self.learning_rates)
        ]
        picture = self.draw(workshop.folder / "errors.png", errors)
        return Outcome(self.claims(errors), tables={"errors": table}, pictures={"errors": picture})

    def errors(self, weighted: bool) -> dict[str, Array]:
        """{region: root mean squared error [homes, learning rates, seeds]}."""
        kinds = [(home, rate, seed) for home in self.homes for rate in self.learning_rates for seed in self.seeds]
        build = {"num_envs": 1, "total_updates": self.updates, "execution": Execution(compile=False)}
        agents = [self.agent(home, rate, weighted).build(SPEC, seed=seed, **build) for home, rate, seed in kinds]
        together = SideBySide(agents, self.compile, self.period if weighted else None)
        self.fit(together, [seed for *_, seed in kinds])
        position, action = (axis.ravel() for axis in np.meshgrid(np.linspace(-0.99, 0.99, 100), np.linspace(-0.9, 0.9, 10)))
        given = (torch.from_numpy(axis).float()[:, None].expand(len(kinds), -1, 1) for axis in (position, action))
        with torch.no_grad():
            output = together.evaluate("critic", *given)[:, 0, :, 0].numpy()
        value = np.stack([self.world.value(position, action, home) for home in self.homes])
        shape = (len(self.homes), len(self.learning_rates), len(self.seeds), -1)
        squares = (output.reshape(shape) - value[:, None, None]) ** 2
        noisy = position > self.world.edge
        places = (~noisy, noisy, noisy | ~noisy)
        return {region: np.sqrt(squares[..., place].mean(-1)) for region, place in zip(REGIONS, places, strict=True)}

    def fit(self, together: SideBySide, seeds: list[int]) -> None:
        """Update critics of the given seeds with batches from the data of their seeds."""
        data = {seed: self.world.dataset(self.transitions, seed) for seed in self.seeds}
        columns = [torch.stack(column) for column in zip(*(data[seed][:7] for seed in seeds), strict=True)]
        member, generator = torch.arange(len(seeds))[:, None], torch.Generator().manual_seed(self.seeds[0])
        for _ in range(self.updates):
            rows = torch.randint(self.transitions, (len(seeds), self.batch_size), generator=generator)
            together.update(Batch(*(column[member, rows] for column in columns)), torch.zeros(together.draws(self.batch_size)))

    def claims(self, errors: dict[str, dict[str, Array]]) -> list[Claim]:
        """In the quiet region, for each policy: at the same learning rate, and with the best learning rate of each."""
        rates, claims = self.learning_rates, []
        same = rates.index(self.shared_rate)
        for place, home in enumerate(self.homes):
            plain, weighted = (errors[name]["quiet"][place] for name in ("unweighted", "weighted"))
            best, own = int(plain.mean(1).argmin()), int(weighted.mean(1).argmin())
            where = f"policy that goes {'into' if home > self.world.edge else 'away from'} the noise"
            claims += [
                self.claim(f"At the same learning rate, {where}:", plain[same], weighted[same], rates[same], rates[same]),
                self.claim(f"With the best learning rate of each, {where}:", plain[best], weighted[own], rates[best], rates[own]),
            ]
        return claims

    def claim(self, what: str, plain: Array, weighted: Array, rate: float, own: float) -> Claim:
        """Errors [seeds] of the same seeds, without and with weights, at learning rates that were chosen before."""
        difference = mean(plain - weighted)
        return Claim(
            sentence=f"{what} variance weights lower the error of the values outside the noisy region.",
            source=SOURCE,
            expected="the difference of the root mean squared errors of the same seeds is positive, interval included",
            measured=f"without {show(mean(plain))} at {rate:g}, with {show(mean(weighted))} at {own:g}, difference {show(difference)}",
            seeds=len(self.seeds),
            holds=bool(difference.low > 0) and not self.scaled(),
            note=f"Scaled down ({self.scaled()})." if self.scaled() else "",
        )

    def draw(self, path: Path, errors: dict[str, dict[str, Array]]) -> Path:
        """Errors over learning rates, a panel for each policy and region."""
        figure, axes = panels(len(REGIONS), len(self.homes), width=3.8, height=3.0)
        places = [(place, region) for place in range(len(self.homes)) for region in REGIONS]
        for ax, (place, region) in zip(axes, places, strict=True):
            for (name, found), colour in zip(errors.items(), COLOURS, strict=False):
                line(ax, self.learning_rates, found[region][place], name, colour)
            ax.set_xscale("log")
            ax.set_yscale("log")
            style(ax, f"home {self.homes[place]:g}: {region}", "learning rate", "RMSE")
        caption = (
            f"Root mean squared error of a critic's values after {self.updates:,} updates on {self.transitions:,} transitions, against "
            "exact values. Line: mean over seeds. Band: 95 % bootstrap interval over seeds."
        )
        return save(figure, path, caption, axes)
