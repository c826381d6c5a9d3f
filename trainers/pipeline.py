"""Offline, then online: phases over one agent. The offline phase only learns; the online phase is the online loop."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from steelyard.agents.types import Records, Spec
from steelyard.envs import d4rl_table, datasets
from steelyard.envs.datasets import Dataset
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.builders import rows_of_new
from steelyard.trainers.collected import Episode
from steelyard.trainers.config import Transfer
from steelyard.trainers.evaluation import Scores
from steelyard.trainers.imagination import Imagination
from steelyard.trainers.learner import Learner
from steelyard.trainers.online import Online
from steelyard.trainers.samplers import Sampler, UniformSampler

CHUNK = 100
"""Most offline updates between two looks at clocks and signals."""


class Pipeline(Online):
    """A run that begins with data.

    Steps count offline updates first and environment steps after them, so that one axis has both phases. Checkpoints of the offline phase hold
    no replay: it is the data set.

    Args:
        run: The configuration.
        folder: Where results go. If a checkpoint lies there the run continues from it, in either phase.
        fresh: Delete what lies there, once everything else is built.

    Raises `DatasetError` if the data cannot be read or does not fit the task.
    """

    run: Transfer
    axis: ClassVar[str] = "steps"
    unit: ClassVar[str] = "steps"

    def __init__(self, run: Transfer, folder: Path, fresh: bool = False):
        self.offline_updates = 0
        self.online = False
        self.regrets = {"training": Regret(), "evaluation": Regret()}
        self.dataset: Dataset = datasets.load(run.dataset)
        super().__init__(run, folder, fresh)
        if not self.online:
            self.learner.watchers = ()
        if run.offline_updates == 0 and not self.online:
            self.go_online()

    @property
    def steps(self) -> int:
        """Offline updates, then environment steps."""
        return self.offline_updates + self.env_steps

    def build_replay(self, spec: Spec, num_envs: int) -> tuple[ReplayBuffer, Sampler]:
        """Loads the data into replay, fits the agent's normalisers to it, and builds the samplers of both phases."""
        datasets.require_spec(self.dataset, spec, self.run.task)
        self.agent.fit(records(self.dataset, self.agent.device))
        run = self.run
        needed = ReplayBuffer.rows_needed(self.dataset, num_envs)
        placement = "device" if run.torch_device.type == "cuda" else "host"
        later = rows_of_new(run, spec, num_envs)
        capacity = needed + (later + num_envs if run.replay.one_buffer else 0)
        data = ReplayBuffer(spec, capacity, num_envs, placement, run.torch_device)
        data.columns = self.agent.columns
        data.extend(self.dataset)
        self.keep_returns(data)
        collected = data
        if not run.replay.one_buffer:
            collected = ReplayBuffer(spec, later, num_envs, placement, run.torch_device)
            collected.columns = self.agent.columns
            self.keep_returns(collected)
        agent, seed = run.agent, run.seed + 4
        sampler = run.sampler.build(data, agent.batch_size, agent.n_step, self.agent.gamma, seed)
        online = sampler
        if collected is not data:
            online = UniformSampler(collected, agent.batch_size, agent.n_step, self.agent.gamma, seed + 1)
        self.replays = (data,) if collected is data else (data, collected)
        self.online_sampler = run.replay.sampler(sampler, online)
        return collected, sampler

    def build_imagination(self) -> Imagination:
        """What fits the agent's model, to the data and to new transitions, and imagines with it."""
        return self.run.imagination.build(self.imagined_from(self.replays))

    def keep_returns(self, buffer: ReplayBuffer) -> None:
        """Returns to go, if the agent reads them."""
        if "goal_return" in self.agent.columns:
            buffer.keep_returns(self.agent.gamma, self.agent.reward_scale, self.run.reward_of_failure)

    def saved_replay(self) -> ReplayBuffer | None:
        """Nothing offline, where replay is the data set."""
        return self.buffer if self.online else None

    def introduction(self) -> list[str]:
        """The data set, replay, and how scores are to be read."""
        remark = None if self.normalized(0.0) is None else d4rl_table.remark(self.run.task)
        return [self.dataset.describe(), *super().introduction(), *([remark] if remark else [])]

    def step(self) -> None:
        """Some updates offline, or one step online."""
        if self.online:
            super().step()
            return
        self.imagination.imagine(self.offline_updates, offline=True)
        done = self.offline_updates
        count = min(CHUNK, self.run.offline_updates - done, self.imagination.updates_before_next(done))
        self.learner.update(count)
        self.offline_updates += count
        if self.offline_updates == self.run.offline_updates:
            self.go_online()

    def go_online(self) -> None:
        """The switch between the phases: other coefficients, other batches; networks and optimisers go on."""
        self.online = True
        self.agent.begin_online()
        self.buffer.cut()
        self.use_online_sampler()

    def use_online_sampler(self) -> None:
        """From now on batches come from where online batches come from."""
        self.sampler = self.imagination.mixed(self.online_sampler)
        metrics, self.learner = self.learner.metrics, Learner(self.agent, self.sampler, self.folder)
        self.learner.metrics, self.learner.watchers = metrics, (self.schedule,)

    def normalized(self, score: float) -> float | None:
        """D4RL's normalised score in per cent of a return; None if D4RL has no reference for the data set or the task."""
        return d4rl_table.normalized_score(self.dataset.name, score, self.run.task)

    def note(self, episodes: list[Episode]) -> None:
        """Count training episodes of the online phase towards the regret."""
        normalized = (self.normalized(episode.score) for episode in episodes)
        for score in normalized:
            if score is not None:
                self.regrets["training"].add(score)

    def score(self, scores: Scores) -> dict[str, float]:
        """D4RL's normalised score, and both regrets of the online phase so far."""
        normalized = self.normalized(scores.mean)
        if normalized is None:
            return {"env_steps": self.env_steps}
        if self.online and self.env_steps:
            self.regrets["evaluation"].add(normalized)
        found = {f"regret/{name}": regret.mean for name, regret in self.regrets.items() if regret.count}
        return {"env_steps": self.env_steps, "eval/normalized": normalized, **found}

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes, apart from replay."""
        regrets = {name: (regret.total, regret.count) for name, regret in self.regrets.items()}
        return super().state_dict() | {"offline_updates": self.offline_updates, "online": self.online, "regrets": regrets}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's state, in the phase that it was in."""
        self.offline_updates, self.online = state["offline_updates"], state["online"]
        self.regrets = {name: Regret(*values) for name, values in state["regrets"].items()}
        if self.online:
            self.agent.begin_online()
            self.use_online_sampler()
        super().load_state_dict(state)


class Regret:
    """Mean of 1 - score over episodes or evaluations, a score being D4RL's normalised one, cut to [0, 1] (Nakamoto et al. 2023)."""

    def __init__(self, total: float = 0.0, count: int = 0):
        self.total, self.count = total, count

    def add(self, normalized: float) -> None:
        """Count an episode, or an evaluation, with this normalised score in per cent."""
        self.total += 1 - min(max(normalized / 100, 0.0), 1.0)
        self.count += 1

    @property
    def mean(self) -> float:
        """Regret so far."""
        return self.total / self.count


def records(dataset: Dataset, device: torch.device | str = "cpu") -> Records:
    """What normalisers see of a data set, on the device where they live."""
    done = torch.from_numpy(dataset.terminated | dataset.truncated)
    arrays = (dataset.obs, dataset.reward, dataset.returns.astype(np.float64))
    obs, reward, returns = (torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays)
    return Records(obs, reward, done.to(device), returns)
