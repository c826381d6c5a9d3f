"""How many steps of Hopper a learned model saves."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np

from experiments.claim import Claim, Outcome, Workshop, less
from experiments.vagram_control import named
from steelyard.trainers.config import Run
from steelyard.trainers.curves import Curves
from steelyard.trainers.model_presets import MODELS
from steelyard.trainers.presets import MUJOCO
from steelyard.trainers.shrinking import debug
from steelyard.trainers.statistics import Curve

TASK = "Hopper-v5"
SOURCE = (
    "Janner et al. 2019 (MBPO, arXiv 1906.08253), figure 2: about an order of magnitude fewer samples than SAC; read off curves"
)
FEWEST = (2, 20.0)
"""Least seeds and updates per step at which the claims are judged. Steps are not among them: a return that is reached stays reached
in a longer run, and one that MBPO misses in a shorter run counts against it."""


def samples_to(curve: Curve, level: float) -> float:
    """Steps of the first evaluation that reaches a return; infinity if none does."""
    reached = np.asarray(curve.values) >= level
    return float(np.asarray(curve.env_steps)[reached.argmax()]) if bool(reached.any()) else float("inf")


@dataclass(frozen=True)
class MbpoHopper:
    """MBPO beside SAC on Hopper: environment steps to a return of 1000 and of 2000."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds."""
    env_steps: int = 125_000
    """Environment steps of MBPO."""
    sac_steps: int = 500_000
    """Environment steps of SAC."""
    levels: tuple[float, ...] = (1000.0, 2000.0)
    """Returns to reach."""
    updates: float = 20.0
    """MBPO's updates per step."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Matrix products of both; auto takes bf16 where the hardware has it."""
    debug: bool = False
    """Shrink everything to a few seconds."""

    def obstacle(self) -> str | None:
        """It runs anywhere, slowly without a GPU."""
        return None

    def scaled(self) -> str:
        """What is less than the claims demand."""
        changes = less(FEWEST, {"seeds": len(self.seeds), "updates per step": self.updates})
        return ", ".join([*changes, *["shrunk by --debug"] * self.debug])

    def runs(self) -> list[Run]:
        """Both, for every seed."""
        mbpo, sac = MODELS["mbpo-hopper"], MUJOCO["sac"]
        schedule = dataclasses.replace(mbpo.schedule, ratio=self.updates)
        mbpo = dataclasses.replace(mbpo, env_steps=self.env_steps, schedule=schedule)
        sac = dataclasses.replace(sac, task=TASK, env_steps=self.sac_steps, evaluation_interval=5_000)
        execution = dataclasses.replace(mbpo.execution, precision=self.precision)
        runs = [dataclasses.replace(run, seed=seed, threads=1, execution=execution) for run in (mbpo, sac) for seed in self.seeds]
        return [named(debug(run), run) if self.debug else run for run in runs]

    def measure(self, workshop: Workshop) -> Outcome:
        """Train both and compare."""
        curves = workshop.train(self.runs())
        return Outcome(self.claims(curves), curves)

    def claims(self, curves: Curves) -> list[Claim]:
        """One per return: MBPO is there with half of SAC's steps or fewer, in the median over seeds; where SAC is never there, of all its steps."""
        claims, scaled = [], self.scaled()
        for level in self.levels:
            found = {name: [samples_to(curve, level) for curve in curves[TASK][name].values()] for name in ("mbpo-hopper", "sac")}
            own, other = (float(np.median(values)) for values in found.values())
            shown = {name: ", ".join(map(steps, sorted(values))) for name, values in found.items()}
            claims.append(
                Claim(
                    sentence=f"MBPO reaches a return of {level:,.0f} on Hopper with a fraction of SAC's samples.",
                    source=SOURCE,
                    expected="median over seeds at most half of SAC's, or of all of SAC's steps where SAC does not reach it",
                    measured=f"after {steps(own)} ({shown['mbpo-hopper']}) against {steps(other)} ({shown['sac']}) steps",
                    seeds=len(self.seeds),
                    holds=own <= min(other, self.sac_steps) / 2 and not scaled,
                    note=f"Scaled down ({scaled})." if scaled else "",
                )
            )
        return claims


def steps(samples: float) -> str:
    """A number of steps, or that the return was not reached."""
    return f"{samples:,.0f}" if samples < float("inf") else "more than were made"
