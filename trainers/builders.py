"""What a run is built from beside its agent: worlds, replay, and what collects from one into the other."""

import os
import shutil

from steelyard import envs
from steelyard.agents.acting import ActingAgent
from steelyard.agents.types import Spec
from steelyard.trainers.actor_collector import ActorCollector, lead
from steelyard.trainers.actors import guard_rows
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.collector import Collector, LocalCollector
from steelyard.trainers.config import ConfigError, Run


def require_compiler(run: Run) -> None:
    """Raises `ConfigError` if updates are to be compiled for a CPU and the machine has no C++ compiler."""
    if run.execution.compile and run.torch_device.type == "cpu" and not has_compiler():
        raise ConfigError(
            "updates are to be compiled, but there is no C++ compiler: install g++ or clang++, or use --execution.no-compile."
        )


def has_compiler() -> bool:
    """Whether this machine has a C++ compiler, which compiled updates on a CPU need."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++", "cl"))


def build_buffer(run: Run, spec: Spec, num_envs: int) -> ReplayBuffer:
    """Replay for a run: shared between processes, on the GPU where one learns, or in host memory."""
    capacity = max(min(run.capacity, run.env_steps), 2 * num_envs)
    if run.actors:
        # Actors advance unevenly: a column of the fast one needs more rows than its share.
        capacity = max(min(run.capacity, 2 * run.env_steps), 2 * num_envs)
        return ReplayBuffer(spec, capacity, num_envs, "shared", guard=guard_rows(run.actors, lead(run)))
    if run.torch_device.type == "cuda":
        return ReplayBuffer(spec, capacity, num_envs, "device", run.torch_device)
    return ReplayBuffer(spec, capacity, num_envs)


def make_env(run: Run) -> envs.VectorEnv:
    """The worlds that a run collects from."""
    return envs.make(
        run.task,
        run.num_envs,
        action_repeat=run.action_repeat,
        vectorization=run.vectorization,
        pictures=run.pictures,
        distractors=run.distractors,
    )


def make_collector(run: Run, agent: ActingAgent, buffer: ReplayBuffer) -> Collector:
    """What collects for a run: this process, or others."""
    if run.actors:
        return ActorCollector(run, agent, buffer)
    return LocalCollector(make_env(run), agent, buffer, run.uniform_steps, run.seed, run.explored_steps)
