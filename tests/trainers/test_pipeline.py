"""Runs that begin with data: both phases, what is switched between them, what is scored, and that stopping changes nothing."""

import csv
import dataclasses
import multiprocessing
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steelyard.agents.agent import Agent, Execution
from steelyard.agents.awac import AWAC
from steelyard.agents.cql import CQL
from steelyard.agents.iql import IQL
from steelyard.agents.networks import MLP, SimbaV2
from steelyard.agents.networks.heads import Categorical
from steelyard.agents.networks.normalizers import AffineRewards, DatasetNorm, ReturnRange, ReturnScale, RunningNorm
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import Family, HuberBellman, InverseVariance, ReturnBound
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.envs.d4rl_table import normalized_score
from steelyard.envs.datasets import Dataset, DatasetError, write_hdf5
from steelyard.trainers import checkpoint
from steelyard.trainers.buffer import ReplayBuffer, ReplayError
from steelyard.trainers.collector import LocalCollector
from steelyard.trainers.config import ConfigError, Run, Transfer
from steelyard.trainers.learner import Learner
from steelyard.trainers.online import train
from steelyard.trainers.pipeline import Pipeline, Regret
from steelyard.trainers.replays import Anew, Mixed, Together
from steelyard.trainers.samplers import Uniform
from steelyard.trainers.schedules import FixedRatio
from steelyard.trainers.trajectory_samplers import TopFraction, TrajectoryWeighted

CLOCKS = {"seconds", "time/env_steps_per_second", "time/updates_per_second"}
TINY: dict[str, Any] = {"actor": MLP((8,)), "critic": MLP((8,)), "batch_size": 8}
HOPPER = (11, 3)


def make_data(path: Path, sizes: tuple[int, int] = HOPPER, episodes: int = 6, name: str = "tiny") -> Path:
    """Smooth random episodes of 20 to 30 steps; every other one ends in a terminal state."""
    random = np.random.default_rng(0)
    lengths = [20 + 2 * k for k in range(episodes)]
    obs, action, reward, next_obs, terminated, truncated, returns = [], [], [], [], [], [], []
    for k, length in enumerate(lengths):
        walk = (2.0 + random.normal(size=(length + 1, sizes[0])).cumsum(0) * 0.1).astype(np.float32)
        rewards = random.uniform(0.0, 0.5 + 0.3 * k, length).astype(np.float32)
        end = np.arange(length) == length - 1
        obs.append(walk[:-1])
        next_obs.append(walk[1:])
        action.append(random.uniform(-0.9, 0.9, (length, sizes[1])).astype(np.float32))
        reward.append(rewards)
        terminated.append(end & (k % 2 == 0))
        truncated.append(end & (k % 2 == 1))
        returns.append(float(rewards.astype(np.float64).sum()))
    actions = np.concatenate(action)
    dataset = Dataset(
        name=name,
        task=None,
        obs=np.concatenate(obs),
        action=actions,
        reward=np.concatenate(reward),
        next_obs=np.concatenate(next_obs),
        next_action=np.concatenate((actions[1:], actions[-1:])),
        terminated=np.concatenate(terminated),
        truncated=np.concatenate(truncated),
        returns=np.array(returns),
    )
    return write_hdf5(path, dataset)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_data(tmp_path_factory.mktemp("data") / "tiny.hdf5"))


def transfer(data: str, agent: Any, **changes: Any) -> Transfer:
    """A run of a second: 60 offline updates, 60 steps online."""
    settings: dict[str, Any] = {
        "task": "Hopper-v4",
        "preset": "tiny",
        "dataset": data,
        "offline_updates": 60,
        "env_steps": 60,
        "random_steps": 0,
        "evaluation_interval": 40,
        "evaluation_episodes": 1,
        "log_interval": 20,
        "checkpoint_interval": 30,
        "threads": 1,
        "device": "cpu",
        "execution": Execution(compile=False),
        "log_to": (),
    }
    return Transfer(agent=agent, **(settings | changes))


def iql(**changes: Any) -> IQL:
    return IQL(value=MLP((8,)), actor_optimizer=Adam(3e-4, 0.0, decay="cosine"), **(TINY | changes))


CALIBRATED = CQL(samples=2, calibration=ReturnBound(), rewards=AffineRewards(10.0, -5.0), **TINY)
WARM = CQL(samples=2, online_conservatism=0.0, critics=3, target_subset=2, **TINY)
PRIOR = SAC(critics=3, target_subset=2, policy_delay=2, policy_value="mean", **TINY)
RUNS: dict[str, Callable[[str], Transfer]] = {
    "iql": lambda data: transfer(data, iql(observations=DatasetNorm(), rewards=ReturnRange())),
    "cal-ql": lambda data: transfer(data, CALIBRATED, replay=Mixed(), reward_of_failure=-5.0),
    "wsrl": lambda data: transfer(data, WARM, replay=Anew(), frozen_steps=15, schedule=FixedRatio(2.0)),
    "rlpd": lambda data: transfer(data, PRIOR, replay=Mixed(), offline_updates=0, random_steps=15),
}
"""The three ways to use the data online, and one without an offline phase."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at clocks and signals every few updates, so that short runs have many."""
    monkeypatch.setattr("steelyard.trainers.pipeline.CHUNK", 7)


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


def same_end(run: Transfer, one: Path, other: Path) -> None:
    """Both folders hold the same run, bit for bit: agent, streams, worlds, replay, returns to go, tables."""
    first, second = (Pipeline(run, folder) for folder in (one, other))
    equal(first.state_dict(), second.state_dict())
    assert first.steps == run.total_steps
    assert torch.equal(first.buffer.data, second.buffer.data)
    assert torch.equal(first.buffer.cursors, second.buffer.cursors)
    if first.buffer.goal_returns is not None:
        assert second.buffer.goal_returns is not None
        assert torch.equal(first.buffer.goal_returns.table, second.buffer.goal_returns.table)
    for name in ("eval.csv", "train.csv"):
        assert rows(one, name) == rows(other, name)


def signal_at(calls: int, owner: type, method: str, patch: pytest.MonkeyPatch) -> None:
    """SIGTERM in the given call of a method."""
    original, count = getattr(owner, method), Counter[str]()

    def counted(self: Any, *arguments: Any) -> Any:
        count["calls"] += 1
        if count["calls"] == calls:
            signal.raise_signal(signal.SIGTERM)
        return original(self, *arguments)

    patch.setattr(owner, method, counted)


@pytest.fixture(scope="module")
def whole(data: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the uninterrupted runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("steelyard.trainers.pipeline.CHUNK", 7)
        root = tmp_path_factory.mktemp("whole")
        return {name: train(make(data), root / name, make_loop=Pipeline) for name, make in RUNS.items()}


@pytest.mark.parametrize(
    ("name", "phase"),
    [(name, phase) for name in RUNS for phase in ("offline", "online") if (name, phase) != ("rlpd", "offline")],
)
def test_stopped_by_a_signal_and_resumed_equals_uninterrupted(
    name: str, phase: str, data: str, whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RUNS[name](data)
    with monkeypatch.context() as patch:
        if phase == "offline":
            signal_at(5, Learner, "update", patch)
        else:
            signal_at(37, LocalCollector, "collect", patch)
        with pytest.raises(KeyboardInterrupt):
            train(run, tmp_path, make_loop=Pipeline)
    stopped = checkpoint.latest(run.folder(tmp_path) / "checkpoints")
    assert stopped is not None
    steps = checkpoint.load(stopped)[0]
    assert steps == 35 if phase == "offline" else run.offline_updates < steps < run.total_steps
    assert (stopped / "buffer").exists() == (phase == "online")  # offline replay is the data set
    folder = train(run, tmp_path, make_loop=Pipeline)
    same_end(run, whole[name], folder)


def test_killed_online_and_resumed_equals_uninterrupted(data: str, whole: dict[str, Path], tmp_path: Path) -> None:
    run = RUNS["cal-ql"](data)
    folder = run.folder(tmp_path)
    program = (
        "import torch; torch.set_num_threads(1); from steelyard.trainers import pipeline; from steelyard.trainers.online import train; "
        "pipeline.CHUNK = 7; train(run, root, make_loop=pipeline.Pipeline)"
    )
    server = multiprocessing.get_context("forkserver")  # which imports the suite once for all processes
    server.set_forkserver_preload(["steelyard.trainers.pipeline"])
    process = server.Process(target=exec, args=(program, {"run": run, "root": tmp_path}))
    process.start()
    while process.is_alive() and steps_of(folder) < run.offline_updates + 30:
        time.sleep(0.002)
    process.kill()
    process.join()
    assert run.offline_updates < steps_of(folder) < run.total_steps
    train(run, tmp_path, make_loop=Pipeline)
    same_end(run, whole["cal-ql"], folder)


def steps_of(folder: Path) -> int:
    found = checkpoint.latest(folder / "checkpoints")
    return -1 if found is None else int(found.name.split("_")[1])


def test_offline_only_makes_its_updates_and_collects_nothing(data: str, tmp_path: Path) -> None:
    loop = Pipeline(transfer(data, iql(), env_steps=0), tmp_path)
    assert loop.agent.setting.all_updates == 60
    loop.train()
    assert (loop.steps, loop.env_steps, loop.agent.update_count) == (60, 0, 60)
    assert [row["steps"] for row in rows(tmp_path, "eval.csv")] == ["0", "42"]
    assert {row["env_steps"] for row in rows(tmp_path, "eval.csv")} == {"0"}
    assert not any("train/return" in row for row in rows(tmp_path, "train.csv"))


def test_online_only_is_online_from_the_first_step(data: str, whole: dict[str, Path]) -> None:
    run = RUNS["rlpd"](data)
    loop = Pipeline(run, whole["rlpd"])
    assert loop.online
    assert (loop.offline_updates, loop.env_steps) == (0, 60)
    assert loop.agent.update_count == 60 - run.random_steps
    assert [row["steps"] for row in rows(whole["rlpd"], "eval.csv")] == ["0", "40"]


@pytest.mark.parametrize("name", RUNS)
def test_the_agent_is_told_once_that_the_online_phase_begins(
    name: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    begin = Agent.begin_online
    monkeypatch.setattr(Agent, "begin_online", lambda self: (told.append(self.update_count), begin(self))[1])
    run = dataclasses.replace(RUNS[name](data), env_steps=20)
    Pipeline(run, tmp_path).train()
    assert told == [run.offline_updates]


def test_conservatism_ends_at_the_switch_and_stays_off_when_resumed(data: str, whole: dict[str, Path], tmp_path: Path) -> None:
    run = RUNS["wsrl"](data)
    loop = Pipeline(run, tmp_path)
    assert loop.agent.weight == WARM.conservatism
    loop.go_online()
    assert loop.agent.weight == 0
    assert Pipeline(run, whole["wsrl"]).agent.weight == 0
    loop.close()


def addresses(buffer: ReplayBuffer) -> set[int]:
    """Flat addresses of all transitions."""
    return set(buffer.valid.nonzero().flatten().tolist())


def drawn(loop: Pipeline) -> torch.Tensor:
    """Observations of many batches."""
    return torch.cat([loop.sampler.sample().obs for _ in range(100)])


def online_loop(run: Transfer, folder: Path, steps: int) -> Pipeline:
    """A run that stands `steps` steps behind the switch, without having learned anything."""
    loop = Pipeline(run, folder)
    loop.offline_updates = run.offline_updates
    if not loop.online:
        loop.go_online()
    while loop.env_steps < steps:
        loop.env_steps += loop.collector.collect()
    return loop


def share_of_data(loop: Pipeline) -> float:
    """Which share of what is drawn lies in the data set."""
    data = {row.tobytes() for row in loop.dataset.obs}
    obs = drawn(loop).numpy()
    return sum(row.tobytes() in data for row in obs) / len(obs)


def test_offline_batches_are_data_whatever_the_replay(data: str, tmp_path: Path) -> None:
    for number, replay in enumerate((Together(), Mixed(), Anew())):
        loop = Pipeline(transfer(data, iql(), replay=replay), tmp_path / str(number))
        assert share_of_data(loop) == 1
        loop.close()


def test_together_draws_from_everything_alike(data: str, tmp_path: Path) -> None:
    loop = online_loop(transfer(data, iql(), env_steps=100), tmp_path, 100)
    expected = len(loop.dataset) / (len(loop.dataset) + 100)
    assert share_of_data(loop) == pytest.approx(expected, abs=0.06)
    # Where a world begins anew a row of replay is no transition; for those a few of the oldest may go.
    assert len(loop.dataset) + 90 < int(loop.buffer.valid.sum()) <= len(loop.dataset) + 100
    loop.close()


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_mixed_draws_a_fixed_share_of_data(share: float, data: str, tmp_path: Path) -> None:
    loop = online_loop(transfer(data, iql(), replay=Mixed(share)), tmp_path, 30)
    assert share_of_data(loop) == share
    known = {row.tobytes() for row in loop.dataset.obs}
    for _ in range(5):
        assert sum(row.tobytes() in known for row in loop.sampler.sample().obs.numpy()) == share * 8
    assert len(addresses(loop.buffer)) == 30
    loop.close()


def test_anew_leaves_the_data_behind(data: str, tmp_path: Path) -> None:
    loop = online_loop(transfer(data, iql(), replay=Anew()), tmp_path, 30)
    assert share_of_data(loop) == 0
    batch = loop.sampler.sample(500)
    assert set(batch.index.tolist()) == addresses(loop.buffer)
    assert len(addresses(loop.buffer)) == 30
    loop.close()


def test_frozen_steps_collect_with_the_offline_policy_and_delay_learning(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = dataclasses.replace(RUNS["wsrl"](data), frozen_steps=15)
    loop = Pipeline(run, tmp_path)
    while not loop.online:
        loop.step()
    before = {name: p.clone() for name, p in loop.agent.actor.named_parameters()}
    acted: list[bool] = []
    act = loop.agent.act
    monkeypatch.setattr(loop.agent, "act", lambda obs, explore: (acted.append(explore), act(obs, explore))[1])
    updates = {}
    while loop.env_steps < 20:
        loop.step()
        updates[loop.env_steps] = loop.agent.update_count - run.offline_updates
        if loop.env_steps == 15:
            equal(before, dict(loop.agent.actor.named_parameters()))
    assert list(updates.values()) == [0] * 15 + [2, 4, 6, 8, 10]
    assert acted == [True] * len(acted)
    assert len(acted) >= 20  # the policy, and no uniformly random actions
    loop.close()


def test_random_steps_come_before_the_policy(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Pipeline(dataclasses.replace(RUNS["rlpd"](data), random_steps=4), tmp_path)
    acted: list[bool] = []
    act = loop.agent.act
    monkeypatch.setattr(loop.agent, "act", lambda obs, explore: (acted.append(explore), act(obs, explore))[1])
    for _ in range(6):
        loop.step()
    assert (len(acted), loop.agent.update_count) == (2, 2)
    loop.close()


def rate(loop: Pipeline, name: str) -> float:
    return float(loop.agent.optimizers[name].learning_rate())  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]


def test_the_learning_rate_falls_offline_and_is_constant_online(data: str, whole: dict[str, Path], tmp_path: Path) -> None:
    loop = Pipeline(RUNS["iql"](data), tmp_path)
    assert (loop.agent.setting.total_updates, loop.agent.setting.all_updates) == (60, 120)
    rates = []
    while loop.offline_updates < 56:
        loop.step()
        rates.append(rate(loop, "actor"))
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.5 * 3e-4 * (1 + np.cos(np.pi * 55 / 60)), rel=1e-4)
    assert rate(loop, "critic") == pytest.approx(3e-4)
    loop.step()
    assert loop.online
    assert rate(loop, "actor") == pytest.approx(3e-4)
    loop.close()
    assert rate(Pipeline(RUNS["iql"](data), whole["iql"]), "actor") == pytest.approx(3e-4)


def test_without_an_offline_phase_the_learning_rate_falls_online(data: str, tmp_path: Path) -> None:
    agent = dataclasses.replace(PRIOR, optimizer=Adam(1e-3, 0.0))
    run = transfer(data, agent, replay=Mixed(), offline_updates=0, random_steps=10)
    assert run.total_updates == 50
    loop = Pipeline(run, tmp_path)
    loop.train()
    assert rate(loop, "critic") == pytest.approx(1e-3 * (1 - 49 / 50), rel=1e-3)


def test_scores_and_regrets_are_the_means_by_hand(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Episodes of training are reported at every row of train.csv; evaluations count from the first one online."""
    seen: list[float] = []
    note = Pipeline.note

    def noted(self: Pipeline, episodes: list[Any]) -> None:
        seen.extend(episode.score for episode in episodes)
        note(self, episodes)

    monkeypatch.setattr(Pipeline, "note", noted)
    Pipeline(transfer(data, iql(), offline_updates=40, env_steps=120), tmp_path).train()
    table = rows(tmp_path, "eval.csv")
    normalized = []
    for row in table:
        score = normalized_score("hopper-medium-v2", float(row["eval/return"]))
        assert score is not None
        assert float(row["eval/normalized"]) == pytest.approx(score)
        normalized.append(score)
    online = [1 - min(max(score / 100, 0), 1) for score, row in zip(normalized, table, strict=True) if int(row["env_steps"]) > 0]
    assert len(online) >= 2
    assert float(table[-1]["regret/evaluation"]) == pytest.approx(np.mean(online))
    assert table[0]["regret/evaluation"] == ""
    assert len(seen) > 2
    trained = [1 - min(max((normalized_score("hopper-medium-v2", score) or 0) / 100, 0), 1) for score in seen]
    assert float(table[-1]["regret/training"]) == pytest.approx(np.mean(trained))


def test_regret_counts_scores_beyond_the_expert_as_none() -> None:
    regret = Regret()
    for score in (0.0, 50.0, 120.0, -30.0):
        regret.add(score)
    assert regret.mean == (1.0 + 0.5 + 0.0 + 1.0) / 4


def test_worlds_without_a_reference_have_no_normalised_score(tmp_path: Path) -> None:
    path = make_data(tmp_path / "pendulum.hdf5", (3, 1))
    Pipeline(transfer(str(path), iql(), task="Pendulum-v1", offline_updates=7, env_steps=0), tmp_path).train()
    table = rows(tmp_path, "eval.csv")
    assert list(table[0]).count("eval/return") == 1
    assert not {"eval/normalized", "regret/training", "regret/evaluation"} & set(table[0])


def test_statistics_are_those_of_the_data(data: str, tmp_path: Path) -> None:
    agent = iql(observations=DatasetNorm(), rewards=ReturnRange())
    loop = online_loop(transfer(data, agent), tmp_path / "frozen", 30)
    obs, returns = loop.dataset.obs.astype(np.float64), loop.dataset.returns
    np.testing.assert_allclose(loop.agent.normalizer.mean.numpy(), obs.mean(0), rtol=1e-5)
    np.testing.assert_allclose(loop.agent.normalizer.deviation.numpy(), obs.std(0) + 1e-3, rtol=1e-5)  # 30 steps changed nothing
    assert float(loop.agent.reward_scale(torch.ones(1))) == pytest.approx(1000 / (returns.max() - returns.min()), rel=1e-5)
    loop.close()


def test_running_statistics_begin_with_the_data_and_go_on_online(data: str, tmp_path: Path) -> None:
    agent = iql(observations=RunningNorm(), rewards=ReturnScale())
    loop = Pipeline(transfer(data, agent), tmp_path)
    obs = loop.dataset.obs.astype(np.float64)
    statistics = loop.agent.normalizer.statistics
    np.testing.assert_allclose(statistics.mean.numpy(), obs.mean(0), rtol=1e-4)
    assert float(statistics.count) == pytest.approx(len(obs))
    assert float(loop.agent.reward_scale.statistics.count) == pytest.approx(len(obs))
    assert float(loop.agent.reward_scale.largest) > 0
    loop.go_online()
    loop.step()
    assert float(statistics.count) == pytest.approx(len(obs) + 1)
    loop.close()


SIMBA: dict[str, Any] = {
    "actor": SimbaV2(8, 1),
    "critic": SimbaV2(8, 1),
    "batch_size": 8,
    "observations": RunningNorm(),
    "rewards": ReturnScale(),
    "balance": Family(1.0, 3.0, network=MLP((8,))),
}
ROBUST: dict[str, Any] = {
    "objective": HuberBellman(network=MLP((8,))),
    "weighting": InverseVariance(network=MLP((8,)), period=5),
}
FAMILIES = {
    "iql": IQL(value=SimbaV2(8, 1), **SIMBA),
    "awac": AWAC(**SIMBA),
    "cql": CQL(samples=2, **SIMBA),
    "iql-categorical": IQL(value=SimbaV2(8, 1), head=Categorical(11), **SIMBA),
    "sac-robust": SAC(head=Categorical(11), **SIMBA, **ROBUST),
    "td3-robust": TD3(head=Categorical(11), **SIMBA, **ROBUST),
}
SAMPLERS = {
    "uniform": Uniform(),
    "by-return": TrajectoryWeighted("return", refresh=5),
    "by-advantage": TrajectoryWeighted("advantage", refresh=5),
    "top-fraction": TopFraction(0.4, refresh=5),
}


@pytest.mark.parametrize(
    ("agent", "sampler"),
    [
        *((agent, sampler) for agent in ("iql", "awac", "cql") for sampler in SAMPLERS),
        *((agent, "by-advantage") for agent in ("iql-categorical", "sac-robust", "td3-robust")),
    ],
)
def test_samplers_networks_and_balances_go_together(agent: str, sampler: str, data: str, tmp_path: Path) -> None:
    """Every sampler with SimbaV2's networks and FamO2O's balance, through both phases."""
    replay = Mixed() if sampler == "by-return" else Together()
    changes: dict[str, Any] = {"offline_updates": 7, "env_steps": 12, "log_interval": 19}
    run = transfer(data, FAMILIES[agent], sampler=SAMPLERS[sampler], replay=replay, **changes)
    loop = Pipeline(run, tmp_path)
    loop.train()
    assert loop.agent.update_count == 19
    assert bool(loop.agent.balance.online)
    assert all(bool(p.isfinite().all()) for p in loop.agent.parameters())
    (last,) = rows(tmp_path, "train.csv")
    key = "offline/sampler/episodes" if replay == Mixed() else "sampler/episodes"
    assert (key in last) == (sampler != "uniform")


def test_no_data_set_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"dataset is not given; name a D4RL data set, an HDF5 file or minari:ID with --dataset\."
    ):
        transfer("", iql())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"offline_updates": 0, "env_steps": 0}, "give one of them a positive number"),
        ({"offline_updates": -1}, "offline_updates is -1"),
        ({"frozen_steps": -1}, "frozen_steps is -1; give zero or more"),
        ({"actors": 2}, "actors is 2; a run that begins with data collects in its own process, give 0"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        transfer("x.hdf5", iql(), **changes)


@pytest.mark.parametrize(
    ("slot", "value"), [("observations", DatasetNorm()), ("rewards", ReturnRange()), ("calibration", ReturnBound())]
)
def test_what_needs_data_is_refused_in_a_run_without(slot: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"agent\.{slot} is {type(value).__name__}, .* this run has none; use agent\.{slot}:"):
        Run("Hopper-v4", dataclasses.replace(CQL(), **{slot: value}), "x")


def refused(run: Transfer, root: Path, kind: type[Exception], sentence: str) -> None:
    """The run ends with the sentence and leaves nothing."""
    with pytest.raises(kind, match=sentence):
        train(run, root, make_loop=Pipeline)
    assert not list(root.rglob("*"))


def test_data_that_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.hdf5").write_bytes(b"no data")
    root = tmp_path / "runs"
    refused(transfer(str(tmp_path / "missing.hdf5"), iql()), root, DatasetError, "there is no file")
    refused(transfer(str(tmp_path / "broken.hdf5"), iql()), root, DatasetError, "is no HDF5 file")
    refused(transfer("hoper-medium-v2", iql()), root, DatasetError, "did you mean hopper-medium-v2")


def test_data_of_another_task_are_refused(data: str, tmp_path: Path) -> None:
    run = transfer(data, iql(), task="Pendulum-v1")
    refused(run, tmp_path / "runs", DatasetError, "observations of 11 components where Pendulum-v1 has 3")


def test_one_episode_cannot_be_weighted(tmp_path: Path) -> None:
    path = make_data(tmp_path / "one.hdf5", episodes=1)
    run = transfer(str(path), iql(), sampler=TrajectoryWeighted())
    refused(run, tmp_path / "runs", ReplayError, "holds 1 finished trajectory but .* use the sampler Uniform")


def test_fresh_deletes_the_old_run_only_when_the_new_one_can_begin(data: str, tmp_path: Path) -> None:
    run = transfer(data, iql(), offline_updates=10, env_steps=0)
    folder = train(run, tmp_path, make_loop=Pipeline)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(DatasetError):
        train(dataclasses.replace(run, dataset=str(tmp_path / "missing.hdf5")), tmp_path, fresh=True, make_loop=Pipeline)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    (folder / "mark").touch()
    train(dataclasses.replace(run, offline_updates=12), tmp_path, fresh=True, make_loop=Pipeline)
    assert not (folder / "mark").exists()
    assert steps_of(folder) == 12


def test_calibration_keeps_returns_with_the_reward_of_failure(data: str, tmp_path: Path) -> None:
    loop = online_loop(RUNS["cal-ql"](data), tmp_path, 40)
    for buffer in (loop.buffer, loop.sampler.first.buffer):  # pyright: ignore[reportAttributeAccessIssue]
        assert buffer.goal_returns is not None
        assert buffer.goal_returns.failure == -5.0
    batch = loop.sampler.sample(100)
    assert batch.goal_return is not None
    assert bool(batch.goal_return.isfinite().any())
    assert not Pipeline(RUNS["iql"](data), tmp_path / "iql").agent.columns
    loop.close()


def test_worlds_that_cannot_be_saved_start_new_episodes_in_replay(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first new transition is not taken for the successor of the last old one."""
    run = transfer(data, iql(), replay=Anew())
    stored = LocalCollector.state_dict
    monkeypatch.setattr(LocalCollector, "state_dict", lambda self: stored(self) | {"env": None})
    with monkeypatch.context() as patch:
        signal_at(37, LocalCollector, "collect", patch)
        with pytest.raises(KeyboardInterrupt):
            train(run, tmp_path, make_loop=Pipeline)
    loop = Pipeline(run, run.folder(tmp_path))
    cursor = int(loop.buffer.cursors[0])
    loop.collector.collect()
    written = loop.buffer.valid.nonzero().flatten()
    assert cursor in written.tolist()
    assert cursor - 1 not in written.tolist()  # the row between the episodes holds the last successor and is no transition
    loop.close()
