"""Worlds and policies that spawned actor processes can import: every observation is its own address."""

import os
import signal
import time
from typing import Any

import torch
from torch import Tensor, nn

from steelyard.agents.types import Spec, Step
from steelyard.envs.vector import EnvError

SPEC = Spec(obs_size=3, action_size=2, horizon=7)


class Addresses:
    """Observation: (process, episode, time); reward: the time reached. World i truncates its episodes after 7 + i steps."""

    def __init__(self, num_envs: int, same_step: bool = False, delay: float = 0.0):
        self.num_envs, self.same_step, self.delay = num_envs, same_step, delay
        self.device, self.spec = torch.device("cpu"), SPEC
        self.calls = 0

    def reset(self, seed: int | None = None) -> Tensor:
        process = os.getpid() % 2**20
        # Different lengths, so that worlds do not reset together.
        self.horizon = torch.tensor([7 + i for i in range(self.num_envs)])
        self.obs = torch.tensor([[process, 0.0, 0.0]]).repeat(self.num_envs, 1)
        self.over = torch.zeros(self.num_envs, dtype=torch.bool)
        return self.obs.clone()

    def step(self, action: Tensor) -> Step:
        self.calls += 1
        time.sleep(self.delay)
        fresh = torch.stack((self.obs[:, 0], self.obs[:, 1] + 1, torch.zeros(self.num_envs)), dim=-1)
        valid = ~self.over
        next_obs = torch.where(valid[:, None], self.obs + torch.tensor([0.0, 0.0, 1.0]), fresh)
        truncated = valid & (next_obs[:, 2] >= self.horizon)
        reward = next_obs[:, 2] * valid
        self.over = truncated & (not self.same_step)
        fresh = torch.stack((self.obs[:, 0], self.obs[:, 1] + 1, torch.zeros(self.num_envs)), dim=-1)
        obs = torch.where((truncated & self.same_step)[:, None], fresh, next_obs)
        self.obs = obs.clone()
        return Step(obs, next_obs, reward, torch.zeros_like(truncated), truncated, valid, {})

    def render(self) -> Any:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any] | None:
        return None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


class Suicidal(Addresses):
    """Kills its own process, as the out-of-memory killer would, after 43 calls, in the middle of an episode."""

    def step(self, action: Tensor) -> Step:
        if self.calls == 43:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


class Stillborn(Addresses):
    """Dies before its first step."""

    def reset(self, seed: int | None = None) -> Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().reset(seed)


class Hanging(Addresses):
    """Stands still at its 10th call."""

    def step(self, action: Tensor) -> Step:
        if self.calls == 10:
            time.sleep(1000)
        return super().step(action)


class Refusing(Addresses):
    """Reports an error after some steps."""

    def step(self, action: Tensor) -> Step:
        if self.calls == 5:
            raise EnvError("the world returned NaN in obs; look at the action.")
        return super().step(action)


class Faulty(Addresses):
    """Has a bug."""

    def step(self, action: Tensor) -> Step:
        if self.calls == 5:
            raise TypeError("a bug in the world")
        return super().step(action)


class Constant(nn.Module):
    """Acts as its float64 buffer says, in the first component, and records the version of its weights in the second."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.register_buffer("statistic", torch.zeros((), dtype=torch.float64))

    def forward(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        assert isinstance(self.statistic, Tensor)
        # Parameters and statistics are published together: a torn copy would differ.
        assert (self.weight.double() == self.statistic).all()
        return self.statistic.float().repeat(len(obs), 2)
