"""What the suite does on an NVIDIA GPU, against the same on the CPU. Skipped where there is none."""

import dataclasses
import os
import runpy
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from steelyard.agents.agent import Execution
from steelyard.agents.dqn import DQN
from steelyard.agents.iql import IQL
from steelyard.agents.networks import MLP, SimbaV2
from steelyard.agents.networks.dropout import Dropout
from steelyard.agents.networks.exploration import HeldNoise, NoiseRange
from steelyard.agents.networks.heads import Categorical
from steelyard.agents.networks.normalizers import DatasetNorm, ReturnRange, ReturnScale, RunningNorm
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.agents.types import Batch, Spec, Step
from steelyard.envs.datasets import Dataset, write_hdf5
from steelyard.trainers import checkpoint
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.collector import LocalCollector
from steelyard.trainers.config import Run, Transfer
from steelyard.trainers.learner import Learner
from steelyard.trainers.online import Online, train
from steelyard.trainers.pipeline import Pipeline
from steelyard.trainers.resident_collector import ResidentCollector
from steelyard.trainers.samplers import Uniform

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]

DEVICE = "cuda"
Drift: Any = runpy.run_path(str(Path(__file__).with_name("resident_worlds.py")))["Drift"]
EAGER = Execution(compile=False)
TINY: dict[str, Any] = {"actor": MLP((32,)), "critic": MLP((32,)), "batch_size": 16}
SIMBA: dict[str, Any] = {
    "actor": SimbaV2(8, 1),
    "critic": SimbaV2(16, 2),
    "head": Categorical(21, -5.0, 5.0),
    "observations": RunningNorm(),
    "rewards": ReturnScale(),
    "batch_size": 16,
}
CONFIGS: dict[str, Any] = {
    "sac": SAC(**TINY),
    "td3": TD3(**TINY),
    "dqn": DQN(critic=MLP((32,)), batch_size=16, target_period=2),
    "sac-simba-v2": SAC(**SIMBA),
    "iql-dropout": dataclasses.replace(IQL(**TINY, value=MLP((32,))), actor=MLP((32,), dropout=0.2)),
}


def spec_of(name: str) -> Spec:
    return Spec(obs_size=5, action_size=3, horizon=100, discrete=name == "dqn")


def build(name: str, device: str, execution: Execution = EAGER, **changes: Any) -> Any:
    config = dataclasses.replace(CONFIGS[name], **changes)
    return config.build(spec_of(name), num_envs=2, total_updates=100, seed=0, device=device, execution=execution)


def transitions(name: str, seed: int, rows: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    obs, next_obs = torch.randn(2, rows, 5, generator=generator)
    action = spec_of(name).random_action(rows, generator)
    reward, one = torch.randn(rows, generator=generator), torch.ones(rows)
    return Batch(obs, action, reward, next_obs, 0.9 * one, one, torch.arange(rows))


def moved(batch: Batch) -> Batch:
    return Batch(*(None if column is None else column.to(DEVICE) for column in batch))  # pyright: ignore[reportArgumentType]


def steps(count: int, worlds: int = 2) -> list[tuple[Tensor, Tensor, Step]]:
    """Observation, action and step of worlds in host memory; every seventh step ends an episode, every other of those by resetting at once."""
    generator = torch.Generator().manual_seed(3)
    obs, found = torch.randn(worlds, 5, generator=generator), []
    for number in range(count):
        after, reward = torch.randn(worlds, 5, generator=generator), torch.randn(worlds, generator=generator)
        done, no = torch.full((worlds,), number % 7 == 6), torch.zeros(worlds, dtype=torch.bool)
        start = torch.where((done & (number % 2 == 0))[:, None], after + 5, after)
        action = 2 * torch.rand(worlds, 3, generator=generator) - 1
        found.append((obs, action, Step(start, after, reward, done, no, ~no, {})))
        obs = start
    return found


def filled(device: str) -> ReplayBuffer:
    buffer = ReplayBuffer(spec_of("sac"), 60, 2, "host" if device == "cpu" else "device", device)
    for obs, action, step in steps(50):
        buffer.add(obs, action, step)
    return buffer


@pytest.mark.parametrize("name", CONFIGS)
def test_an_update_equals_the_cpus(name: str) -> None:
    host, gpu = build(name, "cpu"), build(name, DEVICE)
    gpu.load_state_dict(host.state_dict())
    assert {p.device.type for p in gpu.parameters()} == {DEVICE}
    for count in range(3):
        batch, noise = transitions(name, count), host.draw(16)
        due = host.advance()
        assert gpu.advance() == due
        expected, got = host.apply_update(due, batch, noise), gpu.apply_update(due, moved(batch), noise.to(DEVICE))
        for agent in (host, gpu):
            agent.intervene()
        for key, value in expected.items():
            torch.testing.assert_close(got[key].cpu(), value, rtol=5e-3, atol=1e-3, msg=f"{key} of update {count + 1}")
    for (key, p), q in zip(host.named_parameters(), gpu.parameters(), strict=True):
        # Adam's first steps have the size of the learning rate whatever the gradient's, so single weights may differ; most must not.
        assert float((p - q.cpu()).detach().abs().mean()) < 3e-5, key
    obs = transitions(name, 9).obs
    torch.testing.assert_close(gpu.act(obs.to(DEVICE), False).cpu(), host.act(obs, False), rtol=1e-2, atol=1e-2)


def test_the_compiled_update_equals_the_eager_one() -> None:
    eager, compiled = build("sac", DEVICE), build("sac", DEVICE, Execution(compile=True))
    for count in range(3):
        batch = moved(transitions("sac", count))
        expected, got = eager.update(batch), compiled.update(batch)
        for key, value in expected.items():
            torch.testing.assert_close(got[key], value, rtol=5e-3, atol=1e-3, msg=key)


def test_bf16_is_finite_and_near() -> None:
    full, half = build("sac", DEVICE), build("sac", DEVICE, Execution("bf16", compile=False))
    assert half.bf16
    for count in range(5):
        batch = moved(transitions("sac", count))
        expected, got = full.update(batch), half.update(batch)
        assert half.check(got) is None
        torch.testing.assert_close(got["critic_loss"], expected["critic_loss"], rtol=0.1, atol=0.05)
    assert {p.dtype for p in half.parameters()} == {torch.float32}


def test_masks_of_dropout_are_the_cpus() -> None:
    layer, x = Dropout(0.3), torch.randn(7, 33)
    layer.key = layer.make_key(torch.tensor(5.0))
    expected = layer(x)
    layer.key = layer.key.to(DEVICE)
    assert torch.equal(layer(x.to(DEVICE)).cpu(), expected)


def test_statistics_learn_from_steps_in_host_memory() -> None:
    host, gpu = build("sac-simba-v2", "cpu"), build("sac-simba-v2", DEVICE)
    for _, _, step in steps(20):
        host.observe(step)
        gpu.observe(step)
    for part in ("normalizer", "reward_scale"):
        for key, value in host.get_submodule(part).state_dict().items():
            torch.testing.assert_close(gpu.get_submodule(part).state_dict()[key].cpu(), value, rtol=1e-6, atol=1e-9, msg=key)


def test_replay_on_the_device_gathers_what_replay_on_the_host_does(tmp_path: Path) -> None:
    host, gpu = filled("cpu"), filled(DEVICE)
    assert gpu.data.device.type == DEVICE
    assert torch.equal(gpu.data.cpu(), host.data)
    assert torch.equal(gpu.cursors.cpu(), host.cursors)
    index = torch.arange(host.rows * host.num_envs)
    for n_step in (1, 3):
        expected, got = host.gather(index, n_step, 0.9), gpu.gather(index.to(DEVICE), n_step, 0.9)
        for column in ("obs", "action", "reward", "next_obs", "discount", "weight"):
            torch.testing.assert_close(getattr(got, column).cpu(), getattr(expected, column), rtol=1e-6, atol=1e-6)
    gpu.save(tmp_path)
    again = ReplayBuffer(spec_of("sac"), 60, 2, "device", DEVICE)
    again.load(tmp_path)
    # The ring is full, so all of it was written.
    assert torch.equal(again.data, gpu.data)
    assert torch.equal(again.cursors, gpu.cursors)


@pytest.mark.parametrize("name", ["sac", "td3", "sac-simba-v2"])
@pytest.mark.parametrize("compiled", [False, True])
def test_captured_launches_equal_single_updates(name: str, compiled: bool, tmp_path: Path) -> None:
    """Three warm-ups of each pattern, then replays of the captured graph; also launches shorter than a graph."""
    learners = []
    for _ in range(2):
        agent, buffer = build(name, DEVICE, Execution(compile=compiled)), filled(DEVICE)
        learners.append(Learner(agent, Uniform().build(buffer, 16, 1, 0.99, 7), tmp_path))
    captured, single = learners
    assert captured.launches is not None
    single.launches = None
    for count in (*[4] * 6, 18, 18, 1):
        captured.update(count)
        single.update(count)
    assert captured.launches.captured
    assert captured.agent.update_count == single.agent.update_count == 61
    assert torch.equal(captured.sampler.noise(), single.sampler.noise())
    assert torch.equal(captured.agent.draw(4), single.agent.draw(4))
    for (key, p), q in zip(captured.agent.named_parameters(), single.agent.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4, msg=key)
    assert captured.metrics.keys() == single.metrics.keys()
    captured.check()


def small_run(agent: Any, **changes: Any) -> Run:
    return Run(
        "Pendulum-v1",
        agent,
        "cuda",
        env_steps=80,
        random_steps=20,
        capacity=200,
        evaluation_interval=80,
        evaluation_episodes=1,
        log_interval=20,
        checkpoint_interval=1_000,
        device="cuda",
        execution=EAGER,
        log_to=(),
        **changes,
    )


@pytest.mark.parametrize("agent", [TD3(**TINY), SAC(**SIMBA)], ids=["td3", "sac-simba-v2"])
def test_a_run_trains_stops_and_resumes(agent: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, calls, collect = small_run(agent), 0, LocalCollector.collect

    def interrupted(self: LocalCollector) -> int:
        nonlocal calls
        calls += 1
        if calls == 41:
            os.kill(os.getpid(), signal.SIGTERM)
        return collect(self)

    monkeypatch.setattr(LocalCollector, "collect", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path)
    folder = run.folder(tmp_path)
    _, state = checkpoint.load(checkpoint.latest(folder / "checkpoints") or folder)
    loop = Online(run, folder)
    assert loop.agent.device.type == loop.buffer.device.type == DEVICE
    for key, value in loop.agent.state_dict().items():
        saved = state["agent"][key]
        if isinstance(saved, Tensor):
            assert torch.equal(value.cpu(), saved), key
    for name, generator in loop.agent.generators.items():
        assert torch.equal(generator.get_state(), state["agent"]["_extra_state"][name])
    assert torch.equal(loop.sampler.state_dict()["generator"], state["sampler"]["generator"])
    assert {value.device.type for value in loop.learner.metrics.values()} == {DEVICE}
    loop.close()
    monkeypatch.setattr(LocalCollector, "collect", collect)
    train(run, tmp_path)
    _, state = checkpoint.load(checkpoint.latest(folder / "checkpoints") or folder)
    assert state["env_steps"] == 80
    assert int(state["agent"]["_extra_state"]["update_count"]) == 60
    assert all(value.isfinite().all() for value in state["agent"].values() if isinstance(value, Tensor))


def test_a_run_from_data_goes_through_both_phases(tmp_path: Path) -> None:
    random, rows = np.random.default_rng(0), 60
    end = np.arange(rows) % 20 == 19
    obs, action = random.normal(size=(rows + 1, 3)).astype(np.float32), random.uniform(-1, 1, (rows, 1)).astype(np.float32)
    reward = random.normal(size=rows).astype(np.float32)
    data = Dataset(
        name="tiny",
        task="Pendulum-v1",
        obs=obs[:-1],
        action=action,
        reward=reward,
        next_obs=obs[1:],
        next_action=np.concatenate([action[1:], action[-1:]]),
        terminated=np.zeros(rows, bool),
        truncated=end,
        returns=reward.reshape(3, 20).sum(1).astype(np.float64),
    )
    path = write_hdf5(tmp_path / "tiny.hdf5", data)
    agent = IQL(**TINY, value=MLP((32,)), observations=DatasetNorm(), rewards=ReturnRange())
    plain = small_run(TD3(**TINY))
    options: dict[str, Any] = {field.name: getattr(plain, field.name) for field in dataclasses.fields(Run)}
    options |= {"agent": agent, "dataset": str(path), "offline_updates": 40, "random_steps": 0, "env_steps": 20}
    options["evaluation_interval"] = 60
    run = Transfer(**options)
    folder = train(run, tmp_path / "runs", make_loop=Pipeline)
    _, state = checkpoint.load(checkpoint.latest(folder / "checkpoints") or folder)
    assert int(state["agent"]["_extra_state"]["update_count"]) == 60
    factor = state["agent"]["reward_scale.factor"]
    assert float(factor) == pytest.approx(1000 / float(data.returns.max() - data.returns.min()), rel=1e-5)
    torch.testing.assert_close(state["agent"]["normalizer.mean"], torch.from_numpy(data.obs.mean(0)), rtol=1e-4, atol=1e-5)


def resident(name: str, device: str, compiled: bool = False, random_steps: int = 24) -> tuple[ResidentCollector, Learner]:
    """Eight worlds on a device, with what collects from them and learns."""
    env = Drift(8, device, staggered=True)
    config: Any = dataclasses.replace(CONFIGS[name], exploration=HeldNoise() if name == "sac" else NoiseRange())
    agent = config.build(env.spec, num_envs=8, total_updates=100, seed=0, device=device, execution=Execution(compile=compiled))
    replay = ReplayBuffer(env.spec, 400, 8, "device", device)
    return ResidentCollector(env, agent, replay, random_steps, 0), Learner(
        agent, Uniform().build(replay, 16, 3, agent.gamma, 7), Path()
    )


@pytest.mark.parametrize("name", ["sac", "td3", "sac-simba-v2"])
@pytest.mark.parametrize("compiled", [False, True])
def test_captured_collecting_equals_plain_collecting(name: str, compiled: bool) -> None:
    """Acting and storing as graphs, between updates that change the policy; then the episodes and all of the state."""
    (captured, learns), (plain, follows) = (resident(name, DEVICE, compiled) for _ in range(2))
    plain.explore, plain.keep = plain.agent.run_act, plain.store
    follows.launches = None
    for step in range(60):
        for collector, learner in ((captured, learns), (plain, follows)):
            assert collector.collect() == 8
            if step >= 5:
                learner.update(2)
    assert captured.explore.graph is not None  # pyright: ignore[reportFunctionMemberAccess]
    assert captured.keep.graph is not None  # pyright: ignore[reportFunctionMemberAccess]
    assert torch.equal(captured.buffer.cursors, plain.buffer.cursors)
    torch.testing.assert_close(captured.buffer.data, plain.buffer.data, rtol=1e-2, atol=1e-2)
    (one,), (other,) = captured.episodes(), plain.episodes()
    assert (one.count, one.length) == (other.count, other.length)
    assert one.score == pytest.approx(other.score, rel=1e-2)


def test_random_first_actions_are_drawn_and_stored_on_the_device() -> None:
    collector, _ = resident("td3", DEVICE, random_steps=1_000)
    for _ in range(20):
        collector.collect()
    actions = collector.buffer.data[:10, :, 3:5]
    assert actions.device.type == DEVICE
    assert 0.4 < float(actions.abs().mean()) < 0.6


def test_no_step_of_collecting_and_learning_waits_for_the_gpu() -> None:
    """torch raises, in this mode, at every operation that synchronises."""
    collector, learner = resident("sac", DEVICE)
    for step in range(12):  # warm-ups and captures synchronise
        collector.collect()
        if step >= 3:
            learner.update(2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            collector.collect()
            learner.update(2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert collector.episodes()


def test_a_collector_continues_on_the_gpu_from_its_state() -> None:
    one, _ = resident("td3", DEVICE, random_steps=10**6)
    for _ in range(30):
        one.collect()
    other, _ = resident("td3", DEVICE, random_steps=10**6)
    state = {name: value.cpu() if isinstance(value, Tensor) else value for name, value in one.state_dict().items()}
    other.load_state_dict(state)
    for _ in range(10):
        one.collect()
        other.collect()
    assert torch.equal(one.obs, other.obs)
    assert torch.equal(one.totals, other.totals)
