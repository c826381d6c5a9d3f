"""Actors in other processes, seen from the training loop."""

import dataclasses
import signal
from pathlib import Path

import pytest
import torch

from steelyard.trainers import checkpoint, config, presets
from steelyard.trainers.actor_collector import ActorCollector
from steelyard.trainers.online import Online, train

RUN = dataclasses.replace(
    config.debug(presets.MUJOCO["sac"]), task="Pendulum-v1", actors=2, env_steps=240, checkpoint_interval=100, log_to=()
)


def test_counts_are_exact_and_actors_get_the_newest_policy(tmp_path: Path) -> None:
    online = Online(RUN, tmp_path)
    collector = online.collector
    assert isinstance(collector, ActorCollector)
    online.train()
    assert online.env_steps == RUN.env_steps
    assert online.agent.update_count == RUN.env_steps - RUN.random_steps
    assert int(online.buffer.valid.sum()) == RUN.env_steps
    assert collector.pool is not None
    assert int(collector.pool.weights.version) > 2
    published = collector.pool.weights.newer(0)
    assert published is not None
    for name, value in online.agent.explorer().state_dict().items():
        assert torch.equal(published[1][name], value), name


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
