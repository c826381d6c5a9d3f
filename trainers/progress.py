"""The line that a person watches: steps, share done, rates, last return, time left."""

import time
from collections import deque
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

TERMINAL_SECONDS = 0.5
"""Seconds between two refreshes of the line in a terminal."""
WINDOW_SECONDS = 30.0
"""Rates are averages over this long, so that they follow a change and do not flicker."""


class Progress:
    """A live line in a terminal; elsewhere (CI, a log file) a plain line now and then. Use it as a context manager.

    `update` may be called after every step: it looks at the clock and returns, unless it is time to draw.
    """

    def __init__(
        self,
        total_env_steps: int,
        *,
        label: str = "",
        unit: str = "env steps",
        console: Console | None = None,
        plain_seconds: float = 60.0,
    ):
        """`total_env_steps` is the length of the run in `unit`; `plain_seconds` the time between two plain lines without a terminal."""
        self.total, self.unit = max(total_env_steps, 1), unit
        self.label = label
        self.console = console or Console()
        self.every = TERMINAL_SECONDS if self.console.is_terminal else plain_seconds
        self.last_return: float | None = None
        self.note = ""
        """A few words behind the line, such as what a long step is doing."""
        self._live = Live(console=self.console, auto_refresh=False, transient=False) if self.console.is_terminal else None
        # (seconds, env steps, updates) of the recent past; the first call sets the start, which is not zero in a resumed run.
        self._past: deque[tuple[float, int, int]] = deque()
        self._drawn_at = time.monotonic()
        self._latest = (self._drawn_at, 0, 0)
        self._drawn: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def update(self, env_steps: int, updates: int) -> None:
        """Tells where the run is. The numbers are plain integers: nothing here waits for the device."""
        now = time.monotonic()
        if not self._past:
            self._past.append((now, env_steps, updates))
        self._latest = (now, env_steps, updates)
        if now - self._drawn_at >= self.every:
            self._draw()

    def print(self, text: str) -> None:
        """Prints a line above the progress line."""
        (self._live.console if self._live else self.console).print(text, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Draws the last state once more and leaves it on the screen."""
        if self._past and self._drawn != self._latest[1:]:
            self._draw()
        if self._live:
            self._live.stop()

    def rates(self) -> tuple[float, float]:
        """(env steps per second, updates per second) over the last half minute; zeros before there is anything to measure."""
        if not self._past:
            return 0.0, 0.0
        seconds = self._latest[0] - self._past[0][0]
        if seconds <= 0:
            return 0.0, 0.0
        return (self._latest[1] - self._past[0][1]) / seconds, (self._latest[2] - self._past[0][2]) / seconds

    def text(self) -> str:
        """The line in words, as it is printed without a terminal."""
        _, env_steps, _ = self._latest
        step_rate, update_rate = self.rates()
        left = _duration((self.total - env_steps) / step_rate) if step_rate > 0 else "-"
        parts = [
            f"{env_steps:,}/{self.total:,} {self.unit} ({env_steps / self.total:.0%})",
            f"{step_rate:,.0f} {self.unit}/s",
            f"{update_rate:,.0f} updates/s",
            f"return {'-' if self.last_return is None else f'{self.last_return:,.1f}'}",
            f"{left} left",
        ]
        return " | ".join(filter(None, (self.label, *parts, self.note)))

    def _draw(self) -> None:
        self._past.append(self._latest)
        while len(self._past) > 2 and self._past[-1][0] - self._past[1][0] >= WINDOW_SECONDS:
            self._past.popleft()
        self._drawn_at, self._drawn = self._latest[0], self._latest[1:]
        if self._live:
            line = Table.grid(padding=(0, 1))
            line.add_row(
                ProgressBar(total=self.total, completed=self._latest[1], width=24),
                Text(self.text(), no_wrap=True, overflow="ellipsis"),
            )
            self._live.update(line, refresh=True)
        else:
            self.console.print(self.text(), highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    """Seconds as 1:02:03 or 02:03."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"
