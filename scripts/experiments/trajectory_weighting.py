"""Trajectory weighting on mixtures of good and random trajectories, under three offline algorithms."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from experiments.behaviours import behaviour, mixture
from experiments.claim import Claim, Outcome, Workshop, final_scores, interval
from steelyard.agents.networks import MLP
from steelyard.envs.d4rl_table import normalized_score
from steelyard.trainers.config import SamplerSlot, Transfer, debug
from steelyard.trainers.curves import Curves
from steelyard.trainers.d4rl_presets import D4RL
from steelyard.trainers.samplers import Uniform
from steelyard.trainers.statistics import Interval
from steelyard.trainers.trajectory_samplers import TopFraction, TrajectoryWeighted

SOURCE = "Hong et al. 2023, README tables of the released code"
PUBLISHED = {
    ("td3-bc", "HalfCheetah-v4", 0.05): (20.6, 50.2),
    ("td3-bc", "HalfCheetah-v4", 0.10): (25.9, 78.4),
    ("iql", "HalfCheetah-v4", 0.05): (9.1, 74.0),
    ("iql", "HalfCheetah-v4", 0.10): (17.0, 91.3),
    ("cql", "HalfCheetah-v4", 0.05): (24.8, 66.2),
    ("cql", "HalfCheetah-v4", 0.10): (31.7, 72.6),
    ("td3-bc", "Hopper-v4", 0.05): (31.0, 97.3),
    ("iql", "Hopper-v4", 0.05): (22.7, 111.3),
    ("cql", "Hopper-v4", 0.05): (16.3, 99.7),
}
"""Normalised score (uniform, AW) with D4RL's expert, where it was published for the single data set."""
TEMPERATURE = {"td3-bc": 0.1, "iql": 0.1, "cql": 0.2}
SETTING = (3, 10_000)
"""Least seeds and updates at which a claim is judged."""
Algorithm = Literal["td3-bc", "iql", "cql"]


def samplers(algorithm: Algorithm) -> dict[str, SamplerSlot]:
    """What is compared."""
    return {
        "uniform": Uniform(),
        "aw": TrajectoryWeighted("advantage", TEMPERATURE[algorithm]),
        "top10": TopFraction(0.1),
    }


@dataclass(frozen=True)
class TrajectoryWeighting:
    """Weighting trajectories by their advantage lifts offline algorithms on data in which few trajectories are good."""

    tasks: tuple[str, ...] = ("HalfCheetah-v4", "Hopper-v4")
    """Locomotion tasks."""
    ratios: tuple[float, ...] = (0.05, 0.10)
    """Shares of good transitions."""
    algorithms: tuple[Algorithm, ...] = ("td3-bc", "iql", "cql")
    """Offline algorithms."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds."""
    updates: int = 10_000
    """Updates of each run; published: a million."""
    transitions: int = 200_000
    """Size of each mixture; published: a million."""
    behaviour_steps: int = 100_000
    """Environment steps for which the good behaviour, SAC, is trained; published: D4RL's experts."""
    behaviour_seed: int = 1
    """Its seed."""
    width: int = 64
    """Width of the two hidden layers; published: 256."""
    debug: bool = False
    """Shrink everything to a few seconds."""

    def obstacle(self) -> str | None:
        """It runs anywhere."""
        return None

    def scaled(self) -> str:
        """What is too little to judge a claim by."""
        seeds, updates = SETTING
        changes = [f"{len(self.seeds)} instead of {seeds} seeds or more"] * (len(self.seeds) < seeds)
        changes += [f"{self.updates:,} instead of {updates:,} updates or more"] * (self.updates < updates)
        changes += ["shrunk by --debug"] * self.debug
        return ", ".join(changes)

    def measure(self, workshop: Workshop) -> Outcome:
        """Train the behaviour, mix the data, train every algorithm with every sampler."""
        experts = {task: behaviour(task, self.behaviour_steps, self.behaviour_seed, self.debug) for task in self.tasks}
        good = workshop.train(list(experts.values()))
        transitions = 4_000 if self.debug else self.transitions
        runs = [
            self.run(task, ratio, algorithm, sampler, seed, str(mixture(workshop, experts[task], ratio, transitions)))
            for task in self.tasks
            for ratio in self.ratios
            for algorithm in self.algorithms
            for sampler in samplers(algorithm)
            for seed in self.seeds
        ]
        curves = workshop.train(runs)
        combinations: list[tuple[str, float, Algorithm]] = [
            (t, r, a) for t in self.tasks for r in self.ratios for a in self.algorithms
        ]
        claims = [self.claim(*combination, curves) for combination in combinations]
        table = [self.row(*combination, curves, good, experts) for combination in combinations]
        return Outcome(claims, curves, {"scores": table})

    def label(self, ratio: float, algorithm: Algorithm, sampler: str) -> str:
        """Name of a run's recipe."""
        return f"{algorithm}-{ratio:g}-{sampler}" + "-debug" * self.debug

    def run(self, task: str, ratio: float, algorithm: Algorithm, sampler: str, seed: int, data: str) -> Transfer:
        """One of them."""
        base, small = D4RL[f"{algorithm}-locomotion"], MLP((self.width, self.width), gain=2**0.5, output_gain=1.0)
        networks: dict[str, Any] = {name: small for name in ("actor", "critic", "value") if hasattr(base.agent, name)}
        run = dataclasses.replace(
            base,
            task=task,
            preset=f"{algorithm}-{ratio:g}-{sampler}",
            agent=dataclasses.replace(base.agent, **networks),
            dataset=data,
            seed=seed,
            sampler=samplers(algorithm)[sampler],
            offline_updates=self.updates,
            evaluation_interval=max(self.updates // 2, 1),
            checkpoint_interval=self.updates,
            threads=1,
            log_to=(),
        )
        return debug(run) if self.debug else run

    def scores(self, task: str, ratio: float, algorithm: Algorithm, sampler: str, curves: Curves) -> Interval:
        """Normalised final scores over seeds."""
        finals = final_scores(curves, task, self.label(ratio, algorithm, sampler))
        return interval({seed: normalized_score("", value, task) or 0.0 for seed, value in finals.items()}, task)

    def claim(self, task: str, ratio: float, algorithm: Algorithm, curves: Curves) -> Claim:
        """AW above uniform, the intervals apart."""
        uniform, weighted, top = (self.scores(task, ratio, algorithm, name, curves) for name in ("uniform", "aw", "top10"))
        published = PUBLISHED.get((algorithm, task, ratio))
        said = f" from {published[0]} to {published[1]}" if published else ""
        scaled = self.scaled()
        return Claim(
            sentence=f"AW lifts {algorithm} on {task} with {ratio:.0%} good transitions{said}.",
            source=SOURCE,
            expected="AW above uniform, 95 % intervals apart",
            measured=f"uniform {uniform}, AW {weighted}, top 10 % {top}",
            seeds=len(self.seeds),
            holds=weighted.low > uniform.high and not scaled,
            note=f"Scaled down ({scaled}): this shows nothing." if scaled else "",
        )

    def row(
        self, task: str, ratio: float, algorithm: Algorithm, curves: Curves, good: Curves, experts: dict[str, Any]
    ) -> dict[str, object]:
        """One line of the table."""
        expert = final_scores(good, task, experts[task].preset)[experts[task].seed]
        found = {name: str(self.scores(task, ratio, algorithm, name, curves)) for name in samplers(algorithm)}
        behaviour_score = normalized_score("", expert, task) or 0.0
        return {"task": task, "good": f"{ratio:.0%}", "algorithm": algorithm, **found, "behaviour": f"{behaviour_score:.1f}"}
