"""What runs in an actor's process: step the worlds, write their columns of replay, wait while the learner is behind."""

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
from torch import Tensor, nn

from steelyard.agents.errors import SteelyardError
from steelyard.envs.vector import EnvError, VectorEnv
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.shared_weights import SharedWeights

PAUSE = 2e-4
"""Seconds between two looks at a shared counter: short beside an update, long enough to cost no processor time."""


@dataclass(frozen=True)
class Board:
    """The shared counters; each has one writer, so none needs a lock."""

    allowed: Tensor
    """[actors] int64, written by the learner: transitions that each actor may have written since the pool started."""
    heartbeat: Tensor
    """[actors] float64, written by the actors: when each was last seen, in seconds of the monotonic clock."""
    stop: Tensor
    """[1] bool, written by the learner."""

    @staticmethod
    def build(num_actors: int) -> "Board":
        """Zeros in shared memory."""
        return Board(
            torch.zeros(num_actors, dtype=torch.int64).share_memory_(),
            torch.zeros(num_actors, dtype=torch.float64).share_memory_(),
            torch.zeros(1, dtype=torch.bool).share_memory_(),
        )


@dataclass(frozen=True)
class Assignment:
    """Everything that a process needs to be actor number `actor`."""

    actor: int
    columns: tuple[int, int]
    """First column of replay and the one after the last."""
    make_env: Callable[[int], VectorEnv]
    buffer: ReplayBuffer
    weights: SharedWeights
    board: Board
    seeds: tuple[int, int]
    """For the worlds and for the exploration."""
    written: int
    """Transitions that earlier processes of this actor wrote."""
    random_transitions: int
    """How many of this actor's first transitions come from uniformly random actions."""
    errors: Connection
    """Takes one sentence if the worlds or replay refuse."""


def run(assignment: Assignment, load_policy: Callable[[], nn.Module]) -> None:
    """Be an actor until the learner says stop or is gone. Exit code 1 after an error reported through `assignment.errors`."""
    # Ctrl-C reaches the whole process group; only the learner decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            _act(assignment, load_policy())
    except (SteelyardError, EnvError) as error:
        assignment.errors.send(str(error))
        sys.exit(1)


def _act(job: Assignment, policy: nn.Module) -> None:
    first, end = job.columns
    env = job.make_env(end - first)
    try:
        generator = torch.Generator().manual_seed(job.seeds[1])
        obs, written, version = env.reset(job.seeds[0]), job.written, 0
        while (room := _room(job, written)) > 0:
            if (newer := job.weights.newer(version)) is not None:
                version, state = newer
                policy.load_state_dict(state)
            explore = written < job.random_transitions
            action = env.spec.random_action(end - first, generator) if explore else policy(obs, generator)
            step = env.step(action)
            step = step._replace(valid=first_of(step.valid, room))
            job.buffer.add(obs, action, step, slice(first, end))
            written += int(step.valid.sum())
            obs = step.obs
    finally:
        env.close()


def _room(job: Assignment, written: int) -> int:
    """Wait until more transitions are allowed and return how many; zero if it is time to end, or if the learner is gone."""
    learner = multiprocessing.parent_process()
    while True:
        job.board.heartbeat[job.actor] = time.monotonic()
        if bool(job.board.stop):
            return 0
        if (room := int(job.board.allowed[job.actor]) - written) > 0:
            return room
        if learner is not None and not learner.is_alive():
            return 0
        time.sleep(PAUSE)


def first_of(valid: Tensor, room: int) -> Tensor:
    """The first `room` of the valid columns: the last step before the limit may be more than there is room for."""
    return valid & (valid.cumsum(0) <= room)
