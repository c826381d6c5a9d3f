"""Training with bfloat16 matrix products beside float32."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch

from experiments.claim import Claim, Outcome, Workshop, final_scores, interval, less
from steelyard.agents.agent import has_native_bf16
from steelyard.trainers.config import Run
from steelyard.trainers.curves import Curves
from steelyard.trainers.presets import MUJOCO
from steelyard.trainers.shrinking import debug

SETTING = (3, 50_000)
"""Least seeds and environment steps at which the claim is judged."""


@dataclass(frozen=True)
class Bf16:
    """Matrix products in bfloat16 learn as well as in float32: the intervals of the final returns overlap."""

    task: str = "HalfCheetah-v5"
    """Gymnasium task to train on."""
    preset: Literal["sac", "simba-v2"] = "sac"
    """What to train."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Training seeds of each precision."""
    env_steps: int = SETTING[1]
    """Environment steps."""
    anyway: bool = False
    """Run although this machine emulates bfloat16, about a hundred times slower."""
    debug: bool = False
    """Shrink everything to a few seconds."""

    def obstacle(self) -> str | None:
        """A machine that only emulates bfloat16."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if has_native_bf16(device) or self.anyway or self.debug:
            return None
        return (
            "this machine has no hardware for bfloat16 matrix products (AVX512_BF16, AMX or a GPU) and emulates them, about a "
            "hundred times slower; run it elsewhere, or with --anyway and few --env-steps."
        )

    def runs(self) -> list[Run]:
        """One run per precision and seed."""
        return [self.run(precision, seed) for seed in self.seeds for precision in ("fp32", "bf16")]

    def run(self, precision: Literal["fp32", "bf16"], seed: int) -> Run:
        """One of them."""
        base = MUJOCO[self.preset]
        execution = dataclasses.replace(base.execution, precision=precision)
        run = dataclasses.replace(
            base, task=self.task, seed=seed, env_steps=self.env_steps, evaluation_interval=10_000, threads=1, execution=execution
        )
        run = debug(run) if self.debug else run
        return dataclasses.replace(run, preset=f"{run.preset}-{precision}")

    def measure(self, workshop: Workshop) -> Outcome:
        """Train the runs and judge the claims by their curves."""
        curves = workshop.train(self.runs())
        return Outcome(self.claims(curves), curves)

    def scaled(self) -> str:
        """What is too little to judge the claim by."""
        changes = less(SETTING, {"seeds": len(self.seeds), "environment steps": self.env_steps})
        changes += ["shrunk by --debug"] * self.debug
        return ", ".join(changes)

    def claims(self, curves: Curves) -> list[Claim]:
        """The one claim."""
        fp32, bf16 = (
            interval(final_scores(curves, self.task, self.run(precision, 0).preset), self.task) for precision in ("fp32", "bf16")
        )
        scaled = self.scaled()
        return [
            Claim(
                sentence="Matrix products in bfloat16, all else in float32, learn as well as float32 alone.",
                source="this suite's own claim (README, Speed)",
                expected="the 95 % intervals of the final returns overlap",
                measured=f"fp32 {fp32}, bf16 {bf16}",
                seeds=len(self.seeds),
                holds=fp32.low <= bf16.high and bf16.low <= fp32.high and not scaled,
                note=f"Scaled down ({scaled}): this shows nothing." if scaled else "",
            )
        ]
