"""Rollouts in a model: what is imagined, what is kept, how it is mixed, and that a run with a model learns and resumes."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from steelyard import envs
from steelyard.agents.agent import Execution
from steelyard.agents.cql import CQL
from steelyard.agents.errors import DivergenceError
from steelyard.agents.networks import MLP
from steelyard.agents.networks.exploration import HeldNoise, NoiseRange
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import (
    ActionDistance,
    Ensemble,
    ExactTaylor,
    IterVAML,
    Likelihood,
    ReturnBound,
    SquaredError,
    ValueGradient,
)
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.agents.types import Spec, Step
from steelyard.envs import EnvError, terminations
from steelyard.envs.datasets import Dataset, write_hdf5
from steelyard.trainers import buffer as buffer_module
from steelyard.trainers import checkpoint, plain, shrinking
from steelyard.trainers.buffer import ReplayBuffer, ReplayError
from steelyard.trainers.config import ConfigError, Run, Transfer
from steelyard.trainers.imagination import (
    ImaginationError,
    Imaginer,
    NoImagination,
    Rollouts,
    Setting,
    transitions,
)
from steelyard.trainers.model_presets import MODELS
from steelyard.trainers.online import Online, train
from steelyard.trainers.pipeline import Pipeline
from steelyard.trainers.rollout_samplers import Coin, CoinSampler, Ramp, RealShare, RolloutSampler
from steelyard.trainers.samplers import UniformSampler
from steelyard.trainers.schedules import FixedRatio

SPEC = Spec(2, 1)
TINY: dict[str, Any] = {"actor": MLP((8,)), "critic": MLP((8,)), "batch_size": 8}
MODEL = Ensemble(members=3, elites=2, hidden=(8,), epochs=2, objective=SquaredError())


def replay(rows: int = 30, worlds: int = 2, spec: Spec = SPEC) -> ReplayBuffer:
    """Rows whose numbers name them; the first world's episodes end every seventh step."""
    buffer, generator = ReplayBuffer(spec, 100 * worlds, worlds), torch.Generator().manual_seed(0)
    obs = torch.randn(worlds, spec.obs_size, generator=generator)
    for count in range(rows):
        done = torch.tensor([count % 7 == 6] + [False] * (worlds - 1))
        next_obs = torch.randn(worlds, spec.obs_size, generator=generator)
        fresh = torch.where(done[:, None], torch.randn(worlds, spec.obs_size, generator=generator), next_obs)
        action, reward = torch.rand(worlds, spec.action_size, generator=generator), torch.full((worlds,), float(count))
        buffer.add(obs, action, Step(fresh, next_obs, reward, done, ~done & False, torch.ones(worlds, dtype=torch.bool), {}))
        obs = fresh
    return buffer


def imaginer(rollouts: Rollouts, model: Ensemble = MODEL, ends: Any = terminations.never) -> tuple[Any, Imaginer]:
    agent: Any = SAC(**TINY, model=model).build(SPEC, num_envs=1, total_updates=9, seed=0, execution=Execution(compile=False))
    setting = Setting(agent, (replay(),), lambda: ends, 8, 1, 5, 0, lambda words: None)
    return agent, Imaginer(rollouts, setting)


def test_ramps_are_truncated_lines() -> None:
    ramp = Ramp(1, 15, 20, 150)
    assert [ramp(epoch) for epoch in (1, 20, 85, 150, 999)] == [1, 1, 8, 15, 15]
    _, found = imaginer(Rollouts(rollouts=20, batch=20, horizon=Ramp(1, 23, 0, 22)))
    found.epoch = 15
    assert found.horizon() == 16  # though the line comes out as 15.999999999999998
    assert Ramp(0.0, 0.95, 0, 20)(1) == pytest.approx(0.0475)


def test_all_real_transitions_are_fitted_to() -> None:
    buffer = replay()
    found = transitions(buffer, torch.device("cpu"))
    assert len(found.obs) == 60
    assert sorted(found.reward.tolist()) == sorted(2 * [float(count) for count in range(30)])
    index = buffer.valid.nonzero().squeeze(-1)
    batch = buffer.gather(index)
    assert torch.equal(batch.next_obs, found.next_obs)
    small = ReplayBuffer(SPEC, 10, 1)
    for _ in range(25):
        no = torch.zeros(1) > 0
        step = Step(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1), no, no, ~no, {})
        small.add(torch.ones(1, 2), torch.ones(1, 1), step)
    assert len(transitions(small, torch.device("cpu")).obs) == 10


def test_rollouts_begin_in_real_rows_follow_the_model_and_stop_where_they_end() -> None:
    ends = lambda obs: obs[:, 0] > 1.0  # noqa: E731
    agent, found = imaginer(Rollouts(rollouts=40, batch=20, horizon=Ramp(4, 4)), ends=ends)
    found.mixed(UniformSampler(found.setting.buffers[0], 8, 1, 0.9, 0))
    found.imagine(0)
    assert found.replay is not None
    sampler, buffer = found.sampler, found.replay
    index = sampler.addresses[: int(sampler.count)]
    batch = buffer.gather(index, 1, 0.9)
    assert len(index) == int(buffer.valid.sum())
    starts = {
        tuple(row) for row in found.setting.buffers[0].gather(found.setting.buffers[0].valid.nonzero().squeeze(-1)).obs.tolist()
    }
    first = index // buffer.num_envs % 5 == 0
    assert int(first.sum()) == 40
    assert {tuple(row) for row in batch.obs[first].tolist()} <= starts
    ended = ends(batch.next_obs)
    assert 0 < int(ended.sum()) < len(index)
    torch.testing.assert_close(batch.discount, 0.9 * (~ended).float())
    assert len(index) < 160  # some were over before the fourth step
    by_row = {int(row): position for position, row in enumerate(index)}
    for position, row in enumerate(index.tolist()):
        following = by_row.get(row + buffer.num_envs)
        last = (row // buffer.num_envs) % 5 == 3
        assert (following is None) == (bool(ended[position]) or last)
        if following is not None:
            assert torch.equal(batch.next_obs[position], batch.obs[following])
    with torch.no_grad():
        next_obs, _ = agent.model.predict(batch.obs, batch.action, agent.model.elites)
    distance = (next_obs - batch.next_obs).abs().amax(-1).amin(0)
    assert float(distance.max()) < 1e-5
    assert found.metrics["model/horizon"] == 4
    assert found.metrics["model/imagined_rows"] == len(index)


def test_nothing_begins_where_an_episode_ended() -> None:
    """Episodes of one step: every second row of replay is an observation that is no transition's first."""
    buffer = ReplayBuffer(SPEC, 400, 1)
    yes, no = torch.ones(1) > 0, torch.zeros(1) > 0
    for count in range(150):
        ends = count % 2 == 0
        seen = torch.full((1, 2), float(ends))
        step = Step(1 - seen, 1 - seen, torch.zeros(1), yes if ends else no, no, yes if ends else no, {})
        buffer.add(seen, torch.zeros(1, 1), step)
    _, found = imaginer(Rollouts(rollouts=2_000, batch=1_000))
    found.starts[0] = UniformSampler(buffer, 1_000, 1, 0.9, 0)
    found.mixed(UniformSampler(found.setting.buffers[0], 8, 1, 0.9, 0))
    begun = found.starts[0].sample()
    assert bool((begun.obs == 1).all())
    found.roll()
    assert found.replay is not None
    rows = found.replay.gather(found.sampler.addresses[: int(found.sampler.count)], 1, 0.9)
    assert len(rows.obs) == 2_000
    assert bool((rows.obs == 1).all())


def test_old_epochs_are_forgotten_whatever_the_horizon() -> None:
    settings = Rollouts(rollouts=20, batch=10, horizon=Ramp(1, 3, 2, 4), epoch=20, fit_interval=10, retained_epochs=1)
    _, found = imaginer(settings)
    found.mixed(UniformSampler(found.setting.buffers[0], 8, 1, 0.9, 0))
    sizes = []
    for count in range(0, 100, 10):
        found.imagine(count)
        sizes.append(int(found.sampler.count))
    assert sizes[:4] == [20, 40, 40, 40]
    assert sizes[-1] == 2 * 20 * 3
    assert found.replay is not None
    assert found.replay.window >= found.kept(3)


def test_fits_come_at_intervals_and_once_offline() -> None:
    agent, found = imaginer(Rollouts(rollouts=0, fit_interval=10))
    sampler = UniformSampler(found.setting.buffers[0], 8, 1, 0.9, 0)
    assert found.mixed(sampler) is sampler
    fits = []
    for count in range(25):
        found.imagine(count)
        fits.append(int(agent.model.fits))
    assert [fits.index(number) for number in (1, 2, 3)] == [0, 10, 20]
    for interval, expected in ((0, 1), (200, 3)):
        agent, found = imaginer(Rollouts(rollouts=20, batch=20, offline_fit_interval=interval, offline_rollout_interval=100))
        found.mixed(sampler)
        cursors = []
        for count in range(0, 500, 100):
            found.imagine(count, offline=True)
            assert found.replay is not None
            cursors.append(int(found.replay.cursors[0]))
        assert int(agent.model.fits) == expected
        assert cursors == [2, 4, 6, 8, 10]


@pytest.mark.parametrize(
    ("objective", "fits"), [(SquaredError(), 1), (Likelihood(), 1), (ValueGradient(), 3), (ExactTaylor(), 3), (IterVAML(), 3)]
)
def test_offline_what_is_fitted_to_values_is_fitted_again_as_they_move(objective: Any, fits: int) -> None:
    """The values of the first fit are those of a random critic."""
    agent, found = imaginer(Rollouts(rollouts=0, batch=20), dataclasses.replace(MODEL, objective=objective))
    for count in range(0, 12_000, 1_000):
        found.imagine(count, offline=True)
    assert int(agent.model.fits) == fits


def test_an_epochs_rollouts_are_kept_in_either_phase_and_after_a_resume() -> None:
    """Offline a round comes every 50 updates, online every 10 transitions: an epoch of 100 has two or ten."""
    settings = Rollouts(rollouts=20, batch=20, epoch=100, fit_interval=10, offline_rollout_interval=50)
    _, found = imaginer(settings)
    found.mixed(UniformSampler(found.setting.buffers[0], 8, 1, 0.9, 0))
    for count in range(0, 300, 50):
        found.imagine(count, offline=True)
    assert int(found.sampler.count) == 2 * 20
    _, resumed = imaginer(settings)
    resumed.mixed(UniformSampler(resumed.setting.buffers[0], 8, 1, 0.9, 0))
    resumed.load_state_dict(found.state_dict())
    assert resumed.kept(1) == found.kept(1) == 2 * 2
    for count in range(0, 200, 10):
        found.imagine(count)
    assert int(found.sampler.count) == 10 * 20


def test_what_is_drawn_between_the_phases_is_drawn_after_a_resume_too() -> None:
    """The first online call makes no rollouts: until the next ones the table is that of the offline phase, in a resumed run as well."""
    settings = Rollouts(rollouts=20, batch=20, epoch=500, fit_interval=250, offline_rollout_interval=100)
    (_, going), (_, resumed) = imaginer(settings), imaginer(settings)
    for found in (going, resumed):
        found.mixed(UniformSampler(found.setting.buffers[0], 8, 1, 0.9, 0))
    for count in range(0, 600, 100):
        going.imagine(count, offline=True)
    going.imagine(1)
    assert going.replay is not None
    resumed.replay = resumed.sampler.buffer = going.replay
    resumed.load_state_dict(going.state_dict())
    resumed.refresh()
    assert int(resumed.sampler.count) == int(going.sampler.count) == 5 * 20
    assert torch.equal(resumed.sampler.addresses[:100], going.sampler.addresses[:100])


def test_imagined_rows_are_drawn_uniformly() -> None:
    buffer = replay()
    sampler = RolloutSampler(buffer, 64, 1, 0.9, 0)
    assert not bool(sampler.sample().weight.any())
    sampler.refresh(buffer.window)
    drawn = torch.cat([sampler.sample().index for _ in range(100)])
    counts = drawn.bincount(minlength=len(buffer.valid))
    assert torch.equal(counts > 0, buffer.valid > 0)
    expected = 6400 / 60
    assert float(((counts[counts > 0] - expected) ** 2 / expected).sum()) < 100  # chi squared of 59 degrees of freedom
    sampler.refresh(5)
    assert int(sampler.count) <= 10
    assert set(sampler.sample().reward.tolist()) <= {25.0, 26.0, 27.0, 28.0, 29.0}


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_a_coin_decides_for_whole_batches(probability: float) -> None:
    real, other = replay(), replay(20)
    other.data[..., 0] = 99.0
    sampler = CoinSampler(UniformSampler(real, 16, 1, 0.9, 0), UniformSampler(other, 16, 1, 0.9, 1))
    Coin(Ramp(probability, probability)).begin_epoch(sampler, 1)
    imagined = []
    for _ in range(300):
        noise = sampler.noise()
        batch = sampler.gather(noise)
        assert torch.equal(sampler.select(noise)[0], batch.index)
        share = (batch.obs[:, 0] == 99).float().mean()
        assert share in (0, 1)
        imagined.append(float(share))
    assert np.mean(imagined) == pytest.approx(probability, abs=0.08)


def test_a_share_of_each_batch_is_real() -> None:
    real, other = replay(), replay(20)
    other.data[..., 0] = 99.0
    sampler = RealShare(0.25).mixed(UniformSampler(real, 16, 1, 0.9, 0), UniformSampler(other, 16, 1, 0.9, 1))
    assert int((sampler.sample().obs[:, 0] != 99).sum()) == 4
    assert sampler.diagnostics() == {}


def test_no_imagination_is_absent() -> None:
    nothing = NoImagination().build(None)  # pyright: ignore[reportArgumentType]
    sampler = UniformSampler(replay(), 8, 1, 0.9, 0)
    assert nothing.mixed(sampler) is sampler
    nothing.imagine(0)
    assert (nothing.replay, nothing.metrics, nothing.state_dict()) == (None, {}, {})


def small(task: str, imagination: Rollouts, model: Ensemble = MODEL, **changes: Any) -> Run:
    run = Run(
        task,
        SAC(**TINY, model=model),
        "imagined",
        env_steps=120,
        random_steps=40,
        imagination=imagination,
        evaluation_interval=60,
        evaluation_episodes=1,
        log_interval=20,
        checkpoint_interval=30,
        threads=1,
        execution=Execution(compile=False),
        log_to=(),
    )
    return dataclasses.replace(run, **changes)


@pytest.mark.parametrize(
    ("words", "make"),
    [
        ("agent.model is given without", lambda: Run("Hopper-v5", SAC(model=MODEL), "x")),
        ("imagination is given without", lambda: Run("Hopper-v5", SAC(), "x", imagination=Rollouts())),
        ("--actors 0", lambda: Run("Hopper-v5", SAC(), "x", actors=1, acting="mode")),
        ("give a batch that divides it", lambda: Rollouts(rollouts=100, batch=30)),
        ("shorter horizon", lambda: Rollouts(rollouts=1000, batch=100, horizon=Ramp(1, 15), capacity=10_000)),
        ("one step or more", lambda: Rollouts(horizon=Ramp(0, 5))),
        ("from 1 in epoch 20 to inf in epoch 150; give finite numbers", lambda: Ramp(1, math.inf)),
        ("from nan", lambda: Ramp(math.nan, 3)),
        ("an end that is not before the start", lambda: Ramp(1, 5, 50, 10)),
        ("goes from 0.5 to 1.5", lambda: Coin(Ramp(0.5, 1.5))),
        ("real rows in a batch is 2", lambda: RealShare(2.0)),
        ("exploration is HeldNoise", lambda: with_exploration(HeldNoise())),
        ("exploration is NoiseRange", lambda: with_exploration(NoiseRange())),
        ("fit_interval is 0", lambda: Rollouts(fit_interval=0)),
        ("rollouts is -10000", lambda: Rollouts(rollouts=-10_000)),
        ("offline_fit_interval -1; give zero or more", lambda: Rollouts(offline_fit_interval=-1)),
        ("give a multiple of it", lambda: imaginer(Rollouts(rollouts=30, batch=15))),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(words: str, make: Any) -> None:
    with pytest.raises((ConfigError, ImaginationError, ReplayError), match=words):
        make()


def test_imagined_replay_that_does_not_fit_names_its_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Rollouts(rollouts=1_000, batch=100, retained_epochs=50, horizon=Ramp(1, 4))
    monkeypatch.setattr(buffer_module, "free_bytes", lambda device, shared: 1_000_000)
    with pytest.raises(ImaginationError, match=r"replay of imagined transitions needs 0\.0 GB but") as found:
        imaginer(settings)
    (fitting,) = re.findall(r"imagination\.capacity to ([\d,]+),", str(found.value))
    _, made = imaginer(dataclasses.replace(settings, capacity=int(fitting.replace(",", ""))))
    assert made.replay is not None
    assert 500_000 < made.replay.nbytes <= 1_000_000


def with_exploration(exploration: Any) -> Run:
    return Run("Hopper-v5", SAC(model=MODEL, exploration=exploration), "x", imagination=Rollouts())


@pytest.mark.parametrize("share", [0.0, 0.25])
@pytest.mark.parametrize(
    ("config", "column"),
    [(TD3(**TINY, cloning=ActionDistance(critic=0.1)), "next_action"), (CQL(**TINY, calibration=ReturnBound()), "goal_return")],
)
def test_agents_that_read_what_is_not_imagined_are_refused(config: Any, column: str, share: float) -> None:
    """A penalty that finds no next action would silently be zero for real rows too."""
    model = dataclasses.replace(MODEL, fresh_share=share)
    agent = dataclasses.replace(config, model=model).build(
        SPEC, num_envs=1, total_updates=9, seed=0, execution=Execution(compile=False)
    )
    setting = Setting(agent, (replay(),), lambda: terminations.never, 8, 1, 5, 0, lambda words: None)
    with pytest.raises(ImaginationError, match=f"this agent reads {column}"):
        Imaginer(Rollouts(rollouts=0 if share else 40, batch=20), setting)


def test_a_round_as_large_as_the_capacity_is_kept_whole() -> None:
    """The row behind each rollout that is no transition takes none of the room."""
    _, found = imaginer(Rollouts(rollouts=20, batch=20, horizon=Ramp(3, 3), capacity=60))
    found.mixed(UniformSampler(found.setting.buffers[0], 8, 1, 0.9, 0))
    for count in (0, 250):
        found.imagine(count)
        assert int(found.sampler.count) == 60


def test_a_task_whose_end_is_unknown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvError, match="register"):
        Online(small("MountainCarContinuous-v0", Rollouts(rollouts=20, batch=20)), tmp_path)


def test_a_diverging_model_is_named() -> None:
    agent, found = imaginer(Rollouts(rollouts=20, batch=20))
    found.mixed(UniformSampler(found.setting.buffers[0], 8, 1, 0.9, 0))
    found.imagine(0)
    agent.model.network.biases[-1].data.fill_(torch.inf)
    with pytest.raises(DivergenceError, match="the dynamics model diverged: it imagined"):
        found.roll()


@pytest.mark.parametrize(
    ("mixing", "fit_interval", "steps"), [(RealShare(), 25, 77), (Coin(Ramp(0.3, 0.9, 1, 3)), 25, 77), (RealShare(), 30, 95)]
)
def test_a_run_with_a_model_resumes_as_if_it_had_not_stopped(
    mixing: Any, fit_interval: int, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the epoch, and with it the horizon, has changed since the newest rollouts."""
    rollouts = Rollouts(fit_interval=fit_interval, rollouts=40, batch=20, horizon=Ramp(1, 3, 1, 3), epoch=25, mixing=mixing)
    model = dataclasses.replace(MODEL, objective=ValueGradient(low_clip=0.05), fresh_share=0.25)
    run = small("Hopper-v5", rollouts, model, distractors=2, first_actions="policy", acting="mode")
    whole = Online(run, tmp_path / "whole")
    whole.train()
    stopped = Online(run, tmp_path / "parts")
    while stopped.steps < steps:
        stopped.step()
    stopped.save()
    parts = Online(run, tmp_path / "parts")
    assert parts.steps == steps
    parts.train()
    one, other = whole.state_dict(), parts.state_dict()
    for name, value in one["agent"].items():
        if isinstance(value, Tensor):
            assert torch.equal(value, other["agent"][name]), name
    assert one["sampler"]["second"]["generator"].equal(other["sampler"]["second"]["generator"])
    assert one["imagination"]["metrics"] == other["imagination"]["metrics"]
    assert whole.imagination.replay is not None
    assert parts.imagination.replay is not None
    assert torch.equal(whole.imagination.replay.data, parts.imagination.replay.data)
    assert whole.imagination.metrics["model/horizon"] == 3
    assert "model/distractor_share" in whole.imagination.metrics
    found = checkpoint.latest(tmp_path / "parts" / "checkpoints")
    assert found is not None
    assert (found / "imagined").is_dir()


def test_mbpo_learns_a_probe_from_5_percent_real_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reward 1 - (action - 0.5)^2, over after one step: nearly all batches are imagined."""
    monkeypatch.setattr(terminations, "REGISTERED", {"probe-action": lambda obs: torch.ones(len(obs), dtype=torch.bool)})
    agent = SAC(
        actor=MLP((32,)),
        critic=MLP((32,)),
        batch_size=64,
        optimizer=Adam(5e-3),
        target_rate=0.1,
        initial_temperature=1e-3,
        entropy_per_action=-3.0,
        model=Ensemble(
            members=3, elites=2, hidden=(32,), epochs=40, batch_size=32, optimizer=Adam(1e-2), objective=SquaredError()
        ),
    )
    run = small("probe-action", Rollouts(fit_interval=50, rollouts=200, batch=100, epoch=100, retained_epochs=2))
    run = dataclasses.replace(
        run,
        agent=agent,
        env_steps=480,
        random_steps=80,
        schedule=FixedRatio(2.0),
        checkpoint_interval=480,
        evaluation_interval=480,
    )
    loop = Online(run, tmp_path)
    loop.train()
    action = loop.agent.act(torch.zeros(1, 1), explore=False)
    assert float(action) == pytest.approx(0.5, abs=0.15)
    assert loop.imagination.metrics["model/imagined_reward"] > 0.8


def test_offline_from_a_file_with_refits_and_then_online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env, generator = envs.make("Pendulum-v1", 1), torch.Generator().manual_seed(0)
    obs, rows = env.reset(seed=0), []
    for _ in range(200):
        action = env.spec.random_action(1, generator)
        step = env.step(action)
        rows.append((obs[0].numpy(), action[0].numpy(), float(step.reward), step.next_obs[0].numpy()))
        obs = step.obs
    columns = [np.stack([row[place] for row in rows]).astype(np.float32) for place in range(4)]
    end = np.arange(200) == 199
    dataset = Dataset(
        name="swing",
        task=None,
        obs=columns[0],
        action=columns[1],
        reward=columns[2],
        next_obs=columns[3],
        next_action=np.concatenate((columns[1][1:], columns[1][-1:])),
        terminated=end & False,
        truncated=end,
        returns=np.array([columns[2].sum(dtype=np.float64)]),
    )
    path = write_hdf5(tmp_path / "swing.hdf5", dataset)
    rollouts = Rollouts(fit_interval=20, rollouts=20, batch=20, offline_fit_interval=120, offline_rollout_interval=30)
    base = small("Pendulum-v1", rollouts, dataclasses.replace(MODEL, objective=ValueGradient()))
    fields: dict[str, Any] = {f.name: getattr(base, f.name) for f in dataclasses.fields(base)}
    make: Any = Transfer
    run: Transfer = make(**(fields | {"env_steps": 30, "random_steps": 0}), dataset=str(path), offline_updates=250)
    loop = Pipeline(run, tmp_path / "run")
    began: dict[str, list[int]] = {"fit": [], "roll": []}
    for name, calls in began.items():
        original = getattr(loop.imagination, name)
        monkeypatch.setattr(loop.imagination, name, lambda calls=calls, go=original: (calls.append(loop.steps), go()))
    loop.train()
    assert began == {"fit": [0, 120, 240, 270], "roll": [*range(0, 250, 30), 270]}  # and online after 20 steps
    assert int(loop.agent.model.fits) == 3 + 1
    assert loop.imagination.metrics["model/rows"] == 220


@pytest.mark.parametrize("name", MODELS)
def test_presets_round_trip_and_keep_their_names(name: str) -> None:
    run = MODELS[name]
    assert plain.from_plain(json.loads(json.dumps(plain.to_plain(run), allow_nan=False))) == run
    assert run.preset == name
    assert shrinking.debug(run).agent != run.agent


@pytest.mark.parametrize("name", ["vagram-hopper", "mad-td"])
def test_presets_run_in_debug(name: str, tmp_path: Path) -> None:
    run = dataclasses.replace(shrinking.debug(MODELS[name]), log_to=())
    folder = train(run, tmp_path)
    assert (folder / "train.csv").read_text().count("\n") == 4


def test_a_fifth_is_held_out_and_never_more_than_the_source_has() -> None:
    """5,000 rows in MBPO's code, no limit in VaGraM's."""
    for name, run in MODELS.items():
        agent: Any = run.agent
        published = name.startswith(("vagram", "likelihood", "wide")) and name != "vagram-pendulum"
        assert agent.model.holdout == 0.2
        assert agent.model.holdout_limit == (None if published else 1_000 if name == "vagram-pendulum" else 5_000), name
    assert MODELS["vagram-walker2d"].agent.model.held_out(400_000) == 80_000  # pyright: ignore


def test_vagram_hopper_has_the_authors_numbers() -> None:
    run = MODELS["vagram-hopper"]
    agent: Any = run.agent
    model, rollouts = agent.model, run.imagination
    assert isinstance(rollouts, Rollouts)
    assert (model.members, model.elites, model.hidden, model.batch_size, model.patience) == (7, 5, (200,) * 4, 1024, 10)
    assert (model.optimizer, model.weight_decay, model.objective) == (Adam(1e-3), (5e-5,), ValueGradient())
    assert (rollouts.fit_interval, rollouts.rollouts, rollouts.retained_epochs) == (250, 100_000, 1)
    assert [rollouts.horizon(epoch) for epoch in (20, 150)] == [1, 5]
    assert isinstance(rollouts.mixing, Coin)
    assert rollouts.mixing.probability(20) == 0.95
    assert (run.random_steps, run.first_actions, run.acting, run.schedule) == (10_000, "policy", "mode", FixedRatio(20.0))
    assert (agent.optimizer, agent.actor_optimizer, agent.temperature_optimizer) == (Adam(3e-4), Adam(3e-5), Adam(3e-4))
    assert agent.entropy_per_action * 3 == pytest.approx(-1)
    assert (agent.policy_delay, agent.target_delay, agent.critic.unit_features) == (1, 4, True)
