"""Collecting from worlds that live on the learner's device: the same transitions as elsewhere, no wait for the device, resumed bit for bit."""

import dataclasses
import importlib
import runpy
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from steelyard.agents.agent import Execution
from steelyard.agents.networks import MLP, SimbaV2
from steelyard.agents.networks.exploration import HeldNoise, NoiseRange
from steelyard.agents.networks.heads import Categorical
from steelyard.agents.networks.normalizers import ReturnScale, RunningNorm
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.envs.vector import EnvError, ResidentEnv
from steelyard.trainers import builders, checkpoint
from steelyard.trainers.buffer import ReplayBuffer, ReplayError
from steelyard.trainers.collector import LocalCollector
from steelyard.trainers.config import ConfigError, Run, Transfer
from steelyard.trainers.learner import Learner
from steelyard.trainers.online import Online, train
from steelyard.trainers.resident_collector import ResidentCollector
from steelyard.trainers.samplers import Uniform
from steelyard.trainers.schedules import FixedRatio, PerStep
from steelyard.trainers.tables import read_columns

Drift: Any = runpy.run_path(str(Path(__file__).with_name("resident_worlds.py")))["Drift"]
WORLDS = 8
TINY: dict[str, Any] = {"actor": MLP((16,)), "critic": MLP((16,)), "batch_size": 32, "n_step": 3}
NORMAL: dict[str, Any] = {"observations": RunningNorm(), "rewards": ReturnScale(), "head": Categorical(21)}
AGENTS: dict[str, Any] = {
    "sac": SAC(**TINY, **NORMAL, target_value="own", exploration=HeldNoise()),
    "td3": TD3(**TINY, **NORMAL, exploration=NoiseRange(), exploration_noise=1.0),
    "simba-v2": SAC(**(TINY | {"actor": SimbaV2(8, 1), "critic": SimbaV2(16, 1)}), **NORMAL),
}
WAITS = {"aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2"}
"""Operations that wait for the device that their tensors lie on."""


class NoWaiting(TorchDispatchMode):
    """Fails the test if anything asks the device a question, or carries a tensor off it."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = function._schema.name, kwargs or {}
        assert name not in WAITS, f"{name} waits for the device"
        moved = name == "aten::_to_copy" and args[0].device.type == "meta" and kwargs.get("device") == torch.device("cpu")
        assert not moved, "a tensor leaves the device"
        return function(*args, **kwargs)


def parts(
    name: str, kind: type = ResidentCollector, device: str = "cpu", seed: int = 0
) -> tuple[Any, Any, ReplayBuffer, Learner]:
    env = Drift(WORLDS, device, staggered=True)
    agent = AGENTS[name].build(
        env.spec, num_envs=WORLDS, total_updates=100, seed=seed, device=device, execution=Execution(compile=False)
    )
    replay = ReplayBuffer(env.spec, 30 * WORLDS, WORLDS, "device", device)
    collector = kind(env, agent, replay, 3 * WORLDS, seed)
    sampler = Uniform().build(replay, 32, 3, agent.gamma, seed)
    learning = Learner(agent, sampler, Path())
    learning.looks = False  # as on a GPU: the loop looks once per row of the log
    return collector, agent, replay, learning


def equal(first: Any, second: Any) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            equal(first[key], second[key])
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first.nan_to_num(7.0), second.nan_to_num(7.0))
    else:
        assert first == second


def test_the_worlds_of_these_tests_are_resident() -> None:
    assert isinstance(Drift(2), ResidentEnv)


@pytest.mark.parametrize("kind", [ResidentCollector, LocalCollector])
def test_worlds_of_two_runs_have_different_seeds_however_many_there_are(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    reset = Drift.reset

    def noted(self: Any, seed: int) -> torch.Tensor:
        begun.append(seed)
        return reset(self, seed)

    monkeypatch.setattr(Drift, "reset", noted)
    monkeypatch.setattr(importlib.import_module(kind.__module__), "SEEDS_PER_RUN", 5)
    for seed in (0, 1, 3):
        parts("td3", kind, seed=seed)
    assert begun[1::2] == [0, WORLDS, 3 * WORLDS]  # worlds begin once when they are made


@pytest.mark.parametrize("name", AGENTS)
def test_it_stores_and_learns_what_the_plain_collector_does(name: str) -> None:
    one, other = parts(name), parts(name, LocalCollector)
    found: list[Any] = []
    for step in range(48):
        for collector, _, _, learning in (one, other):
            assert collector.collect() == WORLDS
            if step >= 3:
                learning.update(1)
        if step % 24 == 23:
            (mean,), every = one[0].episodes(), other[0].episodes()
            assert mean.count == len(every) > 20
            assert mean.score == pytest.approx(sum(episode.score for episode in every) / len(every), rel=1e-6)
            assert mean.length == pytest.approx(sum(episode.length for episode in every) / len(every), rel=1e-6)
            found += every
    assert {episode.length for episode in found} > {5, 6, 7}
    assert torch.equal(one[2].data, other[2].data)
    assert torch.equal(one[2].cursors, other[2].cursors)
    equal(one[1].state_dict(), other[1].state_dict())
    assert one[0].episodes() == []


@pytest.mark.parametrize("name", AGENTS)
def test_nothing_waits_for_the_device_while_collecting_and_learning(name: str) -> None:
    collector, _, _, learning = parts(name)
    with NoWaiting():
        for step in range(20):
            collector.collect()
            if step >= 3:
                learning.update(2)
    assert learning.agent.update_count == 34
    assert collector.env.looks == 0
    collector.episodes()
    assert collector.env.looks == 1


def test_the_plain_collector_waits() -> None:
    """The test above can fail."""
    with pytest.raises(AssertionError, match="waits for the device"), NoWaiting():
        parts("sac", LocalCollector)[0].collect()


@pytest.mark.parametrize("name", AGENTS)
def test_everything_stays_on_the_device(name: str, without_storage: None) -> None:
    """On torch's device without storage: what mixes devices, or asks for a value, raises there."""
    collector, agent, replay, learning = parts(name, device="meta")
    assert {p.device.type for p in agent.parameters()} == {"meta"} == {replay.data.device.type}
    with NoWaiting():
        for step in range(6):
            collector.collect()
            if step >= 3:
                learning.update(1)
    assert {value.device.type for value in learning.metrics.values()} == {"meta"}


def small_run(name: str = "td3", **changes: Any) -> Run:
    run = Run(
        "drift",
        AGENTS[name],
        "resident",
        env_steps=80 * WORLDS,
        num_envs=WORLDS,
        vectorization="warp",
        random_steps=10 * WORLDS,
        schedule=PerStep(1.5),
        capacity=30 * WORLDS,
        evaluation_interval=40 * WORLDS,
        evaluation_episodes=3,
        log_interval=20 * WORLDS,
        checkpoint_interval=25 * WORLDS,
        threads=1,
        execution=Execution(compile=False),
        log_to=(),
        device="cpu",
    )
    return dataclasses.replace(run, **changes)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was asked of `envs.make`, which makes the worlds of these tests."""
    asked: list[dict[str, Any]] = []

    def make(task: str, num_envs: int, **options: Any) -> Any:
        asked.append(options | {"num_envs": num_envs})
        return Drift(num_envs, staggered=options.get("staggered", False))

    monkeypatch.setattr("steelyard.trainers.builders.envs.make", make)
    return asked


@pytest.mark.parametrize("name", AGENTS)
def test_stopped_and_resumed_equals_uninterrupted(
    name: str, made: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, collect, calls = small_run(name), ResidentCollector.collect, [0]
    whole = train(run, tmp_path / "whole")

    def collect_and_signal(self: ResidentCollector) -> int:
        calls[0] += 1
        if calls[0] == 43:
            signal.raise_signal(signal.SIGTERM)
        return collect(self)

    with monkeypatch.context() as patch:
        patch.setattr(ResidentCollector, "collect", collect_and_signal)
        with pytest.raises(KeyboardInterrupt):
            train(run, tmp_path / "parts")
    stopped = checkpoint.latest(run.folder(tmp_path / "parts") / "checkpoints")
    assert stopped is not None
    assert checkpoint.load(stopped)[0] == 43 * WORLDS
    parts_ = train(run, tmp_path / "parts")
    one, other = Online(run, whole), Online(run, parts_)
    assert isinstance(one.collector, ResidentCollector)
    assert one.buffer.placement == "device"
    equal(one.state_dict(), other.state_dict())
    assert torch.equal(one.buffer.data, other.buffer.data)
    for table in ("train.csv", "eval.csv"):
        columns = [
            c for c in ("env_steps", "updates", "train/return", "train/length", "eval/return") if c in header(whole / table)
        ]
        assert read_columns(whole / table, columns) == read_columns(parts_ / table, columns)
    assert one.agent.update_count == (80 - 10) * 3 // 2


def header(path: Path) -> list[str]:
    return path.read_text().splitlines()[0].split(",")


def test_worlds_of_training_are_staggered_and_those_of_evaluation_are_not(made: list[dict[str, Any]], tmp_path: Path) -> None:
    Online(small_run(), tmp_path)
    evaluation, training = made
    assert (evaluation["num_envs"], evaluation["staggered"], evaluation["vectorization"]) == (3, False, "warp")
    assert (training["num_envs"], training["staggered"], training["vectorization"]) == (WORLDS, True, "warp")
    assert training["device"] == torch.device("cpu")


def test_the_last_and_the_best_policy_are_scored_on_the_published_simulator(made: list[dict[str, Any]], tmp_path: Path) -> None:
    folder = train(small_run(transfer_episodes=5, env_steps=30 * WORLDS), tmp_path)
    assert (made[-1]["num_envs"], made[-1]["vectorization"]) == (5, "sync")
    found = read_columns(folder / "eval.csv", ["transfer/return", "transfer/best_return", "transfer/episodes"])
    assert found["transfer/episodes"] == [5.0]
    assert all(len(column) == 1 for column in found.values())
    # Neither the worlds' scores nor the readers of the curve see that row.
    assert len(read_columns(folder / "eval.csv", ["eval/return"])["eval/return"]) == 1


def test_what_goes_wrong_in_the_worlds_is_said_at_the_next_row_of_the_log(
    made: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ResidentCollector, "act", lambda self: self.still + 2)
    with pytest.raises(EnvError, match="out of bounds"):
        train(small_run(), tmp_path)
    assert not read_rows(small_run().folder(tmp_path) / "train.csv")


def read_rows(path: Path) -> list[str]:
    return path.read_text().splitlines()[1:] if path.exists() else []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"actors": 2}, "actors are given"),
        ({"distractors": 5}, "distractors are given"),
        ({"capacity": 3 * WORLDS}, "n_step . 1 = 4 transitions of each of 8 worlds; give at least 32"),
        ({"env_steps": 24}, "replay never holds more than 24 transitions"),
        ({"transfer_episodes": -1}, "give zero or more"),
        ({"schedule": FixedRatio(1.0), "vectorization": "sync", "actors": 1}, "NoiseRange, and actors"),
    ],
)
def test_runs_that_cannot_be_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        small_run(**changes)


def test_a_run_that_begins_with_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="vectorization is warp"):
        Transfer("Hopper-v5", SAC(), "sac", vectorization="warp", dataset="hopper-medium-v2")


def test_replay_that_does_not_fit_is_refused_before_it_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steelyard.trainers.buffer.free_bytes", lambda device, shared=False: 10_000_000)
    with pytest.raises(ReplayError, match=r"capacity 4,194,304 needs 0.2 GB but the memory of cpu has 0.0 GB free; choose"):
        builders.build_buffer(small_run(capacity=4_194_304, env_steps=10**8), Drift(1).spec, 4096)
