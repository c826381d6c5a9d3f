"""Remote actors on Ray: what `RemotePool` asks of an engine, in Ray's words."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from steelyard.envs.vector import VectorEnv
from steelyard.trainers.cluster import Cluster, first_line
from steelyard.trainers.collected import ActorError
from steelyard.trainers.messages import Request
from steelyard.trainers.remote_actor import RemoteActor
from steelyard.trainers.remote_engine import LostError


class RayEngine:
    """Each actor is a Ray actor, spread over the machines of a cluster. Ray restarts nothing by itself: `RemotePool` does."""

    def __init__(self, address: str, cpus: float, num_actors: int, patience: float):
        """`cpus`: reserved for each of the `num_actors`. `patience`: seconds that an answer which is there may take to arrive."""
        self.address, self.cpus, self.num_actors, self.patience = address, cpus, num_actors, patience
        self.cluster: Cluster | None = None
        self.actors: list[Any] = []

    def open(self) -> None:
        """Join the cluster, or start Ray. Raises `ClusterError`."""
        self.cluster = Cluster(self.address, self.cpus * self.num_actors)
        self.ray = self.cluster.ray
        self.kind = self.ray.remote(num_cpus=self.cpus, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD")(
            RemoteActor
        )

    def start(
        self, make_env: Callable[[int], VectorEnv], policy: bytes, num_envs: int, seeds: tuple[int, int]
    ) -> tuple[Any, Any]:
        """A new actor, on the machine that Ray chooses, and the answer to its `begin`."""
        actor = self.kind.remote()
        self.actors.append(actor)
        return actor, actor.begin.remote(make_env, policy, num_envs, seeds)

    def share(self, content: Any) -> Any:
        """An object in Ray's store: each machine gets it once, its actors map it."""
        return self.ray.put(content)

    def collect(self, actor: Any, request: Request, weights: Any) -> Any:
        """The answer to `RemoteActor.collect`."""
        return actor.collect.remote(request, weights)

    def ready(self, answers: Sequence[Any], seconds: float) -> list[Any]:
        """Which of the answers are there, waiting at most so long for the first. Answers of lost actors are there too."""
        if not answers:
            return []
        there, others = self.ray.wait(list(answers), num_returns=1, timeout=seconds, fetch_local=True)
        if there and others:
            there += self.ray.wait(others, num_returns=len(others), timeout=0)[0]
        return there

    def fetch(self, answer: Any) -> Any:
        """The answer. Raises `LostError` if its actor or the answer is gone, and `ActorError` for a Python error in the actor."""
        errors = self.ray.exceptions
        try:
            return self.ray.get(answer, timeout=self.patience)
        except errors.RayTaskError as error:
            cause = error.cause if error.cause is not None else error
            raise ActorError(
                f"an actor stopped with a Python error ({type(cause).__name__}: {first_line(cause)}); "
                "use one version of the suite on all machines, and run the task in one process (--actors 0) to see more."
            ) from error
        except errors.RayError as error:
            raise LostError(first_line(error)) from error

    def stop(self, actor: Any) -> None:
        """End an actor, if it is still there."""
        with contextlib.suppress(self.ray.exceptions.RayError, ValueError):
            self.ray.kill(actor)
        if actor in self.actors:
            self.actors.remove(actor)

    def shortage(self) -> str:
        """What an actor needs and what there is."""
        return "nothing was joined" if self.cluster is None else self.cluster.shortage(self.cpus)

    def close(self) -> None:
        """End all actors and leave the cluster."""
        if self.cluster is None or not self.ray.is_initialized():
            return
        for actor in list(self.actors):
            self.stop(actor)
        self.cluster.close()
        self.cluster = None
