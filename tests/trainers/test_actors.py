"""Actors in other processes: no row lost, none counted twice, none that joins two episodes; the totals are exact."""

import functools
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from steelyard.trainers.actors import ActorPool, guard_rows
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.collected import ActorError
from steelyard.trainers.samplers import Uniform
from steelyard.trainers.schedules import FixedRatio
from steelyard.trainers.shared_weights import SharedWeights

LEAD = 16


@pytest.fixture
def worlds(monkeypatch):
    """The module of worlds, importable here and in spawned processes."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("actor_worlds")


def build(worlds, make_env, num_envs=2, num_actors=2, capacity=2000, **options):
    buffer = ReplayBuffer(worlds.SPEC, capacity, num_envs, placement="shared", guard=guard_rows(num_actors, LEAD))
    return buffer, ActorPool(make_env, worlds.Constant(), buffer, num_actors, seed=0, lead=LEAD, **options)


def drain(pool, limit):
    """Collect up to the limit; every step seen, in order."""
    pool.allow(limit)
    steps = []
    while pool.collected < limit:
        steps += pool.collect().steps
    return steps


def transitions(buffer):
    """All transitions in replay as (column, obs, next_obs, reward)."""
    batch = buffer.gather(torch.arange(buffer.rows * buffer.num_envs))
    rows = batch.weight.nonzero().flatten().tolist()
    return [
        (i % buffer.num_envs, tuple(batch.obs[i].tolist()), tuple(batch.next_obs[i].tolist()), float(batch.reward[i]))
        for i in rows
    ]


def check(buffer, steps, total):
    stored = transitions(buffer)
    assert len(stored) == total
    assert len(set(stored)) == total
    for _, obs, after, reward in stored:
        process, episode, moment = obs
        assert after == (process, episode, moment + 1)
        assert reward == moment + 1
    # What `collect` handed out is the same set, each column's rows in order.
    seen = [
        (column, tuple(step.next_obs[column].tolist())) for step in steps for column in step.valid.nonzero().flatten().tolist()
    ]
    assert sorted(seen) == sorted((column, after) for column, _, after, _ in stored)
    for column in range(buffer.num_envs):
        mine = [after for c, after in seen if c == column]
        processes = list(dict.fromkeys(process for process, *_ in mine))
        assert mine == sorted(mine, key=lambda row: (processes.index(row[0]), *row[1:]))


@pytest.mark.parametrize(("num_envs", "same_step"), [(6, True), (6, False)])
def test_totals_are_exact_and_every_row_is_seen_once(worlds, num_envs, same_step):
    buffer, pool = build(worlds, functools.partial(worlds.Addresses, same_step=same_step), num_envs)
    with pool:
        steps = drain(pool, 101)
        # The actors stand still at the limit.
        still = buffer.cursors.clone()
        assert pool.collect() == ([], 0)
        time.sleep(0.05)
        assert torch.equal(buffer.cursors, still)
        check(buffer, steps, 101)
        steps += drain(pool, 307)
        check(buffer, steps, 307)
        episodes = pool.episodes()
        assert pool.restarts == 0
        processes = list(pool._processes)
    assert [process.exitcode for process in processes] == [0, 0]
    assert {episode.length for episode in episodes} == {7, 8, 9}
    assert all(episode.score == episode.length * (episode.length + 1) / 2 for episode in episodes)
    assert len(episodes) >= sum(int((step.truncated & step.valid).sum()) for step in steps)


def test_updates_keep_their_ratio_while_a_small_ring_wraps_under_the_learner(worlds):
    buffer, pool = build(worlds, worlds.Addresses, capacity=60)
    schedule, updates = FixedRatio(0.7).build(), 0
    sampler = Uniform().build(buffer, 256, 3, 1.0, seed=0)
    steps = []
    with pool:
        pool.allow(400)
        while pool.collected < 400:
            # An actor may be ahead of what the learner has asked for, but no further than its share; every 7th row is a reset.
            assert int(buffer.cursors.sum()) <= (pool.collected + LEAD) * 8 / 7 + 2
            new = pool.collect()
            steps += new.steps
            for _ in range(schedule.updates(new.transitions)):
                updates += 1
                batch = sampler.sample()
                # The rewards of a window are those of its steps, whatever the actors overwrite meanwhile.
                spanned = batch.next_obs[:, 2] - batch.obs[:, 2]
                expected = spanned * batch.obs[:, 2] + spanned * (spanned + 1) / 2
                assert torch.equal(batch.reward * batch.weight, expected * batch.weight)
                assert (batch.obs[:, :2] == batch.next_obs[:, :2])[batch.weight > 0].all()
                assert batch.weight.mean() > 0.9
            assert updates == int(pool.collected * 7 // 10)
        episodes = pool.episodes()
    assert pool.collected == 400
    assert updates == 280
    # With one world per actor no step is taken beyond a limit: what was handed out is everything.
    assert sum(int(step.valid.sum()) for step in steps) == 400
    assert [episode.length for episode in episodes] == [7] * sum(int((step.truncated & step.valid).sum()) for step in steps)


def test_actors_killed_in_the_middle_are_replaced_and_nothing_is_lost(worlds):
    buffer, pool = build(worlds, functools.partial(worlds.Addresses, delay=0.001), num_envs=4)
    with pool:
        pool.allow(600)
        steps, kills = [], 0
        while pool.collected < 600:
            steps += pool.collect().steps
            if pool.collected > 150 * (kills + 1) and kills < 2:
                pid = pool._processes[kills].pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                kills += 1
        assert pool.restarts == 2
    check(buffer, steps, 600)
    assert len({obs[0] for _, obs, *_ in transitions(buffer)}) == 4


def test_an_actor_that_dies_again_and_again_but_works_between_goes_on(worlds):
    buffer, pool = build(worlds, worlds.Suicidal, num_actors=1, num_envs=1)
    with pool:
        steps = drain(pool, 100)
        assert pool.restarts == 2
        # The interrupted episodes are not reported.
        assert {episode.length for episode in pool.episodes()} == {7}
    check(buffer, steps, 100)
    # The row that separates the old process's episode from the new one's holds nothing to learn from and is not handed out.
    resets = [step.obs[0].tolist() for step in steps if not step.valid[0] and not step.truncated[0]]
    assert all(process > 0 and moment == 0 for process, _, moment in resets)


def test_an_actor_that_hangs_is_replaced(worlds):
    buffer, pool = build(worlds, worlds.Hanging, num_actors=1, num_envs=1, patience=5.0)
    with pool:
        steps = drain(pool, 12)
        assert pool.restarts == 1
    check(buffer, steps, 12)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("Stillborn", r"actor 0 died 3 times without a transition \(exit code -9\)"),
        ("Refusing", "actor 0: the world returned NaN in obs; look at the action."),
        ("Faulty", "actor 0 stopped with a Python error"),
    ],
)
def test_what_cannot_go_on_is_one_sentence_in_the_learner(worlds, kind, words):
    _, pool = build(worlds, getattr(worlds, kind), num_actors=1, num_envs=1)
    with pool, pytest.raises(ActorError, match=words):
        drain(pool, 100)
    assert pool._processes == []


def test_actions_are_random_at_first_and_then_follow_the_published_weights(worlds):
    buffer, pool = build(worlds, worlds.Addresses, random_transitions=16)
    policy = worlds.Constant()
    with pool:
        drain(pool, 16)
        actions = buffer.gather(torch.arange(buffer.rows * 2))
        random = actions.action[actions.weight > 0]
        assert len(random.unique()) == 32
        assert random.min() >= -1
        assert random.max() <= 1
        for value in (0.25, -0.5):
            torch.nn.init.constant_(policy.weight, value)
            policy.statistic.fill_(value)
            pool.publish(policy.state_dict())
            before = buffer.cursors.clone()
            drain(pool, pool.collected + 10)
            for column in range(2):
                rows = buffer.data[before[column] : buffer.cursors[column], column]
                assert (rows[rows[:, -1] > 0, 3:5] == value).all()


def test_a_resumed_replay_continues_with_fresh_episodes(worlds):
    buffer, pool = build(worlds, worlds.Addresses, num_actors=1, num_envs=1)
    with pool:
        steps = drain(pool, 50)
    again = ActorPool(worlds.Addresses, worlds.Constant(), buffer, 1, seed=1, lead=LEAD)
    with again:
        steps += drain(again, 50)
        assert again.collected == 50
    check(buffer, steps, 100)


LEARNER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import actor_worlds
from steelyard.trainers.actors import ActorPool, guard_rows
from steelyard.trainers.buffer import ReplayBuffer

buffer = ReplayBuffer(actor_worlds.SPEC, 100, placement="shared", guard=guard_rows(1, 16))
pool = ActorPool(actor_worlds.Addresses, actor_worlds.Constant(), buffer, 1, seed=0, lead=16)
pool.start()
pool.allow(5)
while pool.collected < 5:
    pool.collect()
print(pool._processes[0].pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads process states from /proc")
def test_actors_end_with_their_learner():
    command = [sys.executable, "-c", LEARNER, str(Path(__file__).parent)]
    # Not a pipe: the actor inherits it, and would be waited for.
    with tempfile.TemporaryFile("w+") as output:
        assert subprocess.run(command, stdout=output, check=False).returncode == -signal.SIGKILL
        output.seek(0)
        actor = Path("/proc") / output.read().strip() / "stat"
    deadline = time.monotonic() + 20
    # Ended, or ended and waiting for its new parent to notice.
    while actor.exists() and actor.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_shared_weights_are_exact_for_every_dtype_and_never_torn():
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    module.register_buffer("mean", torch.tensor([1 / 3, 1e-300], dtype=torch.float64))
    shared = SharedWeights(module.state_dict())
    newer = shared.newer(0)
    assert newer is not None
    version, state = newer
    assert state.keys() == module.state_dict().keys()
    for name, tensor in module.state_dict().items():
        assert torch.equal(state[name], tensor)
        assert state[name].dtype == tensor.dtype
    assert shared.newer(version) is None
    module.get_buffer("mean").mul_(2)
    shared.publish(module.state_dict())
    newer = shared.newer(version)
    assert newer is not None
    assert torch.equal(newer[1]["mean"], module.get_buffer("mean"))
    # The writer is at it.
    shared.version += 1
    assert shared.newer(version) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"placement": "host"}, "placement of replay is 'host'"),
        ({"num_envs": 3}, "3 worlds do not divide among 2 actors"),
        ({"num_envs": 20}, "lead is 16 for 20 worlds"),
        ({"guard": 0}, "build it with guard=20"),
    ],
)
def test_a_pool_that_cannot_work_is_refused(worlds, options, words):
    options = {"num_envs": 2, "placement": "shared", "guard": guard_rows(2, LEAD)} | options
    buffer = ReplayBuffer(worlds.SPEC, 100, **options)
    with pytest.raises(ActorError, match=words):
        ActorPool(worlds.Addresses, worlds.Constant(), buffer, 2, seed=0, lead=LEAD)


def test_a_slow_learner_is_not_run_away_from(worlds):
    buffer, pool = build(worlds, worlds.Addresses, capacity=60)
    schedule, updates = FixedRatio(0.5).build(), 0
    with pool:
        pool.allow(10**6)
        for _ in range(5):
            new = pool.collect()
            updates += schedule.updates(new.transitions)
            assert updates == pool.collected // 2
            # The learner's updates take long: meanwhile the actors fill their lead and then stand still, to the transition.
            ahead = pool.collected - new.transitions + LEAD
            deadline = time.monotonic() + 60
            while int(pool.board.allowed.sum()) > written(buffer):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert written(buffer) == ahead
            time.sleep(0.05)
            assert written(buffer) == ahead


def test_a_limit_is_divided_fairly(worlds):
    """Runs that save often allow little at a time: no actor may take it all, nor leave any of it."""
    _, pool = build(worlds, worlds.Addresses, num_envs=4, num_actors=4)  # a lead of four for each
    pool.allow(6)
    assert sorted(pool.board.allowed.tolist()) == [1, 1, 2, 2]
    pool.counts = pool.board.allowed.tolist()
    pool.counts[0] -= 1  # has made one less, so that it may have one less now
    pool.allow(21)
    assert int(pool.board.allowed.sum()) == 21
    assert max(pool.board.allowed) - min(pool.board.allowed) <= 2
    pool.allow(1_000)
    assert pool.board.allowed.tolist() == [count + 4 for count in pool.counts]


def written(buffer):
    """Transitions in the columns since the start; every seventh is followed by the row of a reset, which is none."""
    return sum(rows - rows // 8 for rows in buffer.cursors.tolist())


def test_slow_actors_are_waited_for_and_not_trained_past(worlds):
    buffer, pool = build(worlds, functools.partial(worlds.Addresses, delay=0.01), num_envs=4)
    schedule, updates = FixedRatio(3.3).build(), 0
    with pool:
        pool.allow(120)
        while pool.collected < 120:
            new = pool.collect()
            # A learner that is faster than its actors waits in `collect`: what it returns is never nothing, and never more than there is.
            assert new.transitions > 0
            updates += schedule.updates(new.transitions)
            assert updates == pool.collected * 33 // 10
    assert updates == 396
    assert len(transitions(buffer)) == 120
