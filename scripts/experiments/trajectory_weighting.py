"""Trajectory weighting on mixtures of good and random trajectories, under three offline algorithms."""

import dataclasses
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from experiments.behaviours import Good, behaviour, given, good_recording, mixture, mixture_path, trained
from experiments.claim import Claim, Outcome, Workshop, final_scores, interval, less
from experiments.training import finished
from steelyard.agents.networks import MLP
from steelyard.envs.d4rl_table import normalized_score
from steelyard.trainers.config import SamplerSlot, Transfer
from steelyard.trainers.curves import Curves
from steelyard.trainers.d4rl_presets import D4RL
from steelyard.trainers.samplers import Uniform
from steelyard.trainers.shrinking import debug
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
Drawn = Literal["uniform", "aw", "top10"]
Cell = tuple[str, float, Algorithm]
"""Task, share of good transitions, algorithm: one claim."""
GRID: tuple[tuple[str, ...], tuple[float, ...], tuple[Algorithm, ...], tuple[Drawn, ...]] = (
    ("HalfCheetah-v4", "Hopper-v4"),
    (0.05, 0.10),
    ("td3-bc", "iql", "cql"),
    ("uniform", "aw", "top10"),
)
"""The whole of it."""
MOST_SEEDS = 10
"""Seeds below this are looked for among finished runs."""


def sampler(algorithm: Algorithm, drawn: Drawn) -> SamplerSlot:
    """How batches are drawn."""
    match drawn:
        case "uniform":
            return Uniform()
        case "aw":
            return TrajectoryWeighted("advantage", TEMPERATURE[algorithm])
        case "top10":
            return TopFraction(0.1)


@dataclass(frozen=True)
class TrajectoryWeighting:
    """Weighting trajectories by their advantage lifts offline algorithms on data in which few trajectories are good."""

    tasks: tuple[str, ...] = GRID[0]
    """Locomotion tasks."""
    ratios: tuple[float, ...] = GRID[1]
    """Shares of good transitions."""
    algorithms: tuple[Algorithm, ...] = GRID[2]
    """Offline algorithms."""
    samplers: tuple[Drawn, ...] = GRID[3]
    """How batches are drawn: uniformly, weighted by advantage, or from the best tenth of trajectories. Subsets add up: what earlier launches with
    the same other options have finished is reported too."""
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
    behaviours: tuple[str, ...] = ()
    """Good behaviours to use instead, one for each task: run folders or npz files of weights, as `make_dataset.py record` takes them."""
    width: int = 64
    """Width of the two hidden layers; published: 256."""
    debug: bool = False
    """Shrink everything to a few seconds."""

    def obstacle(self) -> str | None:
        """Behaviours must fit the tasks."""
        if self.behaviours and len(self.behaviours) != len(self.tasks):
            return f"{len(self.behaviours)} behaviours were given for {len(self.tasks)} tasks; give one for each task, or none."
        return None

    def scaled(self) -> str:
        """What is too little to judge a claim by."""
        changes = less(SETTING, {"seeds": len(self.seeds), "updates": self.updates})
        changes += [f"only batches drawn by {' and '.join(self.samplers)}"] * (not {"uniform", "aw"} <= set(self.samplers))
        changes += ["shrunk by --debug"] * self.debug
        return ", ".join(changes)

    def measure(self, workshop: Workshop) -> Outcome:
        """Train the behaviour, mix the data, train every algorithm with every sampler."""
        good = self.good(workshop)
        for task in self.tasks:
            for ratio in self.ratios:
                mixture(workshop, good[task], ratio, self.size)
        asked = [
            self.run(workshop, good[task], ratio, algorithm, drawn, seed)
            for task in self.tasks
            for ratio in self.ratios
            for algorithm in self.algorithms
            for drawn in self.samplers
            for seed in self.seeds
        ]
        workshop.train(asked)
        earlier = self.earlier(workshop, good)
        curves = workshop.train([*asked, *(run for run in earlier if run not in asked)])
        cells = [cell for cell in self.cells() if self.complete(cell, good, curves)]
        claims = [self.claim(cell, good[cell[0]], curves) for cell in cells]
        table = [self.row(cell, good[cell[0]], curves, workshop) for cell in cells]
        return Outcome(claims, curves, {"scores": table})

    @property
    def size(self) -> int:
        """Transitions of a mixture."""
        return 4_000 if self.debug else self.transitions

    def good(self, workshop: Workshop) -> dict[str, Good]:
        """The good behaviour of each task of the grid and of those asked for; those asked for are trained if they are not."""
        if self.behaviours:
            return {task: given(task, source) for task, source in zip(self.tasks, self.behaviours, strict=True)}
        runs = {task: behaviour(task, self.behaviour_steps, self.behaviour_seed, self.debug) for task in (*GRID[0], *self.tasks)}
        workshop.train([runs[task] for task in self.tasks])
        return {task: trained(workshop, run) for task, run in runs.items()}

    def cells(self) -> list[Cell]:
        """Whatever may have been measured, in order."""
        tasks, ratios, algorithms, _ = GRID
        return list(
            product(
                dict.fromkeys((*tasks, *self.tasks)),
                dict.fromkeys((*ratios, *self.ratios)),
                dict.fromkeys((*algorithms, *self.algorithms)),
            )
        )

    def earlier(self, workshop: Workshop, good: dict[str, Good]) -> list[Transfer]:
        """What is finished of the whole grid, with these options but for tasks, ratios, algorithms, samplers and seeds."""
        runs = (
            self.run(workshop, good[task], ratio, algorithm, drawn, seed)
            for task, ratio, algorithm in self.cells()
            if task in good
            for drawn in GRID[3]
            for seed in range(MOST_SEEDS)
        )
        return [run for run in runs if finished(run, workshop.folder)]

    def complete(self, cell: Cell, good: dict[str, Good], curves: Curves) -> bool:
        """Whether there is something to compare: AW and uniform, and if the cell was not asked for, with enough seeds."""
        task, ratio, algorithm = cell
        if task not in good:
            return False
        seeds = [
            len(curves.get(task, {}).get(self.label(good[task], ratio, algorithm, drawn), {})) for drawn in ("uniform", "aw")
        ]
        asked = task in self.tasks and ratio in self.ratios and algorithm in self.algorithms
        return min(seeds) >= (1 if asked else SETTING[0])

    def preset(self, good: Good, ratio: float, algorithm: Algorithm, drawn: Drawn) -> str:
        """Name of a run's recipe."""
        return "-".join((algorithm, f"{ratio:g}", drawn, *([good.label] if self.behaviours else [])))

    def label(self, good: Good, ratio: float, algorithm: Algorithm, drawn: Drawn) -> str:
        """The same in curves."""
        return self.preset(good, ratio, algorithm, drawn) + "-debug" * self.debug

    def run(self, workshop: Workshop, good: Good, ratio: float, algorithm: Algorithm, drawn: Drawn, seed: int) -> Transfer:
        """One of them."""
        base, small = D4RL[f"{algorithm}-locomotion"], MLP((self.width, self.width), gain=2**0.5, output_gain=1.0)
        networks: dict[str, Any] = {name: small for name in ("actor", "critic", "value") if hasattr(base.agent, name)}
        run = dataclasses.replace(
            base,
            task=good.task,
            preset=self.preset(good, ratio, algorithm, drawn),
            agent=dataclasses.replace(base.agent, **networks),
            dataset=str(mixture_path(workshop, good, ratio, self.size)),
            seed=seed,
            sampler=sampler(algorithm, drawn),
            offline_updates=self.updates,
            evaluation_interval=max(self.updates // 2, 1),
            checkpoint_interval=self.updates,
            threads=1,
            log_to=(),
        )
        if self.debug:
            run = debug(run)
            run = dataclasses.replace(
                run, evaluation_interval=run.total_steps
            )  # it counts as finished once the end was evaluated
        return run

    def scores(self, cell: Cell, good: Good, curves: Curves) -> dict[Drawn, Interval]:
        """Normalised final scores over seeds of each way of drawing that was measured; over the same seeds where they were compared."""
        task, ratio, algorithm = cell
        labels: dict[Drawn, str] = {drawn: self.label(good, ratio, algorithm, drawn) for drawn in GRID[3]}
        finals: dict[Drawn, dict[int, float]] = {
            drawn: final_scores(curves, task, label) for drawn, label in labels.items() if label in curves[task]
        }
        shared = set(finals["uniform"]) & set(finals["aw"])
        return {
            drawn: interval(
                {seed: normalized_score("", value, task) or 0.0 for seed, value in found.items() if seed in shared}, task
            )
            for drawn, found in finals.items()
            if shared & set(found)
        }

    def claim(self, cell: Cell, good: Good, curves: Curves) -> Claim:
        """AW above uniform, the intervals apart."""
        task, ratio, algorithm = cell
        scores = self.scores(cell, good, curves)
        uniform, weighted = scores["uniform"], scores["aw"]
        labels = [self.label(good, ratio, algorithm, drawn) for drawn in ("uniform", "aw")]
        seeds = len(set(curves[task][labels[0]]) & set(curves[task][labels[1]]))
        published = PUBLISHED.get((algorithm, task, ratio))
        said = f" from {published[0]} to {published[1]}" if published else ""
        scaled = self.scaled()
        top = f", top 10 % {scores['top10']}" if "top10" in scores else ""
        return Claim(
            sentence=f"AW lifts {algorithm} on {task} with {ratio:.0%} good transitions{said}.",
            source=SOURCE,
            expected="AW above uniform, 95 % intervals apart",
            measured=f"uniform {uniform}, AW {weighted}{top}",
            seeds=seeds,
            holds=weighted.low > uniform.high and not scaled,
            note=f"Scaled down ({scaled}): this shows nothing." if scaled else "",
        )

    def row(self, cell: Cell, good: Good, curves: Curves, workshop: Workshop) -> dict[str, object]:
        """One line of the table; the behaviour's score is that of its recording, which explores."""
        task, ratio, algorithm = cell
        scores = self.scores(cell, good, curves)
        found = {drawn: str(scores[drawn]) if drawn in scores else "not run" for drawn in GRID[3]}
        played = normalized_score("", float(good_recording(workshop, good, self.size).returns.mean()), task) or 0.0
        return {"task": task, "good": f"{ratio:.0%}", "algorithm": algorithm, **found, "behaviour": f"{played:.1f}"}
