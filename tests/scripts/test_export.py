"""Exported policies act as the agent does, where float32 statistics would not."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from steelyard.agents.agent import Execution
from steelyard.agents.dqn import DQN
from steelyard.agents.drqv2 import DrQV2
from steelyard.agents.networks import MLP, Bottleneck, Convolution, SimbaV2
from steelyard.agents.networks.encoders import PictureEncoder
from steelyard.agents.networks.normalizers import RunningNorm
from steelyard.agents.sac import SAC
from steelyard.agents.types import Spec
from steelyard.envs.batch_envs import BatchEnv
from steelyard.envs.tasks import State
from steelyard.envs.tasks.cartpole import SwingUp
from steelyard.trainers import checkpoint, plain, shrinking
from steelyard.trainers.presets import DMC

Write = Callable[[nn.Module, Tensor, Path, dict[str, str]], Callable[[Tensor], Tensor]]


@pytest.fixture(scope="module")
def script(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("export")


def far_away() -> tuple[Any, Tensor]:
    """An agent whose observations lie around 10,000 with a spread of 0.03: their mean needs more than float32's seven digits."""
    config = SAC(actor=SimbaV2(width=16, blocks=1), critic=SimbaV2(width=16, blocks=1), observations=RunningNorm())
    agent = config.build(Spec(5, 3), num_envs=1, total_updates=10, seed=0, execution=Execution(compile=False))
    generator = torch.Generator().manual_seed(0)
    statistics = cast(Any, agent.normalizer).statistics
    statistics.mean.copy_(10_000 + torch.rand(5, dtype=torch.float64, generator=generator))
    statistics.variance.fill_(1e-3)
    statistics.count.fill_(1e6)
    return agent, (statistics.mean + 0.03 * torch.randn(1_000, 5, dtype=torch.float64, generator=generator)).float()


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_the_file_acts_as_the_agent(script: ModuleType, tmp_path: Path, kind: str) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    agent, obs = far_away()
    expected = agent.act(obs, explore=False)
    write: Write = script.WRITERS[kind]
    exported = write(agent.policy().eval(), obs[:2], tmp_path / f"policy.{kind}", {"task": "t"})
    assert exported(obs).std() > 1e-3
    assert script.check(exported, obs, expected) <= 1e-5
    assert [path.name for path in tmp_path.iterdir()] == [f"policy.{kind}"]


def pictured(choices: bool) -> tuple[Any, Tensor]:
    """An agent that acts from pictures: of bytes, or MinAtar's."""
    if choices:
        config: Any = DQN(critic=Convolution((4,), hidden=(8,)))
        spec = Spec(400, 3, discrete=True, picture=(4, 10, 10))
    else:
        config = DrQV2(encoder=PictureEncoder((4,), (3,), (2,)), actor=Bottleneck(5, (8,)), critic=Bottleneck(5, (8,)))
        spec = Spec(9 * 12**2, 2, picture=(9, 12, 12), frames=3)
    agent = config.build(spec, num_envs=1, total_updates=10, seed=0, execution=Execution(compile=False))
    obs = torch.randint(0, 2 if choices else 256, (50, spec.obs_size), generator=torch.Generator().manual_seed(0))
    return agent, obs.to(torch.float32 if choices else torch.uint8)


@pytest.mark.parametrize("choices", [False, True], ids=["drq-v2", "minatar"])
@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_policies_that_act_from_pictures_take_batches_of_any_size(
    script: ModuleType, tmp_path: Path, kind: str, choices: bool
) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    agent, obs = pictured(choices)
    write: Write = script.WRITERS[kind]
    exported = write(agent.policy().eval(), obs[:2], tmp_path / f"policy.{kind}", {"task": "t"})
    assert script.check(exported, obs, agent.act(obs, explore=False)) <= 1e-5


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_a_policy_of_several_critics_acts_as_the_agent(script: ModuleType, tmp_path: Path, kind: str) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    config = DQN(critic=MLP((16, 16)), critics=2)
    agent = config.build(Spec(5, 3, discrete=True), num_envs=1, total_updates=10, seed=0, execution=Execution(compile=False))
    obs = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    write: Write = script.WRITERS[kind]
    exported = write(agent.policy().eval(), obs[:2], tmp_path / f"policy.{kind}", {"task": "t"})
    assert script.check(exported, obs, agent.act(obs, explore=False)) <= 1e-5


def test_the_check_would_see_float32_statistics(script: ModuleType) -> None:
    agent, obs = far_away()
    expected = agent.act(obs, explore=False)
    agent.normalizer.float()
    assert script.check(agent.policy(), obs, expected) > script.TOLERANCE


def test_the_check_counts_nan_as_infinite(script: ModuleType) -> None:
    obs = torch.zeros(4, 2)
    assert script.check(lambda x: x * torch.nan, obs, obs) > 1e30
    assert script.check(lambda x: x, obs, obs) == 0
    assert script.check(lambda x: x + 1.0 if len(x) == 1 else x, obs, obs) == 1.0


class HiddenSpeed(SwingUp):
    """The cart-pole whose policy does not see how fast anything moves."""

    def observe(self, state: State) -> Tensor:
        return super().observe(state)[:, :3]

    def privileged(self, state: State) -> Tensor:
        return state["qvel"]


def test_a_policy_is_exported_without_what_critics_alone_see(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worlds(task: str, num_envs: int, **options: object) -> BatchEnv:
        return BatchEnv(HiddenSpeed(task), num_envs)

    run = dataclasses.replace(shrinking.debug(DMC["sac"]), task="cartpole-swingup")
    agent = run.agent.build(
        worlds(run.task, 1).spec, num_envs=1, total_updates=run.total_updates, seed=0, execution=run.execution
    )
    checkpoint.save(tmp_path / "checkpoints", 40, {"agent": agent.state_dict()})
    plain.save(run, tmp_path / "config.json")
    monkeypatch.setattr(script.envs, "make", worlds)
    (path,) = script.export(script.Export(tmp_path, formats=("pt2",)))
    policy, obs = torch.export.load(path).module(), torch.randn(4, 3)
    assert torch.allclose(policy(obs), agent.act(obs, explore=False), atol=1e-5)


def test_a_missing_package_is_named(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(script.ExportError, match=r"pip install 'steelyard\[export\]'"):
        script.write_onnx(nn.Identity(), torch.zeros(1, 1), tmp_path / "policy.onnx", {})
