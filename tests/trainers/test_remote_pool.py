"""Remote actors without Ray: exact totals, nothing lost with an actor, no row twice, and clear ends."""

import functools
import importlib
from collections import deque
from pathlib import Path

import pytest
import torch

from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.collected import ActorError
from steelyard.trainers.messages import Refusal
from steelyard.trainers.remote_actor import RemoteActor
from steelyard.trainers.remote_engine import LostError
from steelyard.trainers.remote_pool import RemotePool
from steelyard.trainers.schedules import FixedRatio


@pytest.fixture
def worlds(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("actor_worlds")


class Lost:
    """Stands where an answer of a dead actor should be."""


class FakeEngine:
    """Actors in this process, which answer when they are looked at: at most `pace` answers per look. `kill` loses one with all it owes."""

    def __init__(self, pace=1, places=None):
        self.pace, self.places = pace, places
        self.actors, self.asked, self.contents, self.most_owed, self.looks = [], deque(), [], 0, 0
        self.closed = self.opened = False

    def open(self):
        self.opened = True

    def start(self, make_env, policy, num_envs, seeds):
        actor = {"worker": RemoteActor(), "alive": True, "seeds": seeds, "number": len(self.actors)}
        self.actors.append(actor)
        answer = [actor, None]
        placed = self.places is None or len(self.actors) <= self.places
        if placed:
            self.asked.append((answer, lambda: actor["worker"].begin(make_env, policy, num_envs, seeds)))
        return actor, answer

    def share(self, content):
        self.contents.append(content)
        return content

    def collect(self, actor, request, weights):
        answer = [actor, None]
        self.asked.append((answer, lambda: actor["worker"].collect(request, weights)))
        return answer

    def ready(self, answers, seconds):
        self.looks += 1
        for _ in range(min(self.pace, len(self.asked))):
            answer, work = self.asked.popleft()
            answer[1] = work() if answer[0]["alive"] else Lost()
        return [answer for answer in answers if answer[1] is not None or not answer[0]["alive"]]

    def fetch(self, answer):
        if answer[1] is None or isinstance(answer[1], Lost):
            raise LostError("the machine went up in smoke")
        return answer[1]

    def kill(self, number):
        self.actors[number]["alive"] = False

    def stop(self, actor):
        actor["alive"] = False

    def shortage(self):
        return "each asks for 1 CPUs, and there are none"

    def close(self):
        self.closed = True


def build(worlds, engine, make_env=None, num_envs=2, num_actors=2, **options):
    buffer = ReplayBuffer(worlds.SPEC, 2000, num_envs)
    options = {"chunk": 4} | options
    return buffer, RemotePool(engine, make_env or worlds.Addresses, worlds.Constant(), buffer, num_actors, 0, **options)


def stored(buffer):
    """(column, obs, next_obs, reward) of every transition."""
    batch = buffer.gather(torch.arange(buffer.rows * buffer.num_envs))
    rows = batch.weight.nonzero().flatten().tolist()
    return [
        (i % buffer.num_envs, tuple(batch.obs[i].tolist()), tuple(batch.next_obs[i].tolist()), float(batch.reward[i]))
        for i in rows
    ]


def check(buffer, steps, total):
    """As many rows as were counted, each from one world to its own next moment, and each handed out once."""
    rows = stored(buffer)
    assert len(rows) == total
    for _, obs, after, reward in rows:
        assert after == (obs[0], obs[1], obs[2] + 1)
        assert reward == obs[2] + 1
    seen = [
        (column, tuple(step.next_obs[column].tolist())) for step in steps for column in step.valid.nonzero().flatten().tolist()
    ]
    assert sorted(seen) == sorted((column, after) for column, _, after, _ in rows)


def drain(pool, limit):
    pool.allow(limit)
    steps = []
    while pool.collected < limit:
        steps += pool.collect().steps
    return steps


@pytest.mark.parametrize(("num_envs", "same_step"), [(2, False), (6, True), (6, False)])
def test_totals_are_exact_and_every_row_is_seen_once(worlds, num_envs, same_step):
    engine = FakeEngine()
    buffer, pool = build(worlds, engine, functools.partial(worlds.Addresses, same_step=same_step), num_envs)
    with pool:
        steps = drain(pool, 101)
        assert pool.collect() == ([], 0)
        assert pool.owed == 0
        steps += drain(pool, 307)
        check(buffer, steps, 307)
        episodes = pool.episodes()
        # A step beyond the limit belongs to its episode though its row does not count, so lengths are those of the worlds.
        assert {episode.length for episode in episodes} <= {7, 8, 9}
        assert all(episode.score == episode.length * (episode.length + 1) / 2 for episode in episodes)
        assert len(episodes) >= 307 // 9 - 2 * num_envs
        assert pool.episodes() == []
    assert engine.opened
    assert engine.closed


def test_updates_keep_their_ratio_and_no_actor_runs_ahead(worlds):
    engine = FakeEngine(pace=3)
    buffer, pool = build(worlds, engine, num_envs=4)
    schedule, updates = FixedRatio(0.7).build(), 0
    with pool:
        pool.allow(400)
        while pool.collected < 400:
            new = pool.collect()
            updates += schedule.updates(new.transitions)
            assert updates == pool.collected * 7 // 10
            # Two requests of four steps of two worlds each.
            assert all(seat.owed <= 16 for seat in pool.seats)
            assert pool.collected + pool.owed <= 400
    assert updates == 280
    assert len(stored(buffer)) == 400


def test_a_lost_actor_is_replaced_and_what_came_is_kept_once(worlds):
    engine = FakeEngine(pace=2)
    buffer, pool = build(worlds, engine, num_envs=4, num_actors=2)
    with pool:
        pool.allow(600)
        steps = []
        while pool.collected < 600:
            steps += pool.collect().steps
            alive = [actor["number"] for actor in engine.actors if actor["alive"]]
            if len(engine.actors) < 6 and pool.collected > 90 * (len(engine.actors) - 1):
                engine.kill(alive[-1])
        check(buffer, steps, 600)
        assert pool.restarts == 4
        # Each successor has worlds and exploration of its own.
        assert len({actor["seeds"] for actor in engine.actors}) == 6
        assert all(episode.score == episode.length * (episode.length + 1) / 2 for episode in pool.episodes())


def test_weights_are_laid_out_once_per_version_and_first_actions_are_random(worlds):
    engine = FakeEngine()
    buffer, pool = build(worlds, engine, random_transitions=20)
    policy = worlds.Constant()
    with pool:
        drain(pool, 40)
        assert len(engine.contents) == 1
        actions = buffer.gather(torch.arange(buffer.rows * 2))
        random = actions.action[(actions.weight > 0) & (actions.action[:, 0] != 0)]
        assert len(random.unique()) == 40
        for value in (0.25, -0.5):
            torch.nn.init.constant_(policy.weight, value)
            policy.statistic.fill_(value)
            # Published more often than it is asked for: only what is sent is laid out.
            for _ in range(3):
                pool.publish(policy.state_dict())
            before = buffer.cursors.clone()
            drain(pool, pool.collected + 10)
            for column in range(2):
                rows = buffer.data[before[column] : buffer.cursors[column], column]
                assert (rows[rows[:, -1] > 0, 3:5] == value).all()
        assert len(engine.contents) == 3


def test_held_back_the_actors_finish_what_they_were_asked_for(worlds):
    buffer, pool = build(worlds, FakeEngine())
    with pool:
        pool.allow(1000)
        for _ in range(4):
            pool.collect()
        pool.hold()
        assert pool.collected < pool.limit == pool.collected + pool.owed
        while pool.collected < pool.limit:
            pool.collect()
        assert pool.owed == 0
        assert len(stored(buffer)) == pool.collected < 100


def test_what_cannot_go_on_is_one_sentence(worlds, monkeypatch):
    _, pool = build(worlds, FakeEngine(), worlds.Refusing, 1, 1)
    with pool, pytest.raises(ActorError, match="actor 0: the world returned NaN in obs; look at the action"):
        drain(pool, 100)
    engine = FakeEngine()
    monkeypatch.setattr(engine, "fetch", lambda answer: (_ for _ in ()).throw(LostError("gone")))
    _, pool = build(worlds, engine, None, 1, 1)
    with pool, pytest.raises(ActorError, match=r"actor 0 was lost 3 times without a transition \(gone\)"):
        drain(pool, 100)
    _, pool = build(worlds, FakeEngine(places=0), patience=0.02)
    words = r"no actor could be started within 0\.02 seconds: each asks for 1 CPUs.*collecting\.patience"
    with pool, pytest.raises(ActorError, match=words):
        drain(pool, 100)


def test_one_actor_without_a_place_does_not_hold_up_the_others(worlds, caplog):
    engine = FakeEngine(places=1)
    _, pool = build(worlds, engine, patience=0.5)
    with pool:
        while "have not begun yet" not in caplog.text:
            drain(pool, pool.collected + 50)
        assert [seat.delivered for seat in pool.seats] == [pool.collected, 0]


def test_an_actor_that_hangs_is_replaced(worlds, monkeypatch):
    engine = FakeEngine()
    buffer, pool = build(worlds, engine, None, 2, 2, patience=0.3)
    with pool:
        steps = drain(pool, 20)
        # From now on nothing that the first actor is asked for is worked on.
        collect, deaf = engine.collect, engine.actors[0]
        monkeypatch.setattr(engine, "collect", lambda actor, *rest: [actor, None] if actor is deaf else collect(actor, *rest))
        while deaf["alive"]:
            steps += drain(pool, pool.collected + 8)
        steps += drain(pool, pool.collected + 40)
        check(buffer, steps, pool.collected)


def test_a_short_answer_is_noticed(worlds, monkeypatch):
    collect = RemoteActor.collect
    monkeypatch.setattr(
        RemoteActor, "collect", lambda self, request, weights: collect(self, request._replace(transitions=3), weights)
    )
    _, pool = build(worlds, FakeEngine())
    with pool, pytest.raises(ActorError, match="actor 0 sent 3 transitions for 4; use one version"):
        drain(pool, 100)


@pytest.mark.parametrize(
    ("placement", "num_envs", "chunk", "words"),
    [
        ("shared", 2, 4, "only the learner writes"),
        ("host", 3, 4, "3 worlds do not divide among 2 actors"),
        ("host", 2, 0, "chunk is 0"),
    ],
)
def test_a_pool_that_cannot_work_is_refused(worlds, placement, num_envs, chunk, words):
    buffer = ReplayBuffer(worlds.SPEC, 100, num_envs, placement)
    with pytest.raises(ActorError, match=words):
        RemotePool(FakeEngine(), worlds.Addresses, worlds.Constant(), buffer, 2, 0, chunk=chunk)


def test_worlds_that_cannot_be_made_are_a_refusal(worlds):
    def refuse(num_envs):
        raise ActorError("no such world.")

    answer = RemoteActor().begin(refuse, b"", 1, (0, 0))
    assert answer == Refusal("no such world.")
