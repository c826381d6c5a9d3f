"""Stopping and resuming equals not stopping, bit for bit, whatever stopped the run."""

import csv
import dataclasses
import multiprocessing
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from steelyard.trainers import checkpoint, presets, shrinking
from steelyard.trainers.adaptive_ratio import AdaptiveRatio
from steelyard.trainers.collector import LocalCollector
from steelyard.trainers.config import ConfigError, Run
from steelyard.trainers.learner import Learner
from steelyard.trainers.online import Online, train
from steelyard.trainers.schedules import FixedRatio, Priming

CLOCKS = {"seconds", "time/env_steps_per_second", "time/updates_per_second"}


def small(run: Run, task: str, decisions: int, checkpoint: int, evaluation: int, action_repeat: int = 1, **changes: Any) -> Run:
    """A run of so many decisions of each world. Where episodes are long a large action repeat lets some end, and evaluations too."""
    run = shrinking.debug(dataclasses.replace(run, task=task, action_repeat=action_repeat))
    steps = action_repeat * changes.get("num_envs", 1)
    run = dataclasses.replace(run, env_steps=decisions * steps, checkpoint_interval=checkpoint * steps, log_interval=20 * steps)
    return dataclasses.replace(run, evaluation_interval=evaluation * steps, random_steps=40, log_to=(), **changes)


def frequent(run: Run) -> Run:
    """The same with an update for every step, and generations that change within a few of them."""
    agent: Any = run.agent
    agent = dataclasses.replace(agent, target_period=7, weighting=dataclasses.replace(agent.weighting, period=9))
    return dataclasses.replace(run, agent=agent, schedule=FixedRatio(1.0))


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open() as file:
        return [{key: value for key, value in row.items() if key not in CLOCKS} for row in csv.DictReader(file)]


def equal(a: Any, b: Any, where: str = "state") -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            equal(x, y, f"{where}[{number}]")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)), where
    else:
        assert a == b or (a != a and b != b), where


def stop_after(calls: int, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    collect, count = LocalCollector.collect, {"calls": 0}

    def collect_and_signal(self: LocalCollector) -> int:
        count["calls"] += 1
        if count["calls"] == calls:
            signal.raise_signal(number)
        return collect(self)

    monkeypatch.setattr(LocalCollector, "collect", collect_and_signal)


RUNS = {
    "sac-gymnasium": small(presets.MUJOCO["sac"], "Hopper-v5", 120, 50, 60),
    "td3-gymnasium-two-worlds": small(presets.MUJOCO["td3"], "HalfCheetah-v5", 110, 45, 80, action_repeat=20, num_envs=2),
    "simba-dmc": small(presets.DMC["simba-v2"], "cartpole-swingup", 110, 40, 80, action_repeat=20),
    "sac-dmc-reacher": small(presets.DMC["sac"], "reacher-easy", 110, 40, 1_000, action_repeat=20),
    "sac-adaptive-ratio-meters": small(
        presets.MUJOCO["sac"],
        "Hopper-v5",
        180,
        90,
        100,
        schedule=AdaptiveRatio(low=0.5, high=2, interval=25, window=25, threshold=0.5, checks=3),
        meter_interval=30,
    ),
    "sac-priming": small(presets.MUJOCO["sac"], "Hopper-v5", 120, 50, 150, schedule=Priming(updates=120, transitions=5)),
    "dvw-m-dqn-choices": small(frequent(presets.MINATAR["dvw-m-dqn-classic"]), "CartPole-v1", 120, 50, 60),
    "qrc-huber-choices-two-worlds": small(presets.MINATAR["qrc-huber-classic"], "CartPole-v1", 110, 45, 80, num_envs=2),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of SAC's run, never interrupted."""
    return train(RUNS["sac-gymnasium"], tmp_path_factory.mktemp("finished"))


@pytest.mark.parametrize("name", RUNS)
def test_stopped_by_a_signal_and_resumed_equals_uninterrupted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RUNS[name]
    whole = train(run, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(70, patch, signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            train(run, tmp_path / "parts")
    stopped = checkpoint.latest(run.folder(tmp_path / "parts") / "checkpoints")
    assert stopped is not None
    assert checkpoint.load(stopped)[0] < run.env_steps
    parts = train(run, tmp_path / "parts")
    one, other = (Online(run, folder) for folder in (whole, parts))
    equal(one.state_dict(), other.state_dict())
    assert torch.equal(one.buffer.data, other.buffer.data)
    assert torch.equal(one.buffer.cursors, other.buffer.cursors)
    assert rows(whole, "eval.csv") == rows(parts, "eval.csv")
    assert rows(whole, "train.csv") == rows(parts, "train.csv")


def test_a_long_priming_is_saved_in_its_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More updates than one look at signals: the rest of them is in the checkpoint, and nothing is collected before."""
    monkeypatch.setattr("steelyard.trainers.online.MOST", 40)
    run, update, count = RUNS["sac-priming"], Learner.update, [0]
    whole = train(run, tmp_path / "whole")

    def update_and_signal(self: Learner, number: int) -> None:
        count[0] += number
        if count[0] == 80:
            signal.raise_signal(signal.SIGTERM)
        update(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", update_and_signal)
        with pytest.raises(KeyboardInterrupt):
            train(run, tmp_path / "parts")
    stopped = checkpoint.latest(run.folder(tmp_path / "parts") / "checkpoints")
    assert stopped is not None
    assert checkpoint.load(stopped)[1]["backlog"] == 40
    parts = train(run, tmp_path / "parts")
    assert rows(whole, "train.csv") == rows(parts, "train.csv")
    equal(Online(run, whole).state_dict(), Online(run, parts).state_dict())


def test_a_run_ends_with_all_updates_of_its_last_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be more than the loop makes between two looks at its clocks; the last evaluation comes after them."""
    monkeypatch.setattr("steelyard.trainers.online.MOST", 7)
    run = small(presets.MUJOCO["sac"], "Pendulum-v1", 12, 12, 12, num_envs=5, schedule=FixedRatio(4.0))
    run = dataclasses.replace(run, log_interval=60)
    folder = train(run, tmp_path)
    assert [(row["env_steps"], row["updates"]) for row in rows(folder, "eval.csv")] == [("0", "0"), ("60", "80")]
    assert rows(folder, "train.csv")[-1]["updates"] == "80"


def test_meters_change_nothing_but_add_columns(tmp_path: Path) -> None:
    run = RUNS["sac-adaptive-ratio-meters"]
    metered = train(run, tmp_path / "metered")
    bare = train(dataclasses.replace(run, meter_interval=0), tmp_path / "bare")
    with_meters, without = rows(metered, "train.csv"), rows(bare, "train.csv")
    assert [{key: row[key] for key in without[0]} for row in with_meters] == without
    assert [int(row["env_steps"]) for row in with_meters if row["meter/critic/active"]] == [60, 100, 120, 160, 180]
    assert with_meters[-1]["schedule/ratio"] == "2.0"
    assert rows(metered, "eval.csv") == rows(bare, "eval.csv")
    one, other = (Online(r, f).state_dict() for r, f in ((run, metered), (dataclasses.replace(run, meter_interval=0), bare)))
    del one["clocks"]["meter"]
    equal(one, other)


def test_the_same_seed_repeats_a_run_and_another_does_not(finished: Path, tmp_path: Path) -> None:
    again, other = (rows(train(dataclasses.replace(RUNS["sac-gymnasium"], seed=seed), tmp_path), "train.csv") for seed in (0, 1))
    assert rows(finished, "train.csv") == again
    assert rows(finished, "train.csv") != other


def test_killed_at_random_moments_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    run = dataclasses.replace(RUNS["sac-gymnasium"], env_steps=700, checkpoint_interval=50, evaluation_interval=200)
    whole = train(run, tmp_path / "whole")
    killed, delays, kills = run.folder(tmp_path / "killed"), random.Random(0), 0
    server = multiprocessing.get_context("forkserver")  # which imports the suite once for all processes
    server.set_forkserver_preload(["steelyard.trainers.online"])
    for _ in range(3):
        before = checkpoint.latest(killed / "checkpoints")
        process = server.Process(target=train, args=(run, tmp_path / "killed"))
        process.start()
        while process.is_alive() and checkpoint.latest(killed / "checkpoints") == before:
            time.sleep(0.01)
        time.sleep(delays.uniform(0.0, 0.5))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    assert kills  # on a machine so fast that the run ends before, give it more steps
    train(run, tmp_path / "killed")
    assert rows(whole, "eval.csv") == rows(killed, "eval.csv")
    assert rows(whole, "train.csv") == rows(killed, "train.csv")


def test_another_configuration_in_the_same_folder_is_refused(finished: Path) -> None:
    run, root = RUNS["sac-gymnasium"], finished.parents[2]
    with pytest.raises(ConfigError, match=r"agent\.batch_size \(16 before, 8 now\)"):
        train(dataclasses.replace(run, agent=dataclasses.replace(run.agent, batch_size=8)), root)


def test_fresh_starts_anew(finished: Path, tmp_path: Path) -> None:
    run = RUNS["sac-gymnasium"]
    old = shutil.copytree(finished, run.folder(tmp_path)) / "left by the old run"
    old.touch()
    assert rows(train(run, tmp_path, fresh=True), "train.csv") == rows(finished, "train.csv")
    assert not old.exists()


def test_worlds_that_cannot_be_saved_start_new_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = dataclasses.replace(RUNS["td3-gymnasium-two-worlds"], vectorization="async")
    with monkeypatch.context() as patch:
        stop_after(70, patch, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            train(run, tmp_path)
    folder = train(run, tmp_path)
    last = checkpoint.latest(folder / "checkpoints")
    assert last is not None
    assert checkpoint.load(last)[0] == run.env_steps
