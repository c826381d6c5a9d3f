"""Captured updates, acting, storing and worlds go on as uncaptured ones do, by graphs that are emulated on the CPU (`emulated_graphs.py`)."""

import gc
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from steelyard.agents.agent import Execution
from steelyard.agents.cql import CQL
from steelyard.agents.dqn import DQN
from steelyard.agents.iql import IQL
from steelyard.agents.networks import MLP, SimbaV2
from steelyard.agents.networks.exploration import HeldNoise, NoiseRange
from steelyard.agents.networks.heads import Categorical
from steelyard.agents.networks.normalizers import ReturnScale, RunningNorm
from steelyard.agents.parts import Family, HuberBellman, InverseVariance, L2Init, Reset
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.agents.types import Spec
from steelyard.envs.stage import Stage, uncollected
from steelyard.trainers import resident_collector
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.capture import WARM_UPS, Captured, Launches
from steelyard.trainers.learner import Learner
from steelyard.trainers.resident_collector import ResidentCollector
from steelyard.trainers.samplers import Uniform

HERE = Path(__file__).parent
Drift: Any = runpy.run_path(str(HERE / "resident_worlds.py"))["Drift"]
emulate: Any = runpy.run_path(str(HERE / "emulated_graphs.py"))["emulate"]
WORLDS = 8
TINY: dict[str, Any] = {"actor": MLP((16,)), "critic": MLP((16,)), "batch_size": 16, "n_step": 3}
NORMAL: dict[str, Any] = {"observations": RunningNorm(), "rewards": ReturnScale(), "head": Categorical(21)}
DROPOUT: dict[str, Any] = TINY | {"actor": MLP((16,), dropout=0.2)}
SPHERE: dict[str, Any] = TINY | {"actor": SimbaV2(8, 1), "critic": SimbaV2(16, 1)}
AGENTS: dict[str, Any] = {
    "sac": SAC(**TINY, exploration=HeldNoise()),
    "td3": TD3(**TINY, **NORMAL, exploration=NoiseRange(), exploration_noise=1.0),
    "simba-v2": SAC(**SPHERE, **NORMAL),
    "robust": SAC(**TINY, objective=HuberBellman(1.0), plasticity=L2Init(0.1)),
    "weighted": TD3(**TINY, weighting=InverseVariance(network=MLP((16,)), period=20)),
    "reset": SAC(**TINY, plasticity=Reset(period=24)),
    "iql": IQL(**DROPOUT, value=MLP((16,)), balance=Family(1.0, 5.0, network=MLP((8,)), interval=2)),
    "cql": CQL(**TINY, samples=2, lagrange_gap=1.0),
}


def parts(config: Any, seed: int = 0) -> tuple[ResidentCollector, Any, ReplayBuffer, Learner]:
    env = Drift(WORLDS, "cpu", staggered=True)
    agent = config.build(env.spec, num_envs=WORLDS, total_updates=200, seed=seed, execution=Execution(compile=False))
    replay = ReplayBuffer(env.spec, 30 * WORLDS, WORLDS, "device", "cpu")
    collector = ResidentCollector(env, agent, replay, 3 * WORLDS, seed)
    learner = Learner(agent, Uniform().build(replay, config.batch_size, config.n_step, agent.gamma, seed), Path())
    learner.looks = False
    return collector, agent, replay, learner


def assert_same(first: Any, second: Any) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, torch.Tensor):
        torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)
    else:
        assert first == second


@pytest.mark.parametrize("name", AGENTS)
def test_collecting_and_learning(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps and updates in turn, several updates a launch, with what happens between updates between launches of one."""
    plain = parts(AGENTS[name])
    graphs = emulate(monkeypatch)
    monkeypatch.setattr(resident_collector, "captured", lambda function, device: Captured(function))
    captured = parts(AGENTS[name])
    captured[3].launches = Launches(captured[3].run)
    for step in range(8 * (WARM_UPS + 2)):
        for collector, _, _, learner in (plain, captured):
            collector.collect()
            if step >= 4:
                for _ in range(3 if name == "reset" else 1):
                    learner.update(1 if name == "reset" else 4)
        assert_same(plain[3].metrics, captured[3].metrics)
    assert len(graphs) >= 3
    assert all(graph.replays > 2 for graph in graphs)
    assert_same(plain[1].state_dict(), captured[1].state_dict())
    assert_same(plain[2].data, captured[2].data)
    assert_same(plain[0].state_dict(), captured[0].state_dict())


@pytest.mark.parametrize(("period", "replays"), [(16, [3]), (1, [93]), (6, [9, 1, 1])])
def test_choices(period: int, replays: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """DQN, whose targets move between launches, which end where they do."""

    def learner() -> Learner:
        spec = Spec(obs_size=5, action_size=3, horizon=100, discrete=True)
        weighting = InverseVariance(network=MLP((16,)), period=period)
        config = DQN(critic=MLP((16,)), batch_size=16, target_period=period, weighting=weighting)
        agent: Any = config.build(spec, num_envs=1, total_updates=200, seed=0, execution=Execution(compile=False))
        replay = ReplayBuffer(spec, 64, 1, "device", "cpu")
        replay.data.copy_(torch.rand(replay.data.shape, generator=torch.Generator().manual_seed(0)))
        replay.cursors.fill_(replay.rows - 1)
        made = Learner(agent, Uniform().build(replay, 16, 1, agent.gamma, 0), Path())
        made.looks = False
        return made

    plain = learner()
    graphs = emulate(monkeypatch)
    captured = learner()
    captured.launches = Launches(captured.run)
    for _ in range(WARM_UPS + 3):
        for one in (plain, captured):
            one.update(16)
    assert [graph.replays for graph in graphs] == replays
    assert_same(plain.metrics, captured.metrics)
    assert_same(plain.agent.state_dict(), captured.agent.state_dict())


@pytest.mark.parametrize("task", ["Hopper-v5", "cartpole-swingup"])
def test_worlds(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages of a step of mujoco-warp's worlds, episodes that end and begin included."""
    pytest.importorskip("mujoco_warp")
    from steelyard.envs import warp_envs

    plain = warp_envs.WarpEnv(task, WORLDS * 5, device="cpu", staggered=True)
    graphs = emulate(monkeypatch)
    monkeypatch.setattr(warp_envs, "Stage", lambda work, device: Stage(work, torch.device("cuda")))
    captured = warp_envs.WarpEnv(task, WORLDS * 5, device="cpu", staggered=True)
    assert len(graphs) == 4
    generator, ends = torch.Generator().manual_seed(0), 0
    assert torch.equal(plain.reset(5), captured.reset(5))
    for _ in range(60):
        action = 2 * torch.rand(WORLDS * 5, plain.spec.action_size, generator=generator) - 1
        expected, found = plain.step(action), captured.step(action)
        for name in ("obs", "next_obs", "reward", "terminated", "truncated"):
            assert torch.equal(getattr(expected, name), getattr(found, name)), name
        ends += int((expected.terminated | expected.truncated).sum())
    assert ends > 0
    assert_same(plain.state_dict(), captured.state_dict())


def test_what_python_works_out_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulation can fail, as a GPU would."""
    emulate(monkeypatch)
    total, count = torch.zeros(()), 0

    def add(value: torch.Tensor) -> None:
        nonlocal count
        count += 1
        total.add_(count * value)

    captured = Captured(add)
    for _ in range(WARM_UPS + 3):
        captured(torch.ones(()))
    assert float(total) == 1 + 2 + 3 + 4 + 4 + 4


def test_nothing_is_collected_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The finaliser of another graph would release memory in the middle of it."""
    emulate(monkeypatch)
    enabled: list[bool] = []
    captured = Captured(lambda x: enabled.append(gc.isenabled()) or x + 1)
    for _ in range(WARM_UPS + 1):
        captured(torch.ones(2))
    assert enabled == [True] * WARM_UPS + [False]
    assert gc.isenabled()
    with pytest.raises(ValueError, match="within"), uncollected():
        raise ValueError("within")
    assert gc.isenabled()
