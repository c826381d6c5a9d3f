"""What a run is built from beside its agent: worlds, replay, and what collects from one into the other."""

import dataclasses
import os
import shutil
from typing import Any, cast

import torch

from steelyard import envs
from steelyard.agents.acting import ActingAgent
from steelyard.agents.types import Spec
from steelyard.envs.vector import ResidentEnv
from steelyard.trainers.actor_collector import ActorCollector
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.collector import Collector, LocalCollector
from steelyard.trainers.config import ConfigError, Run
from steelyard.trainers.resident_collector import ResidentCollector

COMPILERS = {"cpu": ("CXX", "g++", "clang++", "cl"), "cuda": ("CC", "gcc", "clang", "cc")}
"""What compiled updates need, first the variable that names it: a C++ compiler for kernels on a CPU, one of C for what launches Triton's on a GPU."""


def require_compiler(run: Run) -> None:
    """Raises `ConfigError` if updates are to be compiled and the machine lacks the compiler that this takes on the run's device."""
    device = run.torch_device.type
    if run.execution.compile and not has_compiler(device):
        _, first, second, _ = COMPILERS[device]
        raise ConfigError(
            f"updates are to be compiled for {device}, but there is no compiler for it: install {first} or {second}, or use --execution.no-compile."
        )


def has_compiler(device: str = "cpu") -> bool:
    """Whether this machine has a compiler that compiled updates on such a device need."""
    variable, *names = COMPILERS[device]
    return any(shutil.which(name) for name in (os.environ.get(variable, names[0]), *names))


def build_buffer(run: Run, spec: Spec, num_envs: int) -> ReplayBuffer:
    """Replay for a run: what its actors can fill, on the GPU where one learns, or in host memory."""
    if run.actors:
        return run.collecting.replay(run, spec, num_envs)
    capacity = rows_of_new(run, spec, num_envs)
    if run.resident or run.torch_device.type == "cuda":
        return ReplayBuffer(spec, capacity, num_envs, "device", run.torch_device)
    return ReplayBuffer(spec, capacity, num_envs)


def rows_of_new(run: Run, spec: Spec, num_envs: int) -> int:
    """Rows of replay for what a run collects: where an episode ends a row more is spent, after each transition if it may end at any time."""
    transitions = -(-run.env_steps // run.action_repeat)
    shortest = spec.horizon if spec.horizon and not spec.can_terminate else 1
    return max(min(run.capacity, transitions + transitions // shortest + 2 * num_envs), 2 * num_envs)


def make_env(run: Run) -> envs.VectorEnv:
    """The worlds that a run collects from; on a device their first episodes are of different lengths, so that they do not all end together."""
    options: dict[str, Any] = {"vectorization": run.vectorization, "pictures": run.pictures, "distractors": run.distractors}
    options |= {"randomization": run.randomization}
    if run.resident:
        options |= {"device": run.torch_device, "staggered": True}
    return envs.make(run.task, run.num_envs, action_repeat=run.action_repeat, **options)


def trained_spec(run: Run, spec: Spec) -> Spec:
    """The task as a run's agent learned it, given the `spec` of worlds that are not randomised: critics saw factors behind the observation."""
    shown = 0 if run.randomization is None else envs.shown_factors(run.task, run.randomization)
    return dataclasses.replace(spec, obs_size=spec.obs_size + shown, policy_obs_size=spec.visible) if shown else spec


def make_evaluation_env(
    run: Run, episodes: int | None = None, vectorization: str | None = None, render_size: int | None = None
) -> envs.VectorEnv:
    """Worlds to score a run's agent in, one for each of `episodes` (the run's evaluation_episodes), all beginning whole episodes together.

    `vectorization`: as the run evaluates unless named; on a device that device is a GPU if there is one. `render_size`: of pictures to look at.
    """
    kind = vectorization or run.evaluation_vectorization
    options: dict[str, Any] = {
        "vectorization": kind,
        "render_size": render_size,
        "pictures": run.pictures,
        "distractors": run.distractors,
    }
    if kind == "warp":
        options |= {"device": "cuda" if run.device != "cpu" and torch.cuda.is_available() else "cpu", "staggered": False}
    return envs.make(run.task, episodes or run.evaluation_episodes, action_repeat=run.action_repeat, **options)


def make_collector(run: Run, agent: ActingAgent, buffer: ReplayBuffer) -> Collector:
    """What collects for a run: this process, or others."""
    if run.actors:
        return ActorCollector(run, agent, buffer)
    if run.resident:
        env = cast(ResidentEnv, make_env(run))
        return ResidentCollector(env, agent, buffer, run.uniform_steps, run.seed, run.explored_steps)
    return LocalCollector(make_env(run), agent, buffer, run.uniform_steps, run.seed, run.explored_steps)
