"""Update ratios on small pixels: how alive the critic stays, and what it returns, with and without augmentation."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.claim import Claim, Outcome, Workshop, final_scores, less
from experiments.over_seeds import mean, show
from experiments.panels import COLOURS, line, panels, save, style
from steelyard.agents.agent import Execution
from steelyard.agents.networks import Bottleneck
from steelyard.agents.networks.augmentation import RandomShift, Unaugmented
from steelyard.agents.networks.encoders import PictureEncoder
from steelyard.agents.networks.scheduled_noise import ScheduledNoise
from steelyard.envs import Pictures
from steelyard.trainers.adaptive_ratio import AdaptiveRatio
from steelyard.trainers.config import Run
from steelyard.trainers.curves import Curves
from steelyard.trainers.pixel_presets import SMALL, change
from steelyard.trainers.schedules import FixedRatio
from steelyard.trainers.shrinking import debug
from steelyard.trainers.tables import read_columns

SETTING = (3, 60_000)
"""Least seeds and frames at which the claims are judged."""
FIXED_LOW, FIXED_HIGH, ADAPTIVE = "rr-low", "rr-high", "rr-adaptive"
BARE_LOW, BARE_HIGH = "rr-low-bare", "rr-high-bare"
EPISODE = 1_000
"""Frames of an episode."""
SOURCE = "Ma et al. 2024 (arXiv 2310.07418), sections 3 and 5"


@dataclass(frozen=True)
class AdaptiveRrPixels:
    """Adaptive replay ratio on small pixels (cartpole): fixed and adaptive ratios, and fixed ones without augmentation."""

    task: str = "cartpole-swingup"
    """Task of the dm-control suite."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds."""
    frames: int = 60_000
    """Environment steps of each run."""
    size: int = 48
    """Height and width of the pictures."""
    channels: int = 16
    """Channels of each of the four convolutions."""
    width: int = 256
    """Width of the hidden layers."""
    batch_size: int = 32
    """Transitions per update."""
    action_repeat: int = 4
    """Frames of a decision."""
    low: float = 0.5
    """The low ratio of updates to decisions."""
    high: float = 2.0
    """The high one."""
    check_episodes: int = 10
    """Episodes between two checks of the adaptive ratio, which compares means over all of them."""
    threshold: float = 0.003
    """Change between two checks at which it switches."""
    compile: bool = False
    """Compile the updates. On a small CPU convolutions take most of an update, and compiling gains less than it takes."""
    debug: bool = False
    """Shrink everything to a few seconds."""

    def obstacle(self) -> str | None:
        """It runs anywhere."""
        return None

    def scaled(self) -> str:
        """What is too little to judge a claim by."""
        changes = less(SETTING, {"seeds": len(self.seeds), "frames": self.frames})
        return ", ".join([*changes, *["shrunk by --debug"] * self.debug])

    def arms(self) -> dict[str, Run]:
        """One run of each kind."""
        decisions = EPISODE // self.action_repeat
        interval = self.check_episodes * decisions
        adaptive = AdaptiveRatio(self.low, self.high, interval, interval, self.threshold)
        shift, none = RandomShift(3), Unaugmented()
        return {
            FIXED_LOW: self.arm(FIXED_LOW, FixedRatio(self.low), shift),
            FIXED_HIGH: self.arm(FIXED_HIGH, FixedRatio(self.high), shift),
            ADAPTIVE: self.arm(ADAPTIVE, adaptive, shift),
            BARE_LOW: self.arm(BARE_LOW, FixedRatio(self.low), none),
            BARE_HIGH: self.arm(BARE_HIGH, FixedRatio(self.high), none),
        }

    def arm(self, name: str, schedule: FixedRatio | AdaptiveRatio, augmentation: RandomShift | Unaugmented) -> Run:
        """A run that differs from the others in nothing else."""
        head = Bottleneck(hidden=(self.width, self.width))
        run = change(
            SMALL,
            encoder=PictureEncoder((self.channels,) * 4),
            actor=head,
            critic=head,
            augmentation=augmentation,
            batch_size=self.batch_size,
            noise=ScheduledNoise(decay_steps=max(self.frames // self.action_repeat * 2 // 3, 1)),
        )
        run = dataclasses.replace(
            run,
            task=self.task,
            preset=name,
            schedule=schedule,
            env_steps=self.frames,
            action_repeat=self.action_repeat,
            pictures=Pictures(size=self.size, rendering="fast"),
            evaluation_interval=max(self.frames // 6, 1),
            evaluation_episodes=5,
            meter_interval=EPISODE,
            checkpoint_interval=max(self.frames // 3, 1),
            threads=1,
            execution=Execution(compile=self.compile),
            log_to=(),
        )
        return debug(run) if self.debug else run

    def measure(self, workshop: Workshop) -> Outcome:
        """Train all arms, and read returns and fractions of active units."""
        arms = self.arms()
        runs = [dataclasses.replace(run, seed=seed) for seed in self.seeds for run in arms.values()]
        curves = workshop.train(runs)
        active = {name: self.active(workshop, run) for name, run in arms.items()}
        late = {name: values[len(values) * 3 // 4 :].mean(0) for name, (_, values) in active.items()}
        rows: list[dict[str, object]] = [
            {
                "arm": name,
                "final return": show(mean(self.finals(curves, run))),
                "active units of the critic, last quarter": show(mean(late[name])),
                "switched at decision": ", ".join(self.switches(workshop, run)) or "-",
            }
            for name, run in arms.items()
        ]
        picture = self.draw(workshop.run_folder(runs[0]).parents[2] / "active-units.png", active)
        return Outcome(self.claims(curves, late), curves, {"arms": rows}, {"active-units": picture})

    def finals(self, curves: Curves, run: Run) -> list[float]:
        """The last evaluation of each seed."""
        return list(final_scores(curves, self.task, run.preset).values())

    def active(self, workshop: Workshop, run: Run) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Frames [points], and the critic's fraction of active units there [points, seeds]."""
        columns = ("env_steps", "meter/critic/active")
        seeds = [
            read_columns(workshop.run_folder(dataclasses.replace(run, seed=seed)) / "train.csv", columns) for seed in self.seeds
        ]
        points = min(len(found[columns[0]]) for found in seeds)
        return np.array(seeds[0][columns[0]][:points]), np.array([found[columns[1]][:points] for found in seeds]).T

    def switches(self, workshop: Workshop, run: Run) -> list[str]:
        """When each seed's ratio became high, in decisions since the first update."""
        column: Any = "schedule/switched_at"
        found: list[str] = []
        for seed in self.seeds:
            path = workshop.run_folder(dataclasses.replace(run, seed=seed)) / "train.csv"
            if column in path.read_text().splitlines()[0].split(","):
                found.append(f"{read_columns(path, (column,))[column][-1]:,.0f}")
        return found

    def claims(self, curves: Curves, late: dict[str, NDArray[np.float64]]) -> list[Claim]:
        """What augmentation, a high ratio and the switch do."""
        arms = self.arms()
        score = {name: mean(self.finals(curves, run)) for name, run in arms.items()}
        alive = {name: mean(values) for name, values in late.items()}
        worst, least = min(score, key=lambda name: score[name].value), min(alive, key=lambda name: alive[name].value)
        best = max((FIXED_LOW, FIXED_HIGH), key=lambda name: score[name].value)
        drop = mean(late[FIXED_LOW] - late[FIXED_HIGH])
        return [
            self.claim(
                "Without augmentation and with a high ratio the critic has the fewest active units, and the return is the lowest.",
                "the lowest means of all arms",
                f"return {show(score[BARE_HIGH])} (lowest: {worst}), active {show(alive[BARE_HIGH])} (fewest: {least})",
                worst == least == BARE_HIGH,
            ),
            self.claim(
                "With augmentation a high ratio from the start keeps the fraction of active units lower than a low ratio.",
                "difference in the last quarter above zero, interval included",
                f"{show(alive[FIXED_LOW])} at {self.low:g}, {show(alive[FIXED_HIGH])} at {self.high:g}, difference {show(drop)}",
                drop.low > 0,
            ),
            self.claim(
                "The adaptive ratio returns at least as much as the better fixed one (published: 784 against 579 and 417, quadruped run).",
                "intervals overlap, or the adaptive one is higher",
                f"adaptive {show(score[ADAPTIVE])}, {best} {show(score[best])}",
                score[ADAPTIVE].high >= score[best].low,
            ),
        ]

    def claim(self, sentence: str, expected: str, measured: str, holds: bool) -> Claim:
        """One of them."""
        notes = [f"Scaled down ({self.scaled()})."] * bool(self.scaled())
        notes += ["An easy task, on which little plasticity is lost: the published effect is on harder ones."]
        return Claim(sentence, SOURCE, expected, measured, len(self.seeds), bool(holds) and not self.scaled(), " ".join(notes))

    def draw(self, path: Path, active: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Path:
        """Fractions of active units over frames."""
        figure, (ax,) = panels(1, width=6.4, height=3.8)
        for (name, (frames, values)), colour in zip(active.items(), COLOURS, strict=False):
            line(ax, frames / 1000, values, name, colour)
        style(ax, f"{self.task}: critic", "frames (thousands)", "fraction of active units")
        caption = "Line: mean over seeds. Band: 95 % bootstrap interval over seeds."
        return save(figure, path, caption, (ax,))
