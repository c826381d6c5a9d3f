"""What the offline experiments compare, and when their claims hold."""

import dataclasses
import importlib
from pathlib import Path

import numpy as np
import pytest

from steelyard.envs.d4rl_table import normalized_score
from steelyard.trainers.config import Transfer
from steelyard.trainers.samplers import Uniform
from steelyard.trainers.statistics import Curve
from steelyard.trainers.trajectory_samplers import TopFraction, TrajectoryWeighted

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


def curves(task: str, finals: dict[str, list[float]]):
    steps = np.array([5_000.0, 10_000.0])
    return {
        task: {
            label: {seed: Curve(steps, np.array([0.0, last])) for seed, last in enumerate(scores)}
            for label, scores in finals.items()
        }
    }


def test_point_mass_reproduces_its_prototype_and_takes_fewer_seeds_for_nothing(imported):
    module = imported("experiments.point_mass")
    assert module.score(0.1, "AW 0.1", 0) > module.score(0.1, "uniform", 0) + 30
    scaled = module.PointMass(seeds=(0,)).measure(None)
    assert not any(claim.holds for claim in scaled.claims)
    assert len(scaled.tables["scores"]) == 4 * 5


def test_a_linear_clone_of_the_expert_alone_scores_as_the_expert(imported):
    assert imported("experiments.point_mass").score(1.0, "uniform", 0) == pytest.approx(100, abs=8)


CELL = ("HalfCheetah-v4", 0.1, "iql")


@pytest.mark.parametrize(("weighted", "holds"), [([4000.0, 4100.0, 4200.0], True), ([900.0, 2000.0, 4200.0], False)])
def test_weighting_holds_if_the_intervals_are_apart(imported, weighted: list[float], holds: bool):
    module = imported("experiments.trajectory_weighting")
    experiment = module.TrajectoryWeighting(tasks=("HalfCheetah-v4",), ratios=(0.1,), algorithms=("iql",))
    good = module.Good("HalfCheetah-v4", "somewhere", "sac")
    finals = {"iql-0.1-uniform": [800.0, 1000.0, 1200.0], "iql-0.1-aw": weighted, "iql-0.1-top10": [0.0, 0.0, 0.0]}
    claim = experiment.claim(CELL, good, curves("HalfCheetah-v4", finals))
    assert claim.holds is holds
    assert claim.seeds == 3
    assert f"{normalized_score('', float(np.mean(weighted)), 'HalfCheetah-v4'):.1f}" in claim.measured
    for few in ({"updates": 100}, {"seeds": (0, 1)}, {"samplers": ("aw",)}):
        assert not dataclasses.replace(experiment, **few).claim(CELL, good, curves("HalfCheetah-v4", finals)).holds


def test_weighting_compares_equal_seeds_and_says_what_was_not_run(imported):
    module = imported("experiments.trajectory_weighting")
    experiment, good = module.TrajectoryWeighting(seeds=(0,)), module.Good("HalfCheetah-v4", "somewhere", "sac")
    measured = curves("HalfCheetah-v4", {"iql-0.1-uniform": [0.0, 200.0, 400.0], "iql-0.1-aw": [1000.0, 1000.0]})
    scores = experiment.scores(CELL, good, measured)
    assert set(scores) == {"uniform", "aw"}
    assert scores["uniform"].value == pytest.approx(normalized_score("", 100.0, "HalfCheetah-v4"))
    assert experiment.claim(CELL, good, measured).seeds == 2
    assert experiment.complete(CELL, {"HalfCheetah-v4": good}, measured)
    assert not experiment.complete(("Hopper-v4", 0.1, "iql"), {"Hopper-v4": good}, measured)
    elsewhere = dataclasses.replace(experiment, algorithms=("cql",))
    assert not elsewhere.complete(CELL, {"HalfCheetah-v4": good}, measured), "two seeds of an earlier launch are too few"


def test_weighting_compares_samplers_and_nothing_else(imported, tmp_path: Path):
    module = imported("experiments.trajectory_weighting")
    experiment, good = module.TrajectoryWeighting(), module.Good("Hopper-v4", "somewhere", "sac")
    workshop = Workshop(tmp_path)
    runs = {name: experiment.run(workshop, good, 0.05, "cql", name, 2) for name in ("uniform", "aw", "top10")}
    assert [run.sampler for run in runs.values()] == [Uniform(), TrajectoryWeighted("advantage", 0.2), TopFraction(0.1)]
    plain = [dataclasses.replace(run, sampler=Uniform(), preset="any") for run in runs.values()]
    assert plain[0] == plain[1] == plain[2]
    assert isinstance(plain[0], Transfer)
    assert (plain[0].seed, plain[0].offline_updates, plain[0].env_steps) == (2, 10_000, 0)
    assert plain[0].dataset == str(tmp_path / "data" / "Hopper-v4-sac-0.05-of-200000.hdf5")


class Workshop:
    """Trains one run after the other, below a folder."""

    def __init__(self, folder: Path):
        self.folder, self.trained = folder, []

    def train(self, runs):
        from experiments.training import finished, train_quietly  # pyright: ignore[reportMissingImports]
        from steelyard.trainers.curves import read_runs

        self.trained += [run.preset for run in runs if not finished(run, self.folder)]
        return read_runs(
            [run.folder(self.folder) if finished(run, self.folder) else train_quietly(run, self.folder) for run in runs]
        )

    def run_folder(self, run):
        return run.folder(self.folder)


def test_launches_of_weighting_add_up_and_behaviours_may_be_given(imported, tmp_path: Path):
    """A policy file as behaviour; a second launch with another algorithm reports the first one's cell when it has three seeds."""
    module = imported("experiments.trajectory_weighting")
    random, arrays = np.random.default_rng(0), {}
    for name, inputs, outputs in (("latent_pi_0", 11, 8), ("mu", 8, 3), ("log_std", 8, 3)):
        arrays[f"{name}_weight"] = 0.1 * random.normal(size=(outputs, inputs))
        arrays[f"{name}_bias"] = np.zeros(outputs)
    np.savez(tmp_path / "hopper.npz", allow_pickle=False, **arrays)
    workshop = Workshop(tmp_path / "work")
    first = module.TrajectoryWeighting(
        tasks=("Hopper-v4",),
        ratios=(0.1,),
        algorithms=("td3-bc",),
        samplers=("uniform", "aw"),
        behaviours=(str(tmp_path / "hopper.npz"),),
        updates=20,
        debug=True,
    )
    outcome = first.measure(workshop)
    assert [row["top10"] for row in outcome.tables["scores"]] == ["not run"]
    assert len(workshop.trained) == 6
    assert all(name.startswith("td3-bc-0.1-") and "hopper-" in name for name in workshop.trained)
    second = dataclasses.replace(first, algorithms=("iql",), seeds=(0,))
    outcome = second.measure(workshop)
    assert [(row["algorithm"], claim.seeds) for row, claim in zip(outcome.tables["scores"], outcome.claims, strict=True)] == [
        ("td3-bc", 3),
        ("iql", 1),
    ]
    assert len(workshop.trained) == 8
    assert not any(claim.holds for claim in outcome.claims)
    assert "one for each task" in dataclasses.replace(first, tasks=("Hopper-v4", "HalfCheetah-v4")).obstacle()


def test_famo2o_is_judged_by_scores_after_the_online_phase_and_by_coefficients(imported):
    module = imported("experiments.famo2o")
    experiment = module.FamO2O()
    measured = curves("Hopper-v4", {"iql": [500.0, 600.0, 700.0], "iql-famo2o": [1500.0, 1600.0, 1700.0]})
    assert experiment.better(measured).holds
    assert not experiment.better(curves("Hopper-v4", {"iql": [500.0, 1600.0], "iql-famo2o": [1500.0, 1600.0]})).holds
    base, family = experiment.run("iql", 0, "data.hdf5"), experiment.run("iql-famo2o", 0, "data.hdf5")
    assert dataclasses.replace(family.agent, balance=base.agent.balance) == base.agent
    data = type("Data", (), {"returns": np.array([1.0, 2.0, 3.0, 4.0]), "lengths": np.array([1, 1, 1, 7])})()
    falling, rising = np.array([4.0, 3.0, 2.0, *[1.5] * 7]), np.array([1.0, 2.0, 3.0, *[4.0] * 7])
    assert experiment.lower_where_good([falling] * 3, data).holds
    assert not experiment.lower_where_good([falling, falling, rising], data).holds
    short_ones_falling = np.array([4.0, 3.0, 2.0, *[5.0] * 7])
    assert not experiment.lower_where_good([short_ones_falling] * 3, data).holds, "most states are in the long, good episode"


def test_door_human_needs_its_worlds_and_stays_near_the_published_scores(imported, monkeypatch: pytest.MonkeyPatch):
    module = imported("experiments.door_human")
    experiment = module.DoorHuman()

    def raw(score: float) -> float:
        low, high = (normalized_score("door-human-v0", x, None) or 0.0 for x in (0.0, 1.0))
        return (score - low) / (high - low)

    measured = curves(module.TASK, {"bc": [raw(2.0)] * 3, "iql": [raw(60.0)] * 3})
    assert experiment.claim("bc", measured).holds
    assert not experiment.claim("iql", measured).holds
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert "steelyard[robotics]" in experiment.obstacle()
