"""New transitions from worlds that live on the learner's device: nothing between two rows of the log waits for that device."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from steelyard.agents.acting import ActingAgent
from steelyard.agents.random_streams import resume
from steelyard.agents.types import Step
from steelyard.envs.vector import ResidentEnv
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.capture import captured
from steelyard.trainers.collected import Episode

SEEDS_PER_RUN = 20_000
"""Training world i of the run with seed s starts from the seed `20,000 s + i`; with more worlds runs are as far apart as there are worlds."""


class ResidentCollector:
    """Steps worlds, acts and stores on one device.

    Every row of a step is a transition, so the number of transitions is known without asking. Returns and lengths of episodes are summed on the
    device and read once per row of the log, when the worlds are also asked what went wrong. On a GPU acting and storing are a CUDA graph each;
    the worlds have their own.
    """

    def __init__(
        self,
        env: ResidentEnv,
        agent: ActingAgent,
        buffer: ReplayBuffer,
        random_steps: int,
        seed: int,
        explored: float = math.inf,
    ):
        """Uniformly random actions for `random_steps` transitions, then the policy's: drawn until `explored` transitions, then its mode."""
        self.env, self.agent, self.buffer, self.random_steps, self.explored = env, agent, buffer, random_steps, explored
        worlds, device = env.num_envs, env.device
        self.generator = torch.Generator(device).manual_seed(seed + 3)
        self.obs = env.reset(seed * max(SEEDS_PER_RUN, worlds)).clone()
        self.returns = torch.zeros(worlds, dtype=torch.float64, device=device)
        self.lengths = torch.zeros(worlds, dtype=torch.float64, device=device)
        self.totals = torch.zeros(3, dtype=torch.float64, device=device)
        """Sum of returns, sum of lengths and number of the episodes that ended since they were last read."""
        self.transitions = 0
        self.valid = torch.ones(worlds, dtype=torch.bool, device=device)
        self.still = torch.zeros(worlds, env.spec.action_size, device=device)
        self.explore, self.exploit = captured(agent.run_act, device), captured(agent.choose, device)
        self.keep = captured(self.store, device)

    def collect(self) -> int:
        """One step of every world."""
        action = self.act()
        step = self.env.step(action)
        self.keep(action, step.obs, step.next_obs, step.reward, step.terminated, step.truncated)
        self.transitions += self.env.num_envs
        return self.env.num_envs

    def act(self) -> Tensor:
        """Actions [num_envs, action_size] for this step."""
        worlds = self.env.num_envs
        if self.transitions < self.random_steps:
            return self.env.spec.random_action(worlds, self.generator)
        if self.transitions < self.explored:
            return self.explore(self.obs, self.agent.draw_exploration(worlds))
        return self.exploit(self.obs, self.still)

    def store(self, action: Tensor, obs: Tensor, next_obs: Tensor, reward: Tensor, terminated: Tensor, truncated: Tensor) -> None:
        """Write a step into replay, show it to the agent, and count it; all in place."""
        with torch.no_grad():
            step = Step(obs, next_obs, reward, terminated, truncated, self.valid, {})
            self.buffer.write(self.obs, action, step)
            self.agent.observe(step)
            done = terminated | truncated
            self.returns.add_(reward)
            self.lengths.add_(1)
            ended = torch.stack((self.returns, self.lengths, torch.ones_like(self.returns)))
            self.totals.add_(torch.where(done, ended, 0.0).sum(-1))
            self.returns.masked_fill_(done, 0.0)
            self.lengths.masked_fill_(done, 0.0)
            self.obs.copy_(obs)

    def episodes(self) -> list[Episode]:
        """The mean of the episodes that finished since the last call; none if there were none.

        Raises `EnvError` for what went wrong in the worlds meanwhile.
        """
        self.env.check()
        score, length, count = self.totals.tolist()
        self.totals.zero_()
        return [Episode(score / count, length / count, round(count))] if count else []

    def publish(self) -> None:
        """Nothing to do: the agent itself acts."""

    def rest(self) -> bool:
        """Nothing is collected between two calls of `collect`."""
        return True

    def state_dict(self) -> dict[str, Any]:
        """Worlds, the observation to act on, the random stream and the running returns."""
        tensors = {name: getattr(self, name).clone() for name in ("obs", "returns", "lengths", "totals")}
        generator = self.generator.get_state()
        return {"env": self.env.state_dict(), "generator": generator, "transitions": self.transitions, **tensors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue, in place, because captured graphs know these tensors by their addresses."""
        self.transitions = state["transitions"]
        resume(self.generator, state["generator"])
        self.env.load_state_dict(state["env"])
        for name in ("obs", "returns", "lengths", "totals"):
            getattr(self, name).copy_(state[name])

    def close(self) -> None:
        """Close the worlds."""
        self.env.close()
