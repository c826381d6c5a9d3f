"""SimbaV2 at its published size on two tasks of the dm-control suite."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from experiments.claim import Claim, Outcome, Published, Workshop, final_scores, interval
from steelyard.agents.networks import SimbaV2
from steelyard.trainers.config import Run
from steelyard.trainers.curves import Curves
from steelyard.trainers.presets import DMC
from steelyard.trainers.shrinking import debug

PUBLISHED = {"walker-run": Published(680, 23, 10), "cheetah-run": Published(642, 124, 10)}
SOURCE = "Lee et al. 2025, arXiv 2502.15280, released results (UTD 2), recomputed from the ten seeds"
PUBLISHED_STEPS, PUBLISHED_LENGTH = 100_000, 1_000_000


@dataclass(frozen=True)
class SimbaV2Dmc:
    """SimbaV2 (SAC, actor 128 x 1, critic 512 x 2) learns walker-run and cheetah-run as fast as published."""

    seeds: tuple[int, ...] = (0, 1)
    """Training seeds."""
    env_steps: int = PUBLISHED_STEPS
    """Environment steps; fewer than published cannot pass as the published claim."""
    width: int = 512
    """Width of the critic; the actor's is a quarter of it. Less than published cannot pass as the published claim."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Matrix products; auto takes bf16 where the hardware has it."""
    debug: bool = False
    """Shrink everything to a few seconds."""

    def obstacle(self) -> str | None:
        """It runs anywhere."""
        return None

    def runs(self) -> list[Run]:
        """One run per task and seed, at the published learning rates: those of the first part of a run ten times as long."""
        return [self.run(task, seed) for task in PUBLISHED for seed in self.seeds]

    def run(self, task: str, seed: int) -> Run:
        """One of them."""
        base = DMC["simba-v2"]
        execution = dataclasses.replace(base.execution, precision=self.precision)
        run = dataclasses.replace(
            base, task=task, seed=seed, env_steps=self.env_steps, evaluation_interval=10_000, threads=1, execution=execution
        )
        published = dataclasses.replace(run, env_steps=PUBLISHED_LENGTH)
        adam = base.agent.optimizer
        first, final = adam.learning_rate, adam.final_learning_rate or adam.learning_rate
        here = first + (final - first) * run.total_updates / published.total_updates
        agent = dataclasses.replace(
            base.agent,
            optimizer=dataclasses.replace(adam, final_learning_rate=here),
            actor=SimbaV2(self.width // 4, 1),
            critic=SimbaV2(self.width, 2),
        )
        run = dataclasses.replace(run, agent=agent, preset="simba-v2" if self.width == 512 else f"simba-v2-{self.width}")
        return debug(run) if self.debug else run

    def measure(self, workshop: Workshop) -> Outcome:
        """Train the runs and judge the claims by their curves."""
        curves = workshop.train(self.runs())
        return Outcome(self.claims(curves), curves)

    def scaled(self) -> str:
        """What is less than published."""
        changes = [f"{self.env_steps:,} instead of {PUBLISHED_STEPS:,} environment steps"] * (self.env_steps != PUBLISHED_STEPS)
        changes += [f"critic width {self.width} instead of 512"] * (self.width != 512)
        changes += ["shrunk by --debug"] * self.debug
        return ", ".join(changes)

    def claims(self, curves: Curves) -> list[Claim]:
        """One per task."""
        return [self.claim(task, curves) for task in PUBLISHED]

    def claim(self, task: str, curves: Curves) -> Claim:
        """Mean return after 100,000 steps, against what as many more seeds of the source's would have reached."""
        scores, published, scaled = final_scores(curves, task, self.run(task, 0).preset), PUBLISHED[task], self.scaled()
        bound, measured = published.lowest(len(scores)), interval(scores, task)
        return Claim(
            sentence=f"SimbaV2 reaches a mean return of {published.mean:.0f} on {task} after {PUBLISHED_STEPS:,} steps.",
            source=SOURCE,
            expected=f"{published.mean:.0f}, deviation {published.deviation:.0f} over {published.seeds} seeds; "
            f"the mean of {len(scores)} more lies above {bound:.0f}",
            measured=str(measured),
            seeds=len(scores),
            holds=measured.value >= bound and not scaled,
            note=f"Scaled down ({scaled}): this is not the published setting and cannot confirm it." if scaled else "",
        )
