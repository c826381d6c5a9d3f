"""What an experiment claims, when a claim holds, and which runs are reused."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steelyard.trainers import config, plain
from steelyard.trainers.presets import DMC
from steelyard.trainers.statistics import Curve

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


def curves(finals: dict[str, dict[int, float]], label: str = "simba-v2", best: float = 999.0):
    """Curves that end with `finals` and were better on the way."""
    steps = np.array([50_000.0, 100_000.0])
    return {
        task: {label: {seed: Curve(steps, np.array([best, last])) for seed, last in seeds.items()}}
        for task, seeds in finals.items()
    }


def test_bound_is_the_prediction_interval_for_the_mean_of_more_seeds(imported):
    published = imported("experiments.claim").Published(680, 23, 10)
    # t(0.975, 9 degrees of freedom) = 2.2622
    assert published.lowest(2) == pytest.approx(680 - 2.2622 * 23 * (1 / 2 + 1 / 10) ** 0.5, abs=0.01)
    assert published.lowest(2) < published.lowest(10) < 680


@pytest.mark.parametrize(
    ("walker", "cheetah", "expected"), [(660, 600, [True, True]), (630, 600, [False, True]), (660, 400, [True, False])]
)
def test_simba_v2_is_judged_by_its_final_scores(imported, walker: float, cheetah: float, expected: list[bool]):
    experiment = imported("experiments.simba_v2_dmc").SimbaV2Dmc()
    claims = experiment.claims(curves({"walker-run": {0: walker - 5, 1: walker + 5}, "cheetah-run": {0: cheetah, 1: cheetah}}))
    assert [claim.holds for claim in claims] == expected
    assert [claim.seeds for claim in claims] == [2, 2]


@pytest.mark.parametrize("change", [{"env_steps": 99_999}, {"width": 256}, {"debug": True}])
def test_what_is_scaled_down_cannot_pass(imported, change: dict):
    experiment = imported("experiments.simba_v2_dmc").SimbaV2Dmc(**change)
    label = experiment.runs()[0].preset
    claims = experiment.claims(curves({"walker-run": {0: 900.0, 1: 900.0}, "cheetah-run": {0: 900.0, 1: 900.0}}, label))
    assert [claim.holds for claim in claims] == [False, False]
    assert all("Scaled down" in claim.note for claim in claims)


def test_simba_v2_trains_as_the_first_part_of_a_published_run(imported):
    runs = imported("experiments.simba_v2_dmc").SimbaV2Dmc(seeds=(3,)).runs()
    assert [(run.task, run.seed, run.env_steps) for run in runs] == [("walker-run", 3, 100_000), ("cheetah-run", 3, 100_000)]
    published: Any = DMC["simba-v2"]
    ours = runs[0]
    assert (ours.agent.critic, ours.agent.actor, ours.schedule) == (
        published.agent.critic,
        published.agent.actor,
        published.schedule,
    )
    slopes = []
    for run in (published, ours):
        adam = run.agent.optimizer
        assert adam.final_learning_rate is not None
        slopes.append((adam.final_learning_rate - adam.learning_rate) / run.total_updates)
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-9)


@pytest.mark.parametrize(("bf16", "holds"), [(1500.0, True), (9000.0, False)])
def test_bf16_holds_if_the_intervals_overlap(imported, bf16: float, holds: bool):
    experiment = imported("experiments.bf16").Bf16(seeds=(0, 1, 2))
    scores = {"fp32": {0: 1000.0, 1: 1500.0, 2: 2000.0}, "bf16": {0: bf16, 1: bf16 + 10, 2: bf16 + 20}}
    measured = {"HalfCheetah-v5": {}}
    for precision, seeds in scores.items():
        measured["HalfCheetah-v5"] |= curves({"HalfCheetah-v5": seeds}, f"sac-{precision}")["HalfCheetah-v5"]
    (claim,) = experiment.claims(measured)
    assert claim.holds is holds


def test_bf16_says_why_it_cannot_run(imported, monkeypatch: pytest.MonkeyPatch):
    module = imported("experiments.bf16")
    monkeypatch.setattr(module, "has_native_bf16", lambda device: False)
    assert "--anyway" in module.Bf16().obstacle()
    assert module.Bf16(anyway=True).obstacle() is None
    monkeypatch.setattr(module, "has_native_bf16", lambda device: True)
    assert module.Bf16().obstacle() is None


def write_run(run: config.Run, root: Path, last: int) -> None:
    plain.save(run, run.folder(root) / "config.json")
    (run.folder(root) / "eval.csv").write_text(f"env_steps,eval/return\n0,1.0\n{last},700.0\n")


def test_only_finished_runs_of_the_same_configuration_are_reused(imported, tmp_path: Path):
    training, run = imported("experiments.training"), DMC["simba-v2"]
    assert not training.finished(run, tmp_path)
    write_run(run, tmp_path, run.env_steps - 1)
    assert not training.finished(run, tmp_path)
    write_run(run, tmp_path, run.env_steps)
    assert training.finished(run, tmp_path)
    assert not training.finished(dataclasses.replace(run, num_envs=2), tmp_path)


@pytest.mark.parametrize(("score", "status"), [(700.0, 0), (100.0, 1)])
def test_exit_status_and_files(imported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, score: float, status: int):
    reproduce, module = imported("reproduce"), imported("experiments.simba_v2_dmc")
    for run in module.SimbaV2Dmc().runs():
        write_run(run, tmp_path / "runs" / "simba-v2-dmc", run.env_steps)
        table = run.folder(tmp_path / "runs" / "simba-v2-dmc") / "eval.csv"
        table.write_text(table.read_text().replace("700.0", str(score)))
    options = ["simba-v2-dmc", "--json", "--root", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *options])
    with pytest.raises(SystemExit) as end:
        reproduce.main()
    assert end.value.code == status
    assert json.loads(capsys.readouterr().out)["all_hold"] is (status == 0)
    folder = tmp_path / "results" / "simba-v2-dmc"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "claims.json", "curves.csv", "figure.png"]
    assert len((folder / "curves.csv").read_text().splitlines()) == 1 + 2 * 2 * 2
