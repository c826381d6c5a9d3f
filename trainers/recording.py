"""Rolling a policy out into a data set: `record`, and the policies that can be named on a command line."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelyard import envs
from steelyard.agents.errors import SteelyardError
from steelyard.agents.types import Spec, Step
from steelyard.envs.datasets import Dataset
from steelyard.envs.vector import VectorEnv
from steelyard.trainers import plain, provenance
from steelyard.trainers.evaluation import Actor
from steelyard.trainers.policy_files import read_policy
from steelyard.trainers.restore import restore

RECORDING_SEEDS = 500_000_000
"""World seeds of recordings begin here: training's lie below (1,000 times a seed below 300,000), evaluation's above 10^9."""
WORLDS = 16
"""Worlds stepped side by side, at most."""
ROWS_PER_WORLD = 1_000
"""Transitions to be recorded for each world that is made, at least, where the task has no time limit."""


class RecordingError(SteelyardError):
    """A recording that cannot be made as asked."""


class RandomPolicy:
    """Uniformly random actions."""

    def __init__(self, spec: Spec, seed: int):
        self.device = torch.device("cpu")
        self.spec, self.generator = spec, torch.Generator().manual_seed(seed)

    def act(self, obs: Tensor, explore: bool) -> Tensor:
        """Actions [N, action_size]; `explore` makes no difference."""
        return self.spec.random_action(len(obs), self.generator)


@dataclass(frozen=True)
class Source:
    """A policy and what belongs to it."""

    policy: Actor
    task: str
    """Where it acts."""
    action_repeat: int
    """Environment steps per decision."""
    spec: Spec
    """Sizes and time limit of the worlds."""
    distractors: int = 0
    """Numbers appended to each observation."""


def open_policy(source: str, task: str | None = None, *, seed: int = 0, snapshot: int = -1) -> Source:
    """The policy that `source` names: "random", an npz file (see `trainers.policy_files`), or a run's folder.

    `task`: where it shall act; a run's folder knows its own. `seed`: of drawn actions (a run's agent goes on with its own stream).
    `snapshot`: of a file of snapshots. Raises `RecordingError` if there is no such policy or if it does not fit the task, and what
    reading it raises (`PolicyFileError`, `ConfigError`, `CheckpointError`, `EnvError`).
    """
    folder = Path(source).expanduser()
    run = plain.load(folder / "config.json") if folder.is_dir() else None
    if run is not None and run.pictures is not None:
        raise RecordingError(f"{source} acts from pictures, which data sets do not hold; record an agent that learned without.")
    task = task or (run.task if run else None)
    if task is None:
        raise RecordingError(f"{source} does not say in which worlds it acts; name them with --task.")
    env = envs.make(task, 1, action_repeat=run.action_repeat if run else 1, distractors=run.distractors if run else 0)
    spec = env.spec
    env.close()
    if run is not None:
        agent, _ = restore(folder, run, spec)
        return Source(agent, task, run.action_repeat, spec, run.distractors)
    if source == "random":
        return Source(RandomPolicy(spec, seed), task, 1, spec)
    policy = read_policy(folder, snapshot=snapshot, seed=seed)
    if (policy.obs_size, policy.action_size) != (spec.obs_size, spec.action_size):
        raise RecordingError(
            f"{source} takes {policy.obs_size} observations and gives {policy.action_size} actions where {task} has "
            f"{spec.obs_size} and {spec.action_size}; name the task that it was trained on."
        )
    return Source(policy, task, 1, spec)


def describe(source: str, seed: int, stochastic: bool) -> dict[str, Any]:
    """Attributes for the file of a recording: where it came from, and the versions of what made it."""
    versions = json.dumps(provenance.describe()["versions"])
    return {"source": source, "seed": seed, "stochastic": stochastic, "versions": versions}


@torch.no_grad()
def record(
    source: Source,
    transitions: int,
    *,
    name: str,
    seed: int = 0,
    stochastic: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Dataset:
    """Whole episodes of the policy, `transitions` rows in all; the last episode is cut where they are reached (`truncated`).

    Flags are the world's own; a row that both terminates and runs out of time is terminal. Several worlds play side by side, and their
    episodes are taken in the order in which they *began*: in the order in which they end, short ones would be too many. `seed`: of the
    worlds, which are none that training or evaluation sees. `stochastic`: explore; else the policy's deterministic action.
    `progress` is called with the number of transitions there are. Actions are recorded as the world executes them, in [-1, 1].

    Raises `RecordingError` for numbers out of range, and `EnvError` if a world breaks.
    """
    if transitions < 2:
        raise RecordingError(f"{transitions} transitions were asked for; ask for two or more.")
    if not 0 <= seed < 300_000:
        raise RecordingError(f"seed {seed} is outside [0, 300000); choose a smaller one.")
    # So few worlds that not much more is played than is wanted.
    worlds = int(np.clip(transitions // (source.spec.horizon or ROWS_PER_WORLD), 1, WORLDS))
    env = envs.make(source.task, worlds, action_repeat=source.action_repeat, distractors=source.distractors)
    try:
        episodes, columns = _play(source.policy, env, transitions, RECORDING_SEEDS + 1_000 * seed, stochastic, progress)
    finally:
        env.close()
    return dataclasses.replace(_join(name, source.task, episodes, columns, transitions), discrete=source.spec.discrete)


@dataclass
class _Episode:
    world: int
    start: int
    """Call of `step` that made its first row."""
    length: int = 0
    done: bool = False


def _play(
    policy: Actor, env: VectorEnv, transitions: int, seed: int, stochastic: bool, progress: Callable[[int], None] | None
) -> tuple[list[_Episode], dict[str, NDArray[Any]]]:
    """Episodes in the order of their beginning, enough of them for `transitions`, and columns [calls, worlds, ...]."""
    obs = env.reset(seed)
    calls: dict[str, list[NDArray[Any]]] = {key: [] for key in ("obs", "action", "reward", "next_obs", "terminated", "truncated")}
    episodes: list[_Episode] = []
    current: list[_Episode | None] = [None] * env.num_envs
    whole, first_open = 0, 0  # transitions of the finished episodes before the first unfinished one, and that one's number
    while True:
        action = policy.act(obs.to(policy.device), explore=stochastic).to(env.device).clamp(-1.0, 1.0)
        step: Step = env.step(action)
        row = {
            "obs": obs,
            "action": action,
            "reward": step.reward,
            "next_obs": step.next_obs,
            "terminated": step.terminated,
            "truncated": step.truncated,
        }
        now = len(calls["obs"])
        for key, value in row.items():
            calls[key].append(np.array(value.cpu().numpy()))
        ended = (step.terminated | step.truncated).tolist()
        for world, valid in enumerate(step.valid.tolist()):
            if not valid:  # this call only reset the world
                continue
            episode = current[world]
            if episode is None:
                episode = current[world] = _Episode(world, now)
                episodes.append(episode)
            episode.length += 1
            if ended[world]:
                episode.done, current[world] = True, None
        while first_open < len(episodes) and episodes[first_open].done:
            whole += episodes[first_open].length
            first_open += 1
        have = whole + (episodes[first_open].length if first_open < len(episodes) else 0)
        if progress is not None:
            progress(min(have, transitions))
        if have >= transitions:
            return episodes[: first_open + 1], {key: np.stack(values) for key, values in calls.items()}
        obs = step.obs


def _join(name: str, task: str, episodes: list[_Episode], columns: dict[str, NDArray[Any]], transitions: int) -> Dataset:
    """The first `transitions` rows of the episodes, one episode after the other."""
    times, worlds, ends = [], [], []
    left = transitions
    for episode in episodes:
        length = min(episode.length, left)
        if not length:
            break
        times.append(np.arange(episode.start, episode.start + length))
        worlds.append(np.full(length, episode.world))
        left -= length
        ends.append(transitions - left - 1)
    at = (np.concatenate(times), np.concatenate(worlds))
    rows = {key: array[at] for key, array in columns.items()}
    terminated = rows["terminated"].astype(np.bool_)
    truncated = rows["truncated"].astype(np.bool_) & ~terminated
    truncated[-1] |= not terminated[-1]
    action = rows["action"].astype(np.float32)
    next_action = np.concatenate([action[1:], action[-1:]])
    next_action[ends] = action[ends]
    starts = np.concatenate([[0], np.array(ends[:-1], dtype=np.int64) + 1])
    return Dataset(
        name=name,
        task=task,
        obs=rows["obs"].astype(np.float32),
        action=action,
        reward=rows["reward"].astype(np.float32),
        next_obs=rows["next_obs"].astype(np.float32),
        next_action=next_action,
        terminated=terminated,
        truncated=truncated,
        returns=np.add.reduceat(rows["reward"].astype(np.float64), starts),
        clipped=0,
    )
