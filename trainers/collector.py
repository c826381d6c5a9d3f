"""Where new transitions come from: worlds in this process, or in others (`actor_collector.py`)."""

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from steelyard.agents.acting import ActingAgent
from steelyard.agents.random_streams import resume
from steelyard.envs.vector import VectorEnv
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.collected import Episode
from steelyard.trainers.evaluation import training_seed

SEEDS_PER_RUN = 1_000
"""Training world i of the run with seed s starts from the seed `1000 s + i`; with more worlds runs are as far apart as there are worlds.
Evaluation's seeds begin at 10^9."""


class Collector(Protocol):
    """Writes new transitions into replay and shows them to the agent's running statistics."""

    def collect(self) -> int:
        """Collect some transitions and return how many."""
        ...

    def episodes(self) -> list[Episode]:
        """Episodes that finished since the last call."""
        ...

    def publish(self) -> None:
        """Let what collects see the agent's newest parameters."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that determines what is collected next, as tensors and plain data."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        ...

    def rest(self) -> bool:
        """Ask for a stop; True once nothing is being collected, so that replay can be saved. Until then `collect` goes on."""
        ...

    def close(self) -> None:
        """Release the worlds."""
        ...


class LocalCollector:
    """Steps worlds in this process: deterministic, and resumed bit for bit where the worlds can be saved."""

    def __init__(
        self,
        env: VectorEnv,
        agent: ActingAgent,
        buffer: ReplayBuffer,
        random_steps: int,
        seed: int,
        explored: float = math.inf,
    ):
        """Uniformly random actions for `random_steps` transitions, then the policy's: drawn until `explored` transitions, then its mode."""
        self.env, self.agent, self.buffer, self.random_steps, self.seed = env, agent, buffer, random_steps, seed
        self.explored = explored
        self.generator = torch.Generator().manual_seed(seed + 3)
        self.obs = env.reset(seed * max(SEEDS_PER_RUN, env.num_envs))
        self.returns = torch.zeros(env.num_envs, dtype=torch.float64, device=env.device)
        self.lengths = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
        self.transitions = 0
        self.finished: list[Episode] = []

    def collect(self) -> int:
        """One step of every world."""
        action = (
            self.random_action()
            if self.transitions < self.random_steps
            else self.agent.act(self.obs.to(self.agent.device), explore=self.transitions < self.explored)
        ).to(self.env.device)
        step = self.env.step(action)
        self.buffer.add(self.obs, action, step)
        self.agent.observe(step)
        self.count(step.reward, step.valid, step.terminated | step.truncated)
        self.obs = step.obs
        transitions = int(step.valid.sum())
        self.transitions += transitions
        return transitions

    def random_action(self) -> Tensor:
        """Uniformly random actions [num_envs, action_size]."""
        return self.env.spec.random_action(self.env.num_envs, self.generator)

    def count(self, reward: Tensor, valid: Tensor, done: Tensor) -> None:
        """Add a step to the running returns and record the episodes that it finished."""
        self.returns += reward
        self.lengths += valid
        if bool(done.any()):
            ended = zip(self.returns[done].tolist(), self.lengths[done].tolist(), strict=True)
            self.finished += [Episode(score, length) for score, length in ended]
            self.returns[done], self.lengths[done] = 0, 0

    def episodes(self) -> list[Episode]:
        """Episodes that finished since the last call."""
        finished, self.finished = self.finished, []
        return finished

    def publish(self) -> None:
        """Nothing to do: the agent itself acts."""

    def rest(self) -> bool:
        """Nothing is collected between two calls of `collect`."""
        return True

    def state_dict(self) -> dict[str, Any]:
        """Worlds (None if they cannot be saved), the observation to act on, the random stream and the running returns."""
        return {
            "env": self.env.state_dict(),
            "obs": self.obs.clone(),
            "generator": self.generator.get_state(),
            "returns": self.returns.clone(),
            "lengths": self.lengths.clone(),
            "transitions": self.transitions,
            "finished": [(episode.score, episode.length) for episode in self.finished],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue. Worlds that cannot be saved start new episodes, from seeds that depend on how far the run has come."""
        self.transitions = state["transitions"]
        resume(self.generator, state["generator"])
        self.finished = [Episode(score, length) for score, length in state["finished"]]
        if state["env"] is None:
            self.obs = self.env.reset(training_seed((self.seed, self.transitions), self.env.num_envs))
            self.buffer.cut()
            return
        self.env.load_state_dict(state["env"])
        self.obs, self.returns, self.lengths = (state[name].to(self.env.device) for name in ("obs", "returns", "lengths"))

    def close(self) -> None:
        """Close the worlds."""
        self.env.close()
