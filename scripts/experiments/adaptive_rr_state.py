"""The adaptive replay ratio on states: low, high and adaptive on a task where a high ratio hurts, and on one where it helps."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from experiments.claim import Claim, Outcome, Workshop, interval, less
from experiments.heavy_priming import mean
from experiments.metered import METERS, at, late, meters, picture
from steelyard.agents.networks import MLP
from steelyard.trainers.adaptive_ratio import AdaptiveRatio
from steelyard.trainers.config import Run
from steelyard.trainers.curves import Curves
from steelyard.trainers.presets import DMC
from steelyard.trainers.schedules import FixedRatio
from steelyard.trainers.shrinking import debug

Arm = Literal["low", "high", "adaptive"]
ARMS: tuple[Arm, ...] = ("low", "high", "adaptive")
SETTING = {"seeds": 2, "env_steps": 100_000}
"""The least at which the claims are judged."""
NEAR = 0.9
"""Share of the better fixed ratio's return that the adaptive one must reach."""
EPISODE = 1_000
"""Environment steps of an episode of dm-control."""
SOURCE = (
    "Ma et al. 2024, arXiv 2310.07418, for pixels; on states D'Oro et al. 2023 and released curves of SAC at ratio 32 on quadruped-run "
    "(202 against 849 at ratio 1, after 2M frames)"
)


@dataclass(frozen=True)
class AdaptiveRrState:
    """Adaptive replay ratio on states: it keeps the return where a high ratio hurts, and gains it where that helps."""

    tasks: tuple[str, ...] = ("quadruped-walk",)
    """dm-control tasks on which a high ratio is expected to hurt."""
    controls: tuple[str, ...] = ("cheetah-run",)
    """Tasks on which it is expected to help."""
    arms: tuple[Arm, ...] = ARMS
    """What is compared."""
    seeds: tuple[int, ...] = (0, 1)
    """Training seeds."""
    env_steps: int = SETTING["env_steps"]
    """Environment steps of each run."""
    low: float = 1.0
    """Updates per transition at first, and of the low arm."""
    high: float = 8.0
    """After the switch, and of the high arm."""
    action_repeat: int = 2
    """Environment steps per transition."""
    episodes: int = 10
    """Episodes between checks; each compares the means over all of them."""
    threshold: float = 0.003
    """Largest change of the fraction of active units between two checks that switches."""
    margin: float = 0.0
    """How far it must have recovered before (0.02 is safer than the published rule)."""
    width: int = 128
    """Width of the two hidden layers of actor and critic."""
    batch_size: int = 128
    """Transitions per update."""
    evaluations: int = 10
    """Evaluations in the course of a run; the mean of the last three is its score."""
    evaluation_episodes: int = 5
    """Episodes of each."""
    debug: bool = False
    """Shrink everything to a few seconds."""

    def obstacle(self) -> str | None:
        """It runs anywhere."""
        return None

    def scaled(self) -> str:
        """What is too little to judge a claim by."""
        changes = less(SETTING.values(), {"seeds": len(self.seeds), "environment steps": self.env_steps})
        changes += ["not all arms"] * (set(self.arms) != set(ARMS))
        return ", ".join([*changes, *["shrunk by --debug"] * self.debug])

    def runs(self) -> list[Run]:
        """One per task, arm and seed."""
        tasks = (*self.tasks, *self.controls)
        return [self.run(task, arm, seed) for task in tasks for arm in self.arms for seed in self.seeds]

    def run(self, task: str, arm: Arm, seed: int) -> Run:
        """One of them."""
        hidden = MLP((self.width, self.width))
        agent = dataclasses.replace(DMC["sac"].agent, actor=hidden, critic=hidden, batch_size=self.batch_size)
        between = 100 if self.debug else self.episodes * EPISODE // self.action_repeat
        adaptive = AdaptiveRatio(
            low=self.low,
            high=self.high,
            interval=between,
            window=between,
            threshold=self.threshold,
            margin=self.margin,
            every=4,
        )
        fixed = {"low": FixedRatio(self.low), "high": FixedRatio(self.high)}
        run = dataclasses.replace(
            DMC["sac"],
            task=task,
            preset={"low": f"ratio-{self.low:g}", "high": f"ratio-{self.high:g}", "adaptive": "adaptive"}[arm],
            agent=agent,
            seed=seed,
            env_steps=self.env_steps,
            action_repeat=self.action_repeat,
            random_steps=2_500,
            schedule=fixed.get(arm, adaptive),
            evaluation_interval=max(self.env_steps // self.evaluations, 1),
            evaluation_episodes=self.evaluation_episodes,
            log_interval=1_000,
            meter_interval=2_000,
            checkpoint_interval=max(self.env_steps // 5, 1),
            threads=1,
        )
        return debug(run) if self.debug else run

    def measure(self, workshop: Workshop) -> Outcome:
        """Train the runs and judge the claims by returns and by the fraction of active units."""
        runs = self.runs()
        curves = workshop.train(runs)
        active = meters(workshop, runs, METERS["active units of the critic"])
        table: list[dict[str, object]] = [
            self.row(task, arm, curves, active, workshop) for task in (*self.tasks, *self.controls) for arm in self.arms
        ]
        pictures = {"meters": picture(workshop, runs, curves, "meters")}
        return Outcome(self.claims(curves, active), curves, tables={"arms": table}, pictures=pictures)

    def label(self, task: str, arm: Arm) -> str:
        """The arm's runs in curves."""
        return self.run(task, arm, 0).preset

    def row(self, task: str, arm: Arm, curves: Curves, active: Curves, workshop: Workshop) -> dict[str, object]:
        """One line of the table; a switch is told in environment steps of each seed."""
        label = self.label(task, arm)
        found: dict[str, object] = {"task": task, "arm": label, "return": str(interval(late(curves, task, label), task))}
        found["active units at the end"] = f"{mean(at(active, task, label, float('inf'))):.3f}"
        adaptive = [self.run(task, arm, seed) for seed in self.seeds] if arm == "adaptive" else []
        found["switched at"] = ", ".join(self.switch(workshop, run) for run in adaptive)
        return found

    def switch(self, workshop: Workshop, run: Run) -> str:
        """Environment steps of the first row of train.csv with the high ratio."""
        (by_label,) = meters(workshop, [run], "schedule/ratio").values()
        (curve,) = next(iter(by_label.values())).values()
        high = curve.env_steps[curve.values > self.low]
        return f"{high[0]:,.0f}" if len(high) else "never"

    def claims(self, curves: Curves, active: Curves) -> list[Claim]:
        """Where a high ratio hurts, where it helps, and the adaptive one on both."""
        if set(self.arms) != set(ARMS):
            return []
        claims: list[Claim] = []
        for task in (*self.tasks, *self.controls):
            scores = {arm: late(curves, task, self.label(task, arm)) for arm in ARMS}
            low, high, adaptive = (mean(scores[arm]) for arm in ARMS)
            said = {arm: str(interval(values, task)) for arm, values in scores.items()}
            hurts = task in self.tasks
            claims.append(
                self.claim(
                    f"A ratio of {self.high:g} {'hurts' if hurts else 'helps'} on {task}.",
                    f"mean return {'at most' if hurts else 'at least'} that of a ratio of {self.low:g}",
                    f"{said['high']} against {said['low']}",
                    high <= low if hurts else high >= low,
                )
            )
            claims.append(
                self.claim(
                    f"The adaptive ratio is about as good as the better of the two on {task}.",
                    f"at least {NEAR:.0%} of it",
                    f"{said['adaptive']}, {adaptive / max(low, high, 1e-9):.0%}",
                    adaptive >= NEAR * max(low, high),
                )
            )
            if hurts:
                units = {arm: mean(at(active, task, self.label(task, arm), float("inf"))) for arm in ARMS}
                claims.append(
                    self.claim(
                        f"The critic's active units on {task} are fewest at a ratio of {self.high:g} and most at {self.low:g}.",
                        "high < adaptive < low at the end",
                        ", ".join(f"{arm} {value:.3f}" for arm, value in units.items()),
                        units["high"] < units["adaptive"] < units["low"],
                    )
                )
        return claims

    def claim(self, sentence: str, expected: str, measured: str, holds: bool) -> Claim:
        """One claim at this scale."""
        note = f"Scaled down ({self.scaled()})." if self.scaled() else ""
        return Claim(sentence, SOURCE, expected, measured, len(self.seeds), holds and not note, note)
