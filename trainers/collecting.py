"""The slot `collecting`: where a run's actors live, and how their transitions reach replay."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

from steelyard import envs
from steelyard.agents.types import Spec
from steelyard.envs.vector import VectorEnv
from steelyard.trainers.actors import ActorPool, guard_rows
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.collected import ActorError, Collected, Episode

if TYPE_CHECKING:
    from steelyard.trainers.config import Run

LEAD = 16
"""Transitions per world that actors on this machine may be ahead of the learner."""


class Pool(Protocol):
    """Actors as the training loop sees them: processes of this machine (`ActorPool`), or remote ones (`RemotePool`)."""

    limit: int
    """Transitions that may be collected since the start."""

    @property
    def collected(self) -> int:
        """Transitions that `collect` has returned since the start."""
        ...

    def start(self) -> None:
        """Start the actors, with fresh episodes in all columns. They wait until `allow`."""
        ...

    def allow(self, transitions: int) -> None:
        """Let the actors collect until `collected` is `transitions`, exactly."""
        ...

    def hold(self) -> None:
        """Lower the limit to what the actors have been allowed already."""
        ...

    def publish(self, state: Mapping[str, Tensor]) -> None:
        """Give the actors new values of the policy's `state_dict()`."""
        ...

    def collect(self) -> Collected:
        """Wait for new rows and return them; nothing if the limit of `allow` is reached."""
        ...

    def episodes(self) -> list[Episode]:
        """Episodes that finished since the last call."""
        ...

    def close(self) -> None:
        """End the actors."""
        ...


class Collecting(Protocol):
    """What stands in the slot: it builds replay and the actors that fill it."""

    def replay(self, run: "Run", spec: Spec, num_envs: int) -> ReplayBuffer:
        """Replay that these actors can fill, for `num_envs` worlds of all actors together."""
        ...

    def pool(self, run: "Run", policy: nn.Module, buffer: ReplayBuffer, seed: int, random_transitions: int) -> Pool:
        """The actors, not yet started; the arguments are those of `ActorPool`."""
        ...


@dataclass(frozen=True)
class LocalProcesses:
    """Processes on the learner's machine, which write their columns of its replay in shared memory, without messages."""

    def replay(self, run: "Run", spec: Spec, num_envs: int) -> ReplayBuffer:
        """A ring in shared memory, with the guard that several writers need."""
        require_vectorization(run)
        return ReplayBuffer(spec, capacity(run, num_envs), num_envs, "shared", guard=guard_rows(run.actors, lead(run)))

    def pool(self, run: "Run", policy: nn.Module, buffer: ReplayBuffer, seed: int, random_transitions: int) -> Pool:
        """One process for each actor."""
        make_env = functools.partial(worlds, run, 1)
        return ActorPool(make_env, policy, buffer, run.actors, seed, random_transitions, lead=lead(run))


@dataclass(frozen=True)
class RayActors:
    """Ray actors, on this machine or on others, which send their transitions to the learner (extra `cluster`)."""

    address: str = ""
    """Cluster to join, as host:port or `auto`; without one the variable RAY_ADDRESS counts, and without that Ray starts on this machine."""
    cpus: float = 1.0
    """CPUs that Ray reserves for each actor; `--vectorization batch` uses as many threads."""
    chunk: int = 16
    """Steps of an actor's worlds in one message; two messages of each actor may be under way, which is how far it may be ahead of the learner."""
    patience: float = 120.0
    """Seconds without an answer after which an actor is started anew, and, if none is left, after which the run ends."""

    def __post_init__(self) -> None:
        for name in ("cpus", "chunk", "patience"):
            if not getattr(self, name) > 0:
                raise ActorError(f"collecting.{name} is {getattr(self, name)}; give a positive number.")

    def replay(self, run: "Run", spec: Spec, num_envs: int) -> ReplayBuffer:
        """A ring where the agent learns, since only the learner writes it: in host memory, or on the GPU.

        It is made before anything is written, so this is where Ray is missed. Raises `ClusterError` if it is, or nobody answers at the address.
        """
        from steelyard.trainers.cluster import require_answer, require_ray

        require_vectorization(run)
        require_ray()
        if self.address:
            require_answer(self.address)
        on_gpu = run.torch_device.type == "cuda"
        return ReplayBuffer(spec, capacity(run, num_envs), num_envs, "device" if on_gpu else "host", run.torch_device)

    def pool(self, run: "Run", policy: nn.Module, buffer: ReplayBuffer, seed: int, random_transitions: int) -> Pool:
        """Ray actors; Ray starts, or is joined, with the pool."""
        from steelyard.trainers.ray_engine import RayEngine
        from steelyard.trainers.remote_pool import RemotePool

        return RemotePool(
            RayEngine(self.address, self.cpus, run.actors, self.patience),
            functools.partial(worlds, run, max(int(self.cpus), 1)),
            policy,
            buffer,
            run.actors,
            seed,
            random_transitions,
            chunk=self.chunk,
            patience=self.patience,
        )


CollectingSlot = LocalProcesses | RayActors


def capacity(run: "Run", num_envs: int) -> int:
    """Transitions of replay. Actors advance unevenly: a column of the fast one needs more rows than its share of the run."""
    return max(min(run.capacity, 2 * -(-run.env_steps // run.action_repeat)), 2 * num_envs)


def lead(run: "Run") -> int:
    """Transitions that all actors on this machine together may be ahead."""
    return LEAD * run.actors * run.num_envs


def require_vectorization(run: "Run") -> None:
    """Raises `ActorError` where an actor would have to start processes of its own."""
    if run.vectorization == "async":
        raise ActorError("actors are processes already and start no others; use vectorization sync or batch, or --actors 0.")


def worlds(run: "Run", threads: int, num_envs: int) -> VectorEnv:
    """The worlds of one actor, stepped by at most `threads` threads."""
    return envs.make(
        run.task,
        num_envs,
        action_repeat=run.action_repeat,
        vectorization=run.vectorization,
        pictures=run.pictures,
        distractors=run.distractors,
        randomization=run.randomization,
        threads=threads,
    )
