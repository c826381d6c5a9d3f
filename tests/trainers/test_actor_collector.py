"""Actors in other processes, seen from the training loop."""

import dataclasses
import importlib
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from steelyard.agents.types import Spec
from steelyard.envs import EnvError, Randomization
from steelyard.trainers import checkpoint, plain, presets, shrinking
from steelyard.trainers.actor_collector import ActorCollector
from steelyard.trainers.actors import ActorPool
from steelyard.trainers.cluster import ClusterError
from steelyard.trainers.collected import ActorError
from steelyard.trainers.collecting import RayActors, worlds
from steelyard.trainers.config import ConfigError
from steelyard.trainers.online import Online, train
from steelyard.trainers.schedules import Every, FixedRatio

SPEC = Spec(obs_size=3, action_size=1)

RUN = dataclasses.replace(
    shrinking.debug(presets.MUJOCO["sac"]), task="Pendulum-v1", actors=2, env_steps=240, checkpoint_interval=100, log_to=()
)


def test_counts_are_exact_and_actors_get_the_newest_policy(tmp_path: Path) -> None:
    online = Online(RUN, tmp_path)
    collector = online.collector
    assert isinstance(collector, ActorCollector)
    online.train()
    assert online.env_steps == RUN.env_steps
    assert online.agent.update_count == RUN.env_steps - RUN.random_steps
    assert int(online.buffer.valid.sum()) == RUN.env_steps
    assert isinstance(collector.pool, ActorPool)
    assert int(collector.pool.weights.version) > 2
    published = collector.pool.weights.newer(0)
    assert published is not None
    for name, value in online.agent.explorer().state_dict().items():
        assert torch.equal(published[1][name], value), name


@pytest.mark.parametrize(("interval", "repeat"), [(100, 4), (10, 4), (3, 4), (1, 1), (250, 3)])
def test_actors_stand_still_whenever_a_checkpoint_is_due(tmp_path: Path, interval: int, repeat: int) -> None:
    run = dataclasses.replace(RUN, checkpoint_interval=interval, action_repeat=repeat)
    collector, due = Online(run, tmp_path).collector, Every(interval)
    assert isinstance(collector, ActorCollector)
    stops = {0}
    for transitions in range(1, 120):
        if due(transitions * repeat):
            assert collector.next_checkpoint(max(stops)) == transitions
            stops.add(transitions)


def test_worlds_that_cannot_differ_so_are_refused_before_actors_start(tmp_path: Path) -> None:
    ranges = Randomization(fields=(("no_such", 1.0, 2.0),))
    run = dataclasses.replace(RUN, task="Hopper-v5", num_envs=2, vectorization="batch", randomization=ranges)
    with pytest.raises(EnvError, match=r"Hopper-v5: randomization\.fields no_such is no array"):
        train(run, tmp_path)
    assert not list(tmp_path.iterdir())


def test_stopped_by_a_signal_no_row_is_lost_and_the_ratio_stays_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect, calls = ActorCollector.collect, []

    def collect_and_signal(self: ActorCollector) -> int:
        calls.append(1)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGTERM)
        return collect(self)

    with monkeypatch.context() as patch:
        patch.setattr(ActorCollector, "collect", collect_and_signal)
        with pytest.raises(KeyboardInterrupt):
            train(RUN, tmp_path)
    folder = RUN.folder(tmp_path)
    found = checkpoint.latest(folder / "checkpoints")
    assert found is not None
    stopped = Online(RUN, folder)
    assert 0 < stopped.env_steps < RUN.env_steps
    assert int(stopped.buffer.valid.sum()) == stopped.env_steps
    stopped.close()
    train(RUN, tmp_path)
    resumed = Online(RUN, folder)
    assert resumed.env_steps == RUN.env_steps
    assert resumed.agent.update_count == RUN.env_steps - RUN.random_steps
    assert int(resumed.buffer.valid.sum()) == RUN.env_steps
    resumed.close()


@pytest.mark.parametrize(
    ("task", "preset", "shape"),
    [("Hopper-v5", "sac", {"num_envs": 3}), ("minatar-breakout", "m-dqn", {"num_envs": 4, "schedule": FixedRatio(1.0)})],
)
def test_actors_step_batches_of_worlds(tmp_path: Path, task: str, preset: str, shape: dict[str, Any]) -> None:
    table = presets.MUJOCO if preset == "sac" else presets.MINATAR
    run = shrinking.debug(dataclasses.replace(table[preset], task=task, actors=2, vectorization="batch", log_to=(), **shape))
    assert type(worlds(run, 1, run.num_envs)).__name__ == ("BatchEnv" if preset == "sac" else "MinAtarBatch")
    online = Online(run, tmp_path)
    assert online.buffer.num_envs == 2 * run.num_envs
    online.train()
    assert online.env_steps == int(online.buffer.valid.sum()) == run.env_steps
    assert online.agent.update_count == run.env_steps - run.random_steps
    # Both actors filled their columns, with more than one moment.
    assert (online.buffer.cursors > 1).all()


def test_batches_in_actors_take_one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    batch_envs, taken = importlib.import_module("steelyard.envs.batch_envs"), []
    batch = batch_envs.Batch
    monkeypatch.setattr(
        batch_envs,
        "Batch",
        lambda model, count, threads, **options: (taken.append(threads), batch(model, count, threads, **options))[1],
    )
    run = dataclasses.replace(RUN, task="Hopper-v5", vectorization="batch", distractors=5)
    worlds(run, 1, 2).close()
    assert taken == [1]


def test_actors_start_no_processes_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(ActorError, match="actors are processes already and start no others; use vectorization sync or batch"):
        train(dataclasses.replace(RUN, vectorization="async"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_where_actors_live_is_saved_and_needs_actors(tmp_path: Path) -> None:
    run = dataclasses.replace(RUN, collecting=RayActors(address="10.0.0.1:6379", cpus=2.0))
    plain.save(run, tmp_path / "config.json")
    assert plain.load(tmp_path / "config.json") == run
    # What was saved before there was a choice is a run with processes of this machine.
    old = plain.to_plain(RUN)
    del old["collecting"]
    assert plain.from_plain(old) == RUN
    with pytest.raises(ConfigError, match="collecting is RayActors, but actors is 0"):
        dataclasses.replace(run, actors=0)
    for name in ("cpus", "chunk", "patience"):
        with pytest.raises(ActorError, match=f"collecting.{name} is 0; give a positive number"):
            dataclasses.replace(RayActors(), **{name: 0})


def test_without_ray_a_run_with_ray_actors_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"need Ray; install it: pip install 'steelyard\[cluster\]'"):
        train(dataclasses.replace(RUN, collecting=RayActors()), tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    with pytest.raises(ClusterError, match=r"no Ray cluster answers at 127\.0\.0\.1:1 "):
        train(dataclasses.replace(RUN, collecting=RayActors(address="127.0.0.1:1")), tmp_path)
    assert RayActors().replay(RUN, SPEC, 2).placement == "host"
