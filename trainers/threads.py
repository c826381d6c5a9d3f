"""How many CPU threads an update gets: measured, because OpenMP threads that wait for a busy core can cost more than they bring."""

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from steelyard.agents.types import Spec, Step
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.config import Run
from steelyard.trainers.learner import Learner

SECONDS = 1.0
"""Length of each timing."""


def use(count: int) -> None:
    """Let torch, and the kernels that its compiler builds from now on, use `count` threads."""
    import torch._inductor.config as inductor  # here, because it takes seconds that reading a run's options should not cost

    torch.set_num_threads(count)
    inductor.cpp.threads = count  # part of the compiler's cache key, so that kernels for another count are not reused


def choose(run: Run, spec: Spec) -> int:
    """The number of threads for a run: its own choice, or the faster of one and all. On a GPU one is enough."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if run.threads or run.torch_device.type != "cpu" or cores == 1:
        return run.threads or 1
    return max((1, cores), key=lambda count: rate(run, spec, count))


def rate(run: Run, spec: Spec, count: int) -> float:
    """Updates per second of a throwaway agent with `count` threads."""
    use(count)
    with TemporaryDirectory() as folder:
        agent = run.agent.build(spec, num_envs=1, total_updates=1, seed=0, execution=run.execution)
        buffer = ReplayBuffer(spec, 1000)
        generator = torch.Generator().manual_seed(0)
        plain, never = spec.frames is None, torch.zeros(1, dtype=torch.bool)
        obs = torch.randn(1, spec.obs_size) if plain else torch.zeros(1, spec.obs_size, dtype=torch.uint8)
        for _ in range(100):
            buffer.add(obs, spec.random_action(1, generator), Step(obs, obs, torch.zeros(1), never, never, ~never, {}))
        learner = Learner(agent, run.sampler.build(buffer, run.agent.batch_size, run.agent.n_step, agent.gamma, 0), Path(folder))
        learner.update(2 * max(agent.every.values(), default=1))
        start, updates = time.perf_counter(), 0
        while time.perf_counter() - start < SECONDS:
            learner.update(1)
            updates += 1
        return updates / (time.perf_counter() - start)
