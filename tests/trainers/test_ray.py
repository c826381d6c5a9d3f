"""Actors and sweeps on real Ray, with two nodes of which one is killed. Skipped unless STEELYARD_RAY_TESTS=1: some of Ray's ports listen on all
interfaces, and it takes more than a gigabyte."""

import dataclasses
import functools
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from steelyard.trainers import checkpoint, presets, run_folders, shrinking
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.cluster import Cluster
from steelyard.trainers.collected import ActorError
from steelyard.trainers.collecting import RayActors
from steelyard.trainers.online import Online, train
from steelyard.trainers.ray_engine import RayEngine
from steelyard.trainers.ray_launcher import RayLauncher
from steelyard.trainers.remote_pool import RemotePool
from steelyard.trainers.schedules import FixedRatio
from steelyard.trainers.sweep import Sweep
from steelyard.trainers.tables import read_columns

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(os.environ.get("STEELYARD_RAY_TESTS") != "1", reason="starts Ray: set STEELYARD_RAY_TESTS=1"),
]

RUN = dataclasses.replace(
    shrinking.debug(presets.MUJOCO["sac"]),
    task="Pendulum-v1",
    env_steps=1200,
    checkpoint_interval=200,
    evaluation_interval=1200,
    log_to=(),
)
LATE = 240.0
"""Seconds after which something that should have happened has not."""


@pytest.fixture
def worlds(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    return importlib.import_module("actor_worlds")


@pytest.fixture
def two_nodes(worlds: Any, monkeypatch: pytest.MonkeyPatch):
    """A function that starts a cluster of a head and another node with these numbers of CPUs; (cluster, the other node)."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray, utils = pytest.importorskip("ray"), importlib.import_module("ray.cluster_utils")
    started = []

    def start(head: int, other: int):
        options: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 100_000_000}
        cluster = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": head, **options})
        started.append(cluster)
        node = cluster.add_node(num_cpus=other, object_store_memory=100_000_000)
        cluster.wait_for_nodes()
        return cluster, node

    yield start
    ray.shutdown()
    for cluster in started:
        cluster.shutdown()


def transitions(buffer: ReplayBuffer) -> list[tuple[Any, ...]]:
    batch = buffer.gather(torch.arange(buffer.rows * buffer.num_envs))
    rows = batch.weight.nonzero().flatten().tolist()
    return [(i % buffer.num_envs, tuple(batch.obs[i].tolist()), tuple(batch.next_obs[i].tolist())) for i in rows]


def drain(pool: RemotePool) -> None:
    while pool.collected < pool.limit:
        pool.collect()


def test_a_node_killed_in_the_middle_takes_no_row_with_it(worlds: Any, two_nodes: Any) -> None:
    cluster, node = two_nodes(2, 1)
    buffer = ReplayBuffer(worlds.SPEC, 4000, 4)
    make_env = functools.partial(worlds.Addresses, delay=0.005)
    schedule, updates, seen, killed = FixedRatio(0.7).build(), 0, [], False
    engine = RayEngine(cluster.address, 1.0, 2, 120.0)
    with RemotePool(engine, make_env, worlds.Constant(), buffer, 2, 0, chunk=4) as pool:
        pool.allow(1200)
        while pool.collected < 1200:
            new = pool.collect()
            updates += schedule.updates(new.transitions)
            assert updates == pool.collected * 7 // 10
            for step in new.steps:
                seen += [(c, tuple(step.next_obs[c].tolist())) for c in step.valid.nonzero().flatten().tolist()]
            if not killed and all(seat.delivered > 60 for seat in pool.seats):
                cluster.remove_node(node, allow_graceful=False)
                killed = True
        assert pool.restarts >= 1
        assert all(seat.delivered > 60 for seat in pool.seats)
    rows = transitions(buffer)
    assert len(rows) == len(set(rows)) == 1200
    assert sorted(seen) == sorted((column, after) for column, _, after in rows)
    assert all(after == (obs[0], obs[1], obs[2] + 1) for _, obs, after in rows)
    assert updates == 840


def test_a_learner_with_remote_actors_keeps_its_ratio_and_resumes(tmp_path: Path) -> None:
    run = dataclasses.replace(RUN, env_steps=240, checkpoint_interval=100, num_envs=2, actors=2, collecting=RayActors(chunk=8))
    collect, calls = RemotePool.collect, []

    def collect_and_signal(self: RemotePool) -> Any:
        calls.append(1)
        if len(calls) == 6:
            signal.raise_signal(signal.SIGTERM)
        return collect(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RemotePool, "collect", collect_and_signal)
        with pytest.raises(KeyboardInterrupt):
            train(run, tmp_path)
    folder = run.folder(tmp_path)
    assert checkpoint.latest(folder / "checkpoints") is not None
    stopped = Online(run, folder)
    assert 0 < stopped.env_steps < 240
    assert int(stopped.buffer.valid.sum()) == stopped.env_steps
    stopped.close()
    train(run, tmp_path)
    done = Online(run, folder)
    assert done.env_steps == 240
    assert done.agent.update_count == 240 - run.random_steps
    assert int(done.buffer.valid.sum()) == 240
    done.close()


def test_errors_in_an_actor_are_one_sentence(worlds: Any) -> None:
    for kind, words in (
        (worlds.Refusing, "actor 0: the world returned NaN in obs; look at the action."),
        (worlds.Faulty, r"Python error \(TypeError: a bug in the world\)"),
        (worlds.Stillborn, "was lost 3 times without a transition"),
    ):
        pool = RemotePool(RayEngine("", 1.0, 1, 60.0), kind, worlds.Constant(), ReplayBuffer(worlds.SPEC, 100), 1, 0)
        pool.allow(100)
        with pool, pytest.raises(ActorError, match=words):
            drain(pool)


def test_a_sweep_survives_a_node_and_its_runs_are_those_of_one_machine(two_nodes: Any, tmp_path: Path) -> None:
    runs = [dataclasses.replace(RUN, seed=seed) for seed in range(4)]
    for run in runs:
        train(run, tmp_path / "alone")
    cluster, node = two_nodes(1, 1)
    root, killed, deadline = tmp_path / "sweep", False, time.monotonic() + 2 * LATE
    root.mkdir()
    with RayLauncher(Cluster(cluster.address), root, 1.0, 0.0) as launcher:
        sweep = Sweep(runs, root, launcher)
        while not sweep.over:
            assert time.monotonic() < deadline
            sweep.step(0.5)
            running = [job for job in sweep.jobs if job.state == "running"]
            # One run on each node: both have something to lose.
            if not killed and len(running) == 2 and all(run_folders.saved_steps(job.run, root) > 0 for job in running):
                cluster.remove_node(node, allow_graceful=False)
                killed = True
        assert killed
        assert [job.state for job in sweep.jobs] == ["finished"] * 4
        assert sum(job.tries for job in sweep.jobs) == 5
    assert not list(root.glob(".sweep_*"))
    for run in runs:
        results = [
            read_columns(run.folder(place) / "eval.csv", ("env_steps", "eval/return")) for place in (root, tmp_path / "alone")
        ]
        assert results[0] == results[1]
        assert results[0]["env_steps"][-1] == 1200


def test_ctrl_c_stops_a_sweep_with_checkpoints_and_the_same_command_continues(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(repository / "scripts/sweep.py"), "mujoco", "--presets", "sac", "--tasks", "Pendulum-v1"]
    command += ["--seeds", "0", "1", "--env-steps", "1000", "--root", str(tmp_path), "--"]
    command += ["--execution.no-compile", "--agent.batch-size", "16", "--random-steps", "50", "--evaluation-episodes", "1"]
    command += ["--evaluation-interval", "1000", "--checkpoint-interval", "100", "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    deadline = time.monotonic() + LATE
    while not list(tmp_path.rglob("step_*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    # As a terminal does it: to all processes of the group.
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=LATE)
    assert process.returncode == 130, output
    assert "stopped; the same command continues." in output
    assert "error" not in output
    assert list(tmp_path.rglob("step_*/agent.pt"))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LATE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"2 runs below {tmp_path}: 2 finished" in " ".join(done.stdout.split())
    assert not list(tmp_path.glob(".sweep_*"))
