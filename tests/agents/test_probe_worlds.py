"""Agents find the known values and actions of the probe worlds, each of which fails for one mistake."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from steelyard import envs
from steelyard.agents.agent import Execution
from steelyard.agents.networks import MLP, SimbaV2
from steelyard.agents.networks.heads import Categorical
from steelyard.agents.networks.normalizers import ReturnScale, RunningNorm
from steelyard.agents.optimizer import Adam
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.samplers import Uniform

GAMMA = 0.8
WORLDS = 64
CHECK_EVERY = 20

MLPS: dict[str, Any] = {"actor": MLP((32,)), "critic": MLP((32,)), "optimizer": Adam(5e-3)}
SIMBA_V2: dict[str, Any] = {
    "actor": SimbaV2(16, 1),
    "critic": SimbaV2(32, 1),
    "head": Categorical(51, -10.0, 10.0),
    "observations": RunningNorm(),
    "rewards": ReturnScale(max_return=10.0),
    "optimizer": Adam(1e-2),
}
SHARED: dict[str, Any] = {"discount": GAMMA, "target_rate": 0.1, "batch_size": 64}
COLD: dict[str, Any] = {"initial_temperature": 1e-3, "entropy_per_action": -3.0}
"""A temperature so low, and a target entropy so low that it stays there, that values are those of the rewards alone."""
AGENTS = {
    "sac": SAC(**MLPS, **SHARED, **COLD),
    "td3": TD3(**MLPS, **SHARED),
    "sac-simba-v2": SAC(**SIMBA_V2, **SHARED, **COLD),
    "td3-simba-v2": TD3(**SIMBA_V2, **SHARED),
}


@dataclass(frozen=True)
class Answer:
    """What an agent should say about observations; None where anything is right."""

    obs: tuple[float, ...]
    value: Callable[[float], float] | None
    action: Callable[[float], float] | None = None
    tolerance: float = 0.12


ANSWERS = {
    "probe-constant": Answer((0.0,), value=lambda s: 1.0),
    "probe-observation": Answer((-0.8, -0.3, 0.4, 0.9), value=lambda s: s),
    "probe-discount": Answer((0.0, 1.0), value=lambda s: GAMMA if s == 0 else 1.0),
    "probe-action": Answer((0.0,), value=lambda s: 1.0, action=lambda s: 0.5),
    "probe-action-observation": Answer((-0.7, 0.0, 0.6), value=lambda s: 1.0, action=lambda s: s, tolerance=0.15),
    "probe-truncation": Answer((0.0,), value=lambda s: 1 / (1 - GAMMA), tolerance=0.4),
}


class Trial:
    """An agent with replay full of random play."""

    def __init__(self, config: SAC | TD3, task: str):
        env = envs.make(task, WORLDS)
        self.agent: Any = config.build(env.spec, num_envs=WORLDS, total_updates=1, seed=0, execution=Execution(compile=False))
        buffer = ReplayBuffer(env.spec, 20 * WORLDS, WORLDS)
        self.sampler = Uniform().build(buffer, config.batch_size, 1, self.agent.gamma, 0)
        generator, obs = torch.Generator().manual_seed(0), env.reset(0)
        for _ in range(20):
            action = 2 * torch.rand(WORLDS, 1, generator=generator) - 1
            step = env.step(action)
            buffer.add(obs, action, step)
            self.agent.observe(step)
            obs = step.obs

    def update(self) -> None:
        self.agent.update(self.sampler.sample())

    def answers(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The policy's actions and their values in units of the world's rewards."""
        agent = self.agent
        action = agent.act(obs, explore=False)
        scale = 1 / agent.reward_scale(torch.ones(1))
        return action.squeeze(-1), agent.climbed_value(agent.normalizer(obs), action).detach() * scale

    def is_right(self, answer: Answer) -> bool:
        action, value = self.answers(torch.tensor(answer.obs)[:, None])
        for said, wanted in ((value, answer.value), (action, answer.action)):
            if wanted is not None and any(
                abs(x - wanted(s)) > answer.tolerance for x, s in zip(said.tolist(), answer.obs, strict=True)
            ):
                return False
        return True


def learns(config: SAC | TD3, task: str, updates: int) -> bool:
    """Whether the agent is right at three checks in a row."""
    trial, streak = Trial(config, task), 0
    for count in range(1, updates + 1):
        trial.update()
        if count % CHECK_EVERY == 0:
            streak = streak + 1 if trial.is_right(ANSWERS[task]) else 0
            if streak == 3:
                return True
    return False


@pytest.mark.parametrize("task", ANSWERS)
@pytest.mark.parametrize("name", ["sac", "td3"])
def test_agents_find_the_answer(name: str, task: str) -> None:
    assert learns(AGENTS[name], task, updates=1_000)


@pytest.mark.parametrize("task", ["probe-discount", "probe-action-observation", "probe-truncation"])
@pytest.mark.parametrize("name", ["sac-simba-v2", "td3-simba-v2"])
def test_simba_v2_with_normalised_observations_scaled_rewards_and_a_categorical_critic_finds_it_too(name: str, task: str) -> None:
    assert learns(AGENTS[name], task, updates=1_000)
