"""Replay that other processes write: a writer beside a reader, and actors with worlds."""

import dataclasses
import functools
import multiprocessing
import os
import time

import torch
import torch.multiprocessing  # teaches pickle to send shared tensors
from torch import Tensor, nn

from benchmarks.window import Subject
from steelyard.agents.types import Spec, Step
from steelyard.trainers.actors import ActorPool, guard_rows
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.collecting import LEAD, worlds
from steelyard.trainers.presets import MUJOCO
from steelyard.trainers.samplers import Uniform

SPEC = Spec(obs_size=17, action_size=6, horizon=1000)
ROWS, WORLDS, BATCH = 1_000_000, 64, 256


def write(buffer: ReplayBuffer, going: Tensor) -> None:
    """Add steps of random numbers, as fast as possible, while `going` says so and until the learner's process is gone."""
    torch.set_num_threads(1)
    parent = os.getppid()
    obs, never = torch.randn(WORLDS, SPEC.obs_size), torch.zeros(WORLDS, dtype=torch.bool)
    step = Step(obs, obs, torch.randn(WORLDS), never, never, ~never, {})
    action = torch.rand(WORLDS, SPEC.action_size) * 2 - 1
    while os.getppid() == parent:
        if not going:
            time.sleep(0.001)  # other measurements have their turn
            continue
        for _ in range(10):
            buffer.add(obs, action, step)


def reading_and_writing(counted: str) -> Subject:
    """Transitions `read` by this process, or `written` by another one meanwhile."""
    buffer = ReplayBuffer(SPEC, ROWS, WORLDS, "shared", guard=1000)
    sampler = Uniform().build(buffer, BATCH, 1, 0.99, seed=0)
    going = torch.ones(1, dtype=torch.bool).share_memory_()
    multiprocessing.get_context("spawn").Process(target=write, args=(buffer, going), daemon=True).start()
    while int(buffer.cursors.min()) < 1000:
        time.sleep(0.01)

    def subject(seconds: float) -> tuple[int, float]:
        going.fill_(True)
        start, before, read = time.perf_counter(), int(buffer.cursors.sum()), 0
        while time.perf_counter() - start < seconds:
            sampler.sample()
            read += BATCH
        going.fill_(False)
        written = int(buffer.cursors.sum()) - before
        return (read if counted == "read" else written), time.perf_counter() - start

    return subject


class Still(nn.Module):
    """A policy that is never asked: all actions are random."""

    def forward(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        """Never called."""
        raise NotImplementedError


def collecting(actors: int) -> Subject:
    """Transitions from worlds to the learner's eyes, without updates: what the pool itself allows."""
    run = dataclasses.replace(MUJOCO["sac"], num_envs=WORLDS, actors=actors, vectorization="batch")
    lead = LEAD * actors * WORLDS
    buffer = ReplayBuffer(SPEC, ROWS, actors * WORLDS, "shared", guard=guard_rows(actors, lead))
    pool = ActorPool(functools.partial(worlds, run, 1), Still(), buffer, actors, 0, random_transitions=10**9, lead=lead)
    pool.start()
    pool.allow(10**9)
    pool.collect()

    def subject(seconds: float) -> tuple[int, float]:
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            count += pool.collect().transitions
        return count, time.perf_counter() - start

    return subject
