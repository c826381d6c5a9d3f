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


@pytest.mark.parametrize(("weighted", "holds"), [([4000.0, 4100.0, 4200.0], True), ([900.0, 2000.0, 4200.0], False)])
def test_weighting_holds_if_the_intervals_are_apart(imported, weighted: list[float], holds: bool):
    module = imported("experiments.trajectory_weighting")
    experiment = module.TrajectoryWeighting(tasks=("HalfCheetah-v4",), ratios=(0.1,), algorithms=("iql",))
    finals = {"iql-0.1-uniform": [800.0, 1000.0, 1200.0], "iql-0.1-aw": weighted, "iql-0.1-top10": [0.0, 0.0, 0.0]}
    claim = experiment.claim("HalfCheetah-v4", 0.1, "iql", curves("HalfCheetah-v4", finals))
    assert claim.holds is holds
    assert claim.seeds == 3
    assert f"{normalized_score('', float(np.mean(weighted)), 'HalfCheetah-v4'):.1f}" in claim.measured
    few = dataclasses.replace(experiment, updates=100)
    assert not few.claim("HalfCheetah-v4", 0.1, "iql", curves("HalfCheetah-v4", finals)).holds


def test_weighting_compares_samplers_and_nothing_else(imported):
    experiment = imported("experiments.trajectory_weighting").TrajectoryWeighting()
    runs = {name: experiment.run("Hopper-v4", 0.05, "cql", name, 2, "data.hdf5") for name in ("uniform", "aw", "top10")}
    assert [run.sampler for run in runs.values()] == [Uniform(), TrajectoryWeighted("advantage", 0.2), TopFraction(0.1)]
    plain = [dataclasses.replace(run, sampler=Uniform(), preset="") for run in runs.values()]
    assert plain[0] == plain[1] == plain[2]
    assert isinstance(plain[0], Transfer)
    assert (plain[0].dataset, plain[0].seed, plain[0].offline_updates, plain[0].env_steps) == ("data.hdf5", 2, 10_000, 0)


def test_famo2o_is_judged_by_scores_after_the_online_phase_and_by_coefficients(imported):
    module = imported("experiments.famo2o")
    experiment = module.FamO2O()
    measured = curves("Hopper-v4", {"iql": [500.0, 600.0, 700.0], "iql-famo2o": [1500.0, 1600.0, 1700.0]})
    assert experiment.better(measured).holds
    assert not experiment.better(curves("Hopper-v4", {"iql": [500.0, 1600.0], "iql-famo2o": [1500.0, 1600.0]})).holds
    base, family = experiment.run("iql", 0, "data.hdf5"), experiment.run("iql-famo2o", 0, "data.hdf5")
    assert dataclasses.replace(family.agent, balance=base.agent.balance) == base.agent
    returns = type("Data", (), {"returns": np.array([1.0, 2.0, 3.0, 4.0])})()
    falling, rising = np.array([4.0, 3.0, 2.0, 1.5]), np.array([1.0, 2.0, 3.0, 4.0])
    assert experiment.lower_where_good([falling] * 3, returns).holds
    assert not experiment.lower_where_good([falling, falling, rising], returns).holds


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
