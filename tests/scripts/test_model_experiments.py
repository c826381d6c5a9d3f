"""The experiments on learned models: their worlds, their claims, and that they run."""

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from steelyard.trainers.statistics import Curve

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


def test_the_pendulum_is_gymnasiums(imported):
    module = imported("experiments.pendulum_values")
    world: Any = gym.make("Pendulum-v1").unwrapped
    world.reset(seed=0)
    random = np.random.default_rng(0)
    for _ in range(20):
        angle, velocity, torque = random.uniform((-3.0, -8.0, -2.0), (3.0, 8.0, 2.0))
        world.state = np.array([angle, velocity])
        obs, reward, *_ = world.step(np.array([torque]))
        after, speed = module.advance(angle, velocity, torque)
        np.testing.assert_allclose(obs, [np.cos(after), np.sin(after), speed], atol=1e-5)
        assert reward == pytest.approx(module.reward(angle, velocity, torque), abs=1e-5)


def test_its_value_satisfies_bellmans_equation_and_has_the_right_gradient(imported):
    module = imported("experiments.pendulum_values")
    found = module.PendulumValue(points=81, torques=3, sweeps=120)
    upright, hanging = found.of(np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]))
    assert upright > hanging + 3
    state = np.array([[np.cos(0.3), np.sin(0.3), 1.0, 5.0], [np.cos(-2.0), np.sin(-2.0), -4.0, 5.0]])
    gradient = found.gradient(state)
    assert gradient[:, 3].tolist() == [0, 0]
    radial = (gradient[:, :2] * state[:, :2]).sum(-1)
    np.testing.assert_allclose(radial, 0, atol=1e-9)
    step = 0.2
    for component, direction in ((slice(0, 2), np.stack((-state[:, 1], state[:, 0]), -1)), (slice(2, 3), np.ones((2, 1)))):
        moved = [state.copy() for _ in range(2)]
        for sign, each in zip((1, -1), moved, strict=True):
            if component.stop == 2:
                angle = np.arctan2(each[:, 1], each[:, 0]) + sign * step
                each[:, 0], each[:, 1] = np.cos(angle), np.sin(angle)
            else:
                each[:, 2] += sign * step
        numeric = (found.of(moved[0]) - found.of(moved[1])) / (2 * step)
        np.testing.assert_allclose((gradient[:, component] * direction).sum(-1), numeric, rtol=0.1, atol=0.1)


def test_supervised_arms_differ_only_in_their_loss(imported):
    module = imported("experiments.vagram_supervised")
    assert sum(module.GROUPS, ()) == module.ROWS
    experiment = module.VagramSupervised(seeds=(0, 1), transitions=200, steps=1)
    obs, torque, after = experiment.data(200, 0, 3)
    assert (obs.shape, torque.shape, after.shape) == ((200, 6), (200, 1), (200, 6))
    again = experiment.data(200, 0, 3)
    np.testing.assert_array_equal(after, again[2])
    system = module.SwitchingChaos(3, seed=0)
    np.testing.assert_allclose(after[:, 3:], system.advance(torch.from_numpy(obs[:, 3:])).numpy())
    value = module.PendulumValue(points=21, torques=3, sweeps=30)
    slopes = experiment.slopes(value, [experiment.data(200, seed, 3) for seed in (0, 1)])
    right = slopes[module.VAGRAM]
    assert not bool(right[..., 3:].any())
    shuffled = slopes["VaGraM, gradients shuffled over rows"]
    assert torch.equal(shuffled.sum(-1).sort(1).values, right.sum(-1).sort(1).values)
    assert not torch.equal(shuffled, right)
    pooled = slopes["VaGraM, one gradient for all rows"]
    torch.testing.assert_close(pooled[:, 0], right.square().mean(1).sqrt())
    assert bool((slopes["VaGraM, 30 % gradient leaks into distractors"][..., 3:] > 0).all())
    still = experiment.standing_still(value, 0)
    assert still.shape == (2,)


def test_supervised_claims_need_the_ratios(imported):
    module = imported("experiments.vagram_supervised")
    experiment = module.VagramSupervised(widths=(8,), distractors=(0, 10))
    errors = {(8, count): np.full((len(module.ROWS), 3), 1.0) for count in (0, 10)}
    place = module.ROWS.index(module.VAGRAM)
    errors[8, 0][place], errors[8, 10][place] = 0.4, 0.24
    assert [claim.holds for claim in experiment.claims(errors)] == [True, True, True]
    errors[8, 10][place] = 0.9
    assert [claim.holds for claim in experiment.claims(errors)] == [False, True, False]
    small = dataclasses.replace(experiment, steps=10)
    assert not any(claim.holds for claim in small.claims(errors))


def test_supervised_runs_and_writes(imported, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    module, reproduce = imported("experiments.vagram_supervised"), imported("reproduce")
    monkeypatch.setattr(module, "PendulumValue", lambda: imported("experiments.pendulum_values").PendulumValue(21, 3, 0.95, 30))
    experiment = module.VagramSupervised(
        seeds=(0, 1), widths=(4,), distractors=(0, 10), steps=3, transitions=150, batch_size=16, processes=1
    )
    output = reproduce.Output(root=tmp_path / "runs", results=tmp_path / "results")
    assert not reproduce.reproduce("vagram-supervised", experiment, output)
    folder = tmp_path / "runs" / "vagram-supervised" / "scaled"
    assert len(json.loads((folder / "claims.json").read_text())["claims"]) == 3
    assert (folder / "errors.csv").read_text().count("\n") == 1 + len(module.ROWS) + 1


def test_control_runs_differ_in_objective_distractors_and_seed(imported):
    module = imported("experiments.vagram_control")
    pendulum, hopper = module.VagramPendulum().runs(), module.VagramHopper(width=64, precision="bf16").runs()
    assert {run.execution.precision for run in hopper} == {"bf16"}
    assert len({(run.preset, run.seed) for run in pendulum}) == len(pendulum) == 2 * 4 * 3
    assert len({(run.preset, run.seed) for run in hopper}) == len(hopper) == 2 * 3 * 3
    wide = next(run for run in hopper if run.preset == "likelihood-5-15-distractors")
    assert wide.distractors == 15
    assert [wide.imagination.horizon(epoch) for epoch in (1, 150)] == [1, 1]  # the authors' schedules with distractors
    assert wide.imagination.mixing.probability(50) == 0.95 > wide.imagination.mixing.probability(20)
    plain = next(run for run in hopper if not run.distractors)
    assert plain.imagination.horizon(150) > 1
    assert plain.imagination.mixing.probability(20) == 0.95
    assert wide.agent.model.objective.high == 5.0
    assert wide.agent.model.hidden == (64, 64)
    assert {run.agent.critic for run in hopper} == {wide.agent.critic}
    assert wide.agent.critic.unit_features
    first = next(run for run in pendulum if run.preset.startswith("vagram"))
    assert first.agent.model.objective.warmup_fits == 8


def test_control_runs_end_to_end(imported, tmp_path: Path):
    module, reproduce = imported("experiments.vagram_control"), imported("reproduce")
    experiment = module.VagramPendulum(seeds=(0,), distractors=(2,), objectives=(module.SQUARED, module.VAGRAM), debug=True)
    output = reproduce.Output(root=tmp_path / "runs", results=tmp_path / "results", jobs=1)
    assert not reproduce.reproduce("vagram-pendulum", experiment, output)
    folder = tmp_path / "runs" / "vagram-pendulum" / "scaled"
    claims = json.loads((folder / "claims.json").read_text())["claims"]
    assert [claim["seeds"] for claim in claims] == [1]
    assert "vagram-2-distractors" in (folder / "distractor_shares.csv").read_text()


def test_samples_to_a_return(imported):
    module = imported("experiments.mbpo_hopper")
    curve = Curve(np.array([1000.0, 2000.0, 3000.0]), np.array([10.0, 1200.0, 900.0]))
    assert module.samples_to(curve, 1000) == 2000
    assert module.samples_to(curve, 2000) == float("inf")
    fast = {seed: Curve(np.array([20e3, 60e3]), np.array([1500.0, 2500.0])) for seed in range(3)}
    slow = {seed: Curve(np.array([100e3, 150e3]), np.array([1500.0, 1600.0])) for seed in range(3)}
    claims = module.MbpoHopper().claims({"Hopper-v5": {"mbpo-hopper": fast, "sac": slow}})
    assert [claim.holds for claim in claims] == [True, True]
    claims = module.MbpoHopper().claims({"Hopper-v5": {"mbpo-hopper": slow, "sac": fast}})
    assert [claim.holds for claim in claims] == [False, False]
    never = {seed: Curve(np.array([75e3, 150e3]), np.array([500.0, 900.0])) for seed in range(3)}
    short = module.MbpoHopper(env_steps=60_000, sac_steps=150_000)
    first, second = short.claims({"Hopper-v5": {"mbpo-hopper": fast, "sac": never}})
    assert first.holds
    assert second.holds
    assert not first.note
    assert "more than were made" in second.measured
    barely = module.MbpoHopper(env_steps=60_000, sac_steps=100_000)
    assert [claim.holds for claim in barely.claims({"Hopper-v5": {"mbpo-hopper": fast, "sac": never}})] == [True, False]
    assert not any(claim.holds for claim in short.claims({"Hopper-v5": {"mbpo-hopper": never, "sac": never}}))
    alone = module.MbpoHopper(seeds=(0,)).claims({"Hopper-v5": {"mbpo-hopper": {0: fast[0]}, "sac": {0: slow[0]}}})
    assert not any(claim.holds for claim in alone)
    assert "1 instead of 2 seeds" in alone[0].note
    runs = module.MbpoHopper(precision="bf16").runs()
    assert {run.execution.precision for run in runs} == {"bf16"}
    assert {(run.task, run.preset, run.schedule.ratio) for run in runs} == {
        ("Hopper-v5", "mbpo-hopper", 20),
        ("Hopper-v5", "sac", 1),
    }
