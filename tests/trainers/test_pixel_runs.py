"""Runs that learn from pixels: stopped and resumed, collected by other processes, on the command line and on film."""

import csv
import dataclasses
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from steelyard.agents.drqv2 import DrQV2
from steelyard.agents.sac import SAC
from steelyard.agents.types import Spec
from steelyard.envs import Pictures
from steelyard.trainers import checkpoint, command_line, plain, shrinking
from steelyard.trainers.builders import build_buffer
from steelyard.trainers.collector import LocalCollector
from steelyard.trainers.config import ConfigError, Run, Transfer
from steelyard.trainers.online import Online, train
from steelyard.trainers.recording import RecordingError, open_policy

needs_gl = pytest.mark.skipif(os.environ.get("MUJOCO_GL") == "disabled", reason="no OpenGL library on this machine")

PRESET = Run(
    "reacher-easy",
    DrQV2(),
    "drq-v2",
    action_repeat=25,
    pictures=Pictures(stack=3, rendering="fast"),
)
RUN = dataclasses.replace(
    shrinking.debug(PRESET),
    env_steps=100 * 25,
    random_steps=40,
    log_interval=20 * 25,
    evaluation_interval=70 * 25,
    checkpoint_interval=30 * 25,
    log_to=(),
)
CLOCKS = {"seconds", "time/env_steps_per_second", "time/updates_per_second"}


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open() as file:
        return [{key: value for key, value in row.items() if key not in CLOCKS} for row in csv.DictReader(file)]


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))
    return a == b or (a != a and b != b)


def stacks_are_whole(online: Online) -> bool:
    """Whether every transition's two stacks overlap as one frame apart, and differ."""
    buffer = online.buffer
    batch = buffer.gather(buffer.valid.nonzero().flatten(), 1)
    size = buffer.spec.obs_size // 3
    return torch.equal(batch.obs[:, size:], batch.next_obs[:, :-size]) and not torch.equal(batch.obs, batch.next_obs)


@needs_gl
def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(RUN, tmp_path / "whole")
    collect, calls = LocalCollector.collect, []

    def collect_and_signal(self: LocalCollector) -> int:
        calls.append(1)
        if len(calls) == 73:
            signal.raise_signal(signal.SIGTERM)
        return collect(self)

    with monkeypatch.context() as patch:
        patch.setattr(LocalCollector, "collect", collect_and_signal)
        with pytest.raises(KeyboardInterrupt):
            train(RUN, tmp_path / "parts")
    stopped = checkpoint.latest(RUN.folder(tmp_path / "parts") / "checkpoints")
    assert stopped is not None
    assert 0 < checkpoint.load(stopped)[0] < RUN.env_steps
    parts = train(RUN, tmp_path / "parts")
    one, other = (Online(RUN, folder) for folder in (whole, parts))
    assert equal(one.state_dict(), other.state_dict())
    assert all(map(torch.equal, one.buffer._tables(), other.buffer._tables()))
    assert stacks_are_whole(one)
    assert rows(whole, "eval.csv") == rows(parts, "eval.csv")
    assert rows(whole, "train.csv") == rows(parts, "train.csv")
    assert one.introduction()[0].startswith("pictures: 24 x 24, 3 frames, fast rendering through ")
    assert "(one 1,728-byte frame each)" in one.introduction()[1]
    one.close()
    other.close()


@needs_gl
def test_other_processes_draw_and_write_into_shared_replay(tmp_path: Path) -> None:
    run = dataclasses.replace(
        RUN, actors=2, num_envs=2, env_steps=2 * RUN.env_steps
    )  # so long that the second actor comes in time
    online = Online(run, tmp_path)
    assert online.buffer.placement == "shared"
    assert all(table.is_shared() for table in online.buffer._tables())
    online.train()
    assert online.env_steps == run.env_steps
    assert int(online.buffer.valid.sum()) == run.env_steps // run.action_repeat
    assert stacks_are_whole(online)
    assert (online.buffer.cursors > 10).all()


def test_replay_has_room_for_the_run_and_the_ends_of_its_episodes() -> None:
    """100,000 frames of two a decision are 50,000 transitions; the suite's episodes of 500 end in a row of their own each."""
    run = dataclasses.replace(PRESET, env_steps=100_000, action_repeat=2)
    suite = Spec(3 * 3 * 8**2, 2, 500, can_terminate=False, picture=(9, 8, 8), frames=3)
    assert build_buffer(run, suite, 1).window == 50_000 + 100 + 2
    assert build_buffer(run, suite, 4).window == (50_000 + 100 + 8) // 4
    assert build_buffer(run, dataclasses.replace(suite, can_terminate=True), 1).window == 100_002
    assert build_buffer(dataclasses.replace(run, capacity=9_000), suite, 1).window == 9_000
    # A fast actor may collect more than its share.
    assert build_buffer(dataclasses.replace(run, actors=2), suite, 2).window == 50_000


def test_on_the_command_line(tmp_path: Path) -> None:
    arguments = ["drq-v2", "--debug", "--root", str(tmp_path), "--pictures.size", "20", "--pictures.stack", "2"]
    run, launch = command_line.read({"drq-v2": PRESET}, "Train from pixels.", arguments)
    assert run.pictures == Pictures(size=20, stack=2, rendering="fast")
    assert launch.debug
    assert run.agent == shrinking.debug(PRESET).agent


def test_debugging_shrinks_pictures() -> None:
    assert RUN.pictures == Pictures(size=24, stack=3, rendering="fast")


def test_pictures_are_saved_with_the_run(tmp_path: Path) -> None:
    plain.save(RUN, tmp_path / "config.json")
    assert plain.load(tmp_path / "config.json") == RUN


def test_runs_that_begin_with_data_have_none() -> None:
    with pytest.raises(ConfigError, match="pictures are given, but data sets hold other observations"):
        Transfer("hopper-hop", SAC(), "x", dataset="y", pictures=Pictures())


def test_agents_that_see_pictures_are_not_recorded(tmp_path: Path) -> None:
    plain.save(RUN, tmp_path / "config.json")
    with pytest.raises(RecordingError, match="acts from pictures"):
        open_policy(str(tmp_path))


@needs_gl
def test_scored_and_filmed_from_its_folder(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = dataclasses.replace(RUN, env_steps=60 * 25, evaluation_interval=10**6)
    folder = train(run, tmp_path)
    monkeypatch.syspath_prepend(repository / "scripts")
    import evaluate  # pyright: ignore[reportMissingImports]

    monkeypatch.setattr(evaluate, "PICTURE", 32)
    found = evaluate.score(evaluate.Evaluate(folder, episodes=2))
    sys.modules.pop("evaluate")
    assert len(found["returns"]) == 2
    assert found["lengths"] == (40, 40)
    assert Path(found["video"]).stat().st_size > 500
