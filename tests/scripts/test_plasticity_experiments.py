"""What the plasticity experiments compare, and when their claims hold; no agent is trained."""

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steelyard.agents.parts import NoIntervention, Reset
from steelyard.trainers.adaptive_ratio import AdaptiveRatio
from steelyard.trainers.config import Run
from steelyard.trainers.curves import Curves, read_runs
from steelyard.trainers.schedules import FixedRatio, Priming

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


class Written:
    """A workshop whose runs were not trained but written: `result(run)` gives return, active and dormant share, and the ratio."""

    def __init__(self, folder: Path, result: Callable[[Run], tuple[float, float, float, float]]):
        self.folder, self.result = folder, result

    def run_folder(self, run: Run) -> Path:
        return run.folder(self.folder)

    def train(self, runs: Sequence[Run]) -> Curves:
        for run in runs:
            score, active, dormant, ratio = self.result(run)
            folder = self.run_folder(run)
            folder.mkdir(parents=True)
            steps = [run.env_steps * n // 10 for n in range(1, 11)]
            rows = "".join(f"{step},1,1.0,{score + 10 * n % 3}\n" for n, step in enumerate(steps))
            (folder / "eval.csv").write_text(f"env_steps,updates,seconds,eval/return\n{rows}")
            header = "env_steps,updates,seconds,meter/critic/active,meter/critic/dormant,schedule/ratio"
            rows = "".join(f"{step},1,1.0,{active},{dormant},{1.0 if n < 5 else ratio}\n" for n, step in enumerate(steps))
            (folder / "train.csv").write_text(f"{header}\n{rows}")
        return read_runs([self.run_folder(run) for run in runs])


def test_priming_arms_differ_in_nothing_else(imported):
    experiment = imported("experiments.heavy_priming").HeavyPriming()
    none, primed, reset, norm = (experiment.run(arm, 1) for arm in experiment.arms)
    assert none.schedule == FixedRatio(1.0)
    assert primed.schedule == reset.schedule == norm.schedule == Priming(updates=100_000)
    assert (none.random_steps, none.env_steps, none.action_repeat) == (1_999, 64_000, 2)
    assert [type(run.agent.plasticity) for run in (none, primed, reset, norm)] == [
        NoIntervention,
        NoIntervention,
        Reset,
        NoIntervention,
    ]
    assert (reset.agent.plasticity.period, reset.agent.plasticity.times) == (100_000, 1)
    assert [run.agent.critic.layer_norm for run in (none, primed, reset, norm)] == [False, False, False, True]
    bare = [
        dataclasses.replace(
            run, preset="any", schedule=FixedRatio(1.0), agent=dataclasses.replace(run.agent, plasticity=NoIntervention())
        )
        for run in (none, primed, reset)
    ]
    assert bare[0] == bare[1] == bare[2]


PRIMED = {
    "none": (800.0, 0.48, 0.02, 1.0),
    "primed": (200.0, 0.25, 0.4, 1.0),
    "primed-reset": (790.0, 0.47, 0.02, 1.0),
    "primed-layer-norm": (700.0, 0.45, 0.05, 1.0),
}


@pytest.mark.parametrize(
    ("changed", "holds"),
    [
        ({}, [True, True, True, True]),
        ({"primed": (700.0, 0.25, 0.01, 1.0)}, [False, True, True, False]),
        ({"primed-reset": (500.0, 0.4, 0.1, 1.0)}, [True, False, True, True]),
        ({"primed-layer-norm": (300.0, 0.4, 0.1, 1.0)}, [True, True, False, True]),
        ({"primed": (100.0, 0.45, 0.4, 1.0)}, [True, True, True, False]),
    ],
)
def test_priming_is_judged_by_returns_and_units(imported, changed: dict[str, Any], holds: list[bool], tmp_path: Path):
    results = PRIMED | changed
    outcome = imported("experiments.heavy_priming").HeavyPriming().measure(Written(tmp_path, lambda run: results[run.preset]))
    assert [claim.holds for claim in outcome.claims] == holds
    assert len(outcome.tables["arms"]) == 4
    assert outcome.pictures["meters"].stat().st_size > 10_000
    assert outcome.tables["arms"][1]["active units of the critic after priming"] == f"{results['primed'][1]:.3f}"


def test_less_than_the_setting_judges_nothing(imported, tmp_path: Path):
    module = imported("experiments.heavy_priming")
    small = module.HeavyPriming(seeds=(0,), updates=50)
    assert "50 instead of 100,000 updates" in small.scaled()
    outcome = small.measure(Written(tmp_path, lambda run: PRIMED[run.preset]))
    assert not any(claim.holds for claim in outcome.claims)
    assert module.HeavyPriming().scaled() == imported("experiments.adaptive_rr_state").AdaptiveRrState().scaled() == ""


RATIOS = {"ratio-1": (500.0, 0.45, 0.0, 1.0), "ratio-8": (300.0, 0.25, 0.1, 8.0), "adaptive": (480.0, 0.35, 0.0, 8.0)}
CONTROL = {"ratio-1": (500.0, 0.45, 0.0, 1.0), "ratio-8": (600.0, 0.25, 0.1, 8.0), "adaptive": (560.0, 0.35, 0.0, 8.0)}


@pytest.mark.parametrize(
    ("task", "control", "holds"),
    [
        ({}, {}, [True] * 5),
        ({"ratio-8": (900.0, 0.25, 0.1, 8.0)}, {}, [False, False, True, True, True]),
        ({"adaptive": (480.0, 0.2, 0.0, 8.0)}, {"adaptive": (300.0, 0.4, 0.0, 1.0)}, [True, True, False, True, False]),
    ],
)
def test_adaptive_ratios_are_judged_on_the_task_and_on_the_control(
    imported, task: dict[str, Any], control: dict[str, Any], holds: list[bool], tmp_path: Path
):
    experiment = imported("experiments.adaptive_rr_state").AdaptiveRrState()

    def result(run: Run) -> Any:
        return (CONTROL | control if run.task in experiment.controls else RATIOS | task)[run.preset]

    outcome = experiment.measure(Written(tmp_path, result))
    assert [claim.holds for claim in outcome.claims] == holds
    adaptive = outcome.tables["arms"][2]
    assert adaptive["switched at"] == "60,000, 60,000"
    assert outcome.tables["arms"][0]["switched at"] == ""


def test_the_adaptive_arm_averages_over_all_of_ten_episodes(imported):
    experiment = imported("experiments.adaptive_rr_state").AdaptiveRrState()
    schedule = experiment.run("quadruped-walk", "adaptive", 0).schedule
    assert isinstance(schedule, AdaptiveRatio)
    assert (schedule.low, schedule.high, schedule.interval, schedule.window) == (1, 8, 5_000, 5_000)
    assert [experiment.run("quadruped-walk", arm, 0).schedule for arm in ("low", "high")] == [FixedRatio(1.0), FixedRatio(8.0)]


def test_regressions_of_several_seeds_are_those_of_each_alone(imported, tmp_path: Path):
    module = imported("experiments.spectral")
    together = module.Spectral(seeds=(0, 1), tasks=6, steps=5, points=16)
    for name in ("none", "L2 1e-3", "spectral 0.1"):
        both = together.train(name)
        alone = [dataclasses.replace(together, seeds=(seed,)).train(name) for seed in (0, 1)]
        np.testing.assert_allclose(both, np.concatenate(alone, 1), rtol=2e-3, atol=1e-4)
    assert both.shape == (10, 2)  # six errors, three singular values, dead units
    outcome = together.measure(type("Workshop", (), {"folder": tmp_path}))
    assert len(outcome.tables["regressions"]) == 6
    assert not any(claim.holds for claim in outcome.claims)


@pytest.mark.parametrize(
    ("late", "dead", "holds"), [(0.4, 0.02, [True, True]), (0.015, 0.02, [False, True]), (0.4, 0.06, [True, False])]
)
def test_regressions_are_judged_by_the_error_and_by_dead_units(imported, late: float, dead: float, holds: list[bool]):
    experiment = imported("experiments.spectral").Spectral()

    def values(error: float, share: float) -> np.ndarray:
        return np.concatenate((np.full((60, 3), error), np.full((3, 3), 2.0), np.full((1, 3), share)))

    found = {"none": values(late, 0.6), "spectral 1e-3": values(0.001, dead)}
    assert [claim.holds for claim in experiment.claims(found)] == holds


def test_a_seed_decides_a_regression(imported):
    module = imported("experiments.spectral")
    network = module.Spectral().network(3)
    torch.testing.assert_close(network.layers[0].weight, module.Spectral().network(3).layers[0].weight)
    assert not torch.equal(network.layers[0].weight, module.Spectral().network(4).layers[0].weight)
