"""Collecting from worlds that live on the learner's device: the same transitions as elsewhere, no wait for the device, resumed bit for bit."""

import runpy
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from steelyard.agents.agent import Execution
from steelyard.agents.networks import MLP, SimbaV2
from steelyard.agents.networks.exploration import HeldNoise, NoiseRange
from steelyard.agents.networks.heads import Categorical
from steelyard.agents.networks.normalizers import ReturnScale, RunningNorm
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.envs.vector import ResidentEnv
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.collector import LocalCollector
from steelyard.trainers.learner import Learner
from steelyard.trainers.resident_collector import ResidentCollector
from steelyard.trainers.samplers import Uniform

Drift: Any = runpy.run_path(str(Path(__file__).with_name("resident_worlds.py")))["Drift"]
WORLDS = 8
TINY: dict[str, Any] = {"actor": MLP((16,)), "critic": MLP((16,)), "batch_size": 32, "n_step": 3}
NORMAL: dict[str, Any] = {"observations": RunningNorm(), "rewards": ReturnScale(), "head": Categorical(21)}
AGENTS: dict[str, Any] = {
    "sac": SAC(**TINY, **NORMAL, target_value="own", exploration=HeldNoise()),
    "td3": TD3(**TINY, **NORMAL, exploration=NoiseRange(), exploration_noise=1.0),
    "simba-v2": SAC(**(TINY | {"actor": SimbaV2(8, 1), "critic": SimbaV2(16, 1)}), **NORMAL),
}
WAITS = {"aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2"}
"""Operations that wait for the device that their tensors lie on."""


class NoWaiting(TorchDispatchMode):
    """Fails the test if anything asks the device a question, or carries a tensor off it."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = function._schema.name, kwargs or {}
        assert name not in WAITS, f"{name} waits for the device"
        moved = name == "aten::_to_copy" and args[0].device.type == "meta" and kwargs.get("device") == torch.device("cpu")
        assert not moved, "a tensor leaves the device"
        return function(*args, **kwargs)


def parts(name: str, kind: type = ResidentCollector, device: str = "cpu", seed: int = 0) -> tuple[Any, Any, ReplayBuffer, Learner]:
    env = Drift(WORLDS, device, staggered=True)
    agent = AGENTS[name].build(
        env.spec, num_envs=WORLDS, total_updates=100, seed=seed, device=device, execution=Execution(compile=False)
    )
    replay = ReplayBuffer(env.spec, 60 * WORLDS, WORLDS, "device", device)
    collector = kind(env, agent, replay, 3 * WORLDS, seed)
    sampler = Uniform().build(replay, 32, 3, agent.gamma, seed)
    learning = Learner(agent, sampler, Path())
    learning.looks = False  # as on a GPU: the loop looks once per row of the log
    return collector, agent, replay, learning


def equal(first: Any, second: Any) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            equal(first[key], second[key])
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first.nan_to_num(7.0), second.nan_to_num(7.0))
    else:
        assert first == second


def test_the_worlds_of_these_tests_are_resident() -> None:
    assert isinstance(Drift(2), ResidentEnv)


@pytest.mark.parametrize("name", AGENTS)
def test_it_stores_and_learns_what_the_plain_collector_does(name: str) -> None:
    one, other = parts(name), parts(name, LocalCollector)
    found: list[Any] = []
    for step in range(90):
        for collector, _, _, learning in (one, other):
            assert collector.collect() == WORLDS
            if step >= 3:
                learning.update(2)
        if step % 30 == 29:
            (mean,), every = one[0].episodes(), other[0].episodes()
            assert mean.count == len(every) > 20
            assert mean.score == pytest.approx(sum(episode.score for episode in every) / len(every), rel=1e-6)
            assert mean.length == pytest.approx(sum(episode.length for episode in every) / len(every), rel=1e-6)
            found += every
    assert {episode.length for episode in found} > {5, 6, 7}
    assert torch.equal(one[2].data, other[2].data)
    assert torch.equal(one[2].cursors, other[2].cursors)
    equal(one[1].state_dict(), other[1].state_dict())
    assert one[0].episodes() == []


@pytest.mark.parametrize("name", AGENTS)
def test_nothing_waits_for_the_device_while_collecting_and_learning(name: str) -> None:
    collector, _, _, learning = parts(name)
    with NoWaiting():
        for step in range(20):
            collector.collect()
            if step >= 3:
                learning.update(2)
    assert learning.agent.update_count == 34
    assert collector.env.looks == 0
    collector.episodes()
    assert collector.env.looks == 1


def test_the_plain_collector_waits() -> None:
    """The test above can fail."""
    with pytest.raises(AssertionError, match="waits for the device"), NoWaiting():
        parts("sac", LocalCollector)[0].collect()


@pytest.mark.parametrize("name", AGENTS)
def test_everything_stays_on_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On torch's device without storage: what mixes devices, or asks for a value, raises there."""
    generator, draws = torch.Generator, {"rand": torch.rand, "randn": torch.randn}

    def on_device(draw: str) -> Any:
        return lambda *shape, generator=None, device=None, **given: draws[draw](*shape, device=device, **given)

    monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator())
    monkeypatch.setattr(generator, "device", torch.device("meta"), raising=False)
    for draw in draws:
        monkeypatch.setattr(torch, draw, on_device(draw))
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **given: nullcontext())
    collector, agent, replay, learning = parts(name, device="meta")
    assert {p.device.type for p in agent.parameters()} == {"meta"} == {replay.data.device.type}
    with NoWaiting():
        for step in range(6):
            collector.collect()
            if step >= 3:
                learning.update(1)
    assert {value.device.type for value in learning.metrics.values()} == {"meta"}
