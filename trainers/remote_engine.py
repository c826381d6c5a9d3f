"""What `RemotePool` asks of whatever starts remote actors and carries messages."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from steelyard.envs.vector import VectorEnv
from steelyard.trainers.messages import Request


class LostError(Exception):
    """An actor, its machine or an answer is gone; the message says what is known, without a full stop."""


class Engine(Protocol):
    """What starts remote actors and carries messages: Ray (`RayEngine`), or a test's own."""

    def open(self) -> None:
        """Make ready. Raises `SteelyardError` with one sentence if that fails."""
        ...

    def start(
        self, make_env: Callable[[int], VectorEnv], policy: bytes, num_envs: int, seeds: tuple[int, int]
    ) -> tuple[Any, Any]:
        """A new actor and the answer to its `RemoteActor.begin`."""
        ...

    def share(self, content: Any) -> Any:
        """Lay an array where every actor can read it; what `collect` takes as weights."""
        ...

    def collect(self, actor: Any, request: Request, weights: Any) -> Any:
        """The answer to `RemoteActor.collect`. Answers of one actor come in the order in which they were asked for."""
        ...

    def ready(self, answers: Sequence[Any], seconds: float) -> list[Any]:
        """Which of the answers are there, waiting at most so long for the first."""
        ...

    def fetch(self, answer: Any) -> Any:
        """An answer that is there. Raises `LostError` if its actor is gone, and `ActorError` if it stopped with a Python error."""
        ...

    def stop(self, actor: Any) -> None:
        """End an actor, if it is still there."""
        ...

    def shortage(self) -> str:
        """What an actor needs and what there is: the middle of a sentence."""
        ...

    def close(self) -> None:
        """End all actors."""
        ...
