"""Ctrl-C and SIGTERM end a run after a checkpoint, not in the middle of an update."""

import signal
from types import FrameType, TracebackType
from typing import Self


class Interrupts:
    """Context in which the first SIGINT or SIGTERM only sets `received`; a second one acts as usual."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.previous: dict[int, object] = {}

    def __enter__(self) -> Self:
        self.previous = {number: signal.signal(number, self.receive) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Remember the signal and restore what it did before."""
        del frame
        self.received = number
        self.restore()

    def restore(self) -> None:
        """Give both signals back."""
        for number, handler in self.previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.restore()
