"""Small models under distractors: what VaGraM's and the likelihood's models do to the policy that learns in them."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np

from experiments.claim import Claim, Outcome, Workshop, final_scores, less
from experiments.over_seeds import mean, show
from steelyard.agents.parts import Ensemble, Likelihood, SquaredError, ValueGradient
from steelyard.agents.parts.ensemble import ModelObjective
from steelyard.agents.sac import SAC
from steelyard.trainers.config import Run
from steelyard.trainers.curves import Curves
from steelyard.trainers.model_presets import PENDULUM, VAGRAM_DISTRACTED, VAGRAM_HOPPER, with_model
from steelyard.trainers.shrinking import debug
from steelyard.trainers.tables import Table

NARROW, WIDE, SQUARED, VAGRAM = "likelihood-0.5", "likelihood-5", "squared-error", "vagram"
OBJECTIVES: dict[str, ModelObjective] = {
    VAGRAM: ValueGradient(),
    NARROW: Likelihood(high=0.5),
    WIDE: Likelihood(high=5.0),
    SQUARED: SquaredError(),
}
SOURCE = "Voelcker et al. 2022 (VaGraM, arXiv 2204.01464), distractors and small models; the source shows curves and no numbers"


@dataclass(frozen=True)
class Difference:
    """One arm that is to beat another."""

    sentence: str
    """What is claimed."""
    better: str
    """Label of the arm that should score higher."""
    worse: str
    """Label of the other."""


def labelled(base: Run, name: str, distractors: int, seed: int) -> Run:
    """A run with one of the objectives, named after it and its distractors."""
    agent = base.agent
    assert isinstance(agent, SAC)
    assert isinstance(agent.model, Ensemble)
    warm = agent.model.objective.warmup_fits if isinstance(agent.model.objective, ValueGradient) else 4
    objective = ValueGradient(warmup_fits=warm) if name == VAGRAM else OBJECTIVES[name]
    run = with_model(base, label(name, distractors), objective=objective)
    return dataclasses.replace(run, distractors=distractors, seed=seed, threads=1)


def label(name: str, distractors: int) -> str:
    """What the run is called."""
    return f"{name}-{distractors}-distractors"


def judge(curves: Curves, task: str, wanted: list[Difference], seeds: int, scaled: str) -> list[Claim]:
    """Final returns of two arms for each difference."""
    claims = []
    for difference in wanted:
        high, low = (final_scores(curves, task, name) for name in (difference.better, difference.worse))
        common = sorted(set(high) & set(low))
        gap = mean(np.array([high[seed] - low[seed] for seed in common]))
        claims.append(
            Claim(
                sentence=difference.sentence,
                source=SOURCE,
                expected="the final returns of the same seeds differ in this direction, on average",
                measured=f"{show(mean(list(high.values())))} against {show(mean(list(low.values())))}, difference {show(gap)}",
                seeds=seeds,
                holds=gap.value > 0 and not scaled,
                note=f"Scaled down ({scaled})." if scaled else "",
            )
        )
    return claims


def shares(workshop: Workshop, runs: list[Run]) -> list[dict[str, object]]:
    """What is left of the value gradient for distractors at the end of VaGraM's runs: a critic that leaks takes VaGraM its edge."""
    rows: list[dict[str, object]] = []
    for run in runs:
        if run.preset.startswith(VAGRAM) and run.distractors:
            last = Table(workshop.run_folder(run) / "train.csv").last("model/distractor_share")
            shown = "-" if last is None else f"{last:.2f}"
            rows.append({"run": run.preset, "seed": run.seed, "share of squared gradients in distractors": shown})
    return rows


@dataclass(frozen=True)
class VagramPendulum:
    """Pendulum with and without distractors, small models: likelihood and squared error beside VaGraM, in returns."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds."""
    env_steps: int = 10_000
    """Environment steps."""
    distractors: tuple[int, ...] = (0, 10)
    """Numbers of distractors; the first one is compared with the last."""
    objectives: tuple[str, ...] = (SQUARED, NARROW, WIDE, VAGRAM)
    """What models are fitted to."""
    updates: float = 10.0
    """Updates per step."""
    debug: bool = False
    """Shrink everything to a few seconds."""

    def obstacle(self) -> str | None:
        """It runs anywhere."""
        return None

    def scaled(self) -> str:
        """What is less than the claims demand."""
        given = {"environment steps": self.env_steps, "seeds": len(self.seeds), "updates per step": self.updates}
        changes = less((10_000, 3, 10), given)
        changes += ["shrunk by --debug"] * self.debug
        return ", ".join(changes)

    def runs(self) -> list[Run]:
        """One per number of distractors, objective and seed."""
        schedule = dataclasses.replace(PENDULUM.schedule, ratio=self.updates)
        base = dataclasses.replace(PENDULUM, env_steps=self.env_steps, schedule=schedule)
        runs = [
            labelled(base, name, count, seed) for count in self.distractors for name in self.objectives for seed in self.seeds
        ]
        return [named(debug(run), run) if self.debug else run for run in runs]

    def measure(self, workshop: Workshop) -> Outcome:
        """Train all and compare final returns."""
        runs = self.runs()
        curves = workshop.train(runs)
        many = self.distractors[-1]
        wanted = [
            Difference(
                f"With {many} distractors VaGraM's model serves the policy better than the one of {name}.",
                label(VAGRAM, many),
                label(name, many),
            )
            for name in (SQUARED, NARROW)
            if name in self.objectives and VAGRAM in self.objectives
        ]
        claims = judge(curves, PENDULUM.task, wanted, len(self.seeds), self.scaled())
        tables = {"distractor_shares": found} if (found := shares(workshop, runs)) else {}
        return Outcome(claims, curves, tables=tables)


@dataclass(frozen=True)
class VagramHopper:
    """Hopper with a model of two hidden layers of 64, with and without distractors: likelihood (narrow and wide) beside VaGraM, in returns."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds."""
    env_steps: int = 60_000
    """Environment steps."""
    hidden: tuple[int, ...] = (64, 64)
    """Hidden layers of the model."""
    distractors: tuple[int, ...] = (0, 15)
    """Numbers of distractors."""
    objectives: tuple[str, ...] = (NARROW, WIDE, VAGRAM)
    """What models are fitted to."""
    updates: float = 20.0
    """Updates per step."""
    width: int = 1024
    """Width of critics and policy."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Matrix products; auto takes bf16 where the hardware has it."""
    debug: bool = False
    """Shrink everything to a few seconds."""

    def obstacle(self) -> str | None:
        """It runs anywhere, slowly without a GPU."""
        return None

    def scaled(self) -> str:
        """What is less than the claims demand."""
        given = {"environment steps": self.env_steps, "seeds": len(self.seeds), "updates per step": self.updates}
        changes = less((60_000, 3, 20), given)
        changes += [f"networks {self.width} instead of 1024 wide"] * (self.width < 1024)
        changes += ["shrunk by --debug"] * self.debug
        return ", ".join(changes)

    def runs(self) -> list[Run]:
        """One per number of distractors, objective and seed."""
        agent = VAGRAM_HOPPER.agent
        assert isinstance(agent, SAC)
        width = (self.width, self.width)
        networks = {name: dataclasses.replace(getattr(agent, name), hidden=width) for name in ("actor", "critic")}
        base = dataclasses.replace(
            with_model(VAGRAM_HOPPER, VAGRAM_HOPPER.preset, hidden=self.hidden),
            env_steps=self.env_steps,
            schedule=dataclasses.replace(VAGRAM_HOPPER.schedule, ratio=self.updates),
            execution=dataclasses.replace(VAGRAM_HOPPER.execution, precision=self.precision),
        )
        model = base.agent.model  # pyright: ignore[reportAttributeAccessIssue]
        base = dataclasses.replace(base, agent=dataclasses.replace(agent, model=model, **networks))
        distracted = dataclasses.replace(base, imagination=VAGRAM_DISTRACTED.imagination)  # the authors' schedules there
        runs = [
            labelled(distracted if count else base, name, count, seed)
            for count in self.distractors
            for name in self.objectives
            for seed in self.seeds
        ]
        return [named(debug(run), run) if self.debug else run for run in runs]

    def measure(self, workshop: Workshop) -> Outcome:
        """Train all and compare final returns."""
        runs = self.runs()
        curves = workshop.train(runs)
        wanted = [
            Difference(
                f"With {count} distractors and a model of {'x'.join(map(str, self.hidden))}, VaGraM's policy is better than {name}'s.",
                label(VAGRAM, count),
                label(name, count),
            )
            for count in self.distractors
            for name in self.objectives
            if name != VAGRAM and VAGRAM in self.objectives
        ]
        claims = judge(curves, VAGRAM_HOPPER.task, wanted, len(self.seeds), self.scaled())
        tables = {"distractor_shares": found} if (found := shares(workshop, runs)) else {}
        return Outcome(claims, curves, tables=tables)


def named(shrunk: Run, run: Run) -> Run:
    """A shrunk run under the name of the whole one, by which claims find it."""
    return dataclasses.replace(shrunk, preset=run.preset)
