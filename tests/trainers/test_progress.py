"""The progress line, with a clock of its own."""

import io

import pytest
from rich.console import Console

from steelyard.trainers import progress as module
from steelyard.trainers.progress import Progress


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_without_a_terminal_a_plain_line_now_and_then(clock: Clock) -> None:
    out = io.StringIO()
    with Progress(10_000, console=Console(file=out, width=200), plain_seconds=60) as progress:
        for step in range(0, 2001, 10):
            progress.last_return = 12.34
            progress.update(step, step // 2)
            clock.now += 1
    lines = out.getvalue().splitlines()
    assert len(lines) == 4  # 200 seconds: after 60, 120 and 180, and the last state
    assert lines[0] == "600/10,000 env steps (6%) | 10 env steps/s | 5 updates/s | return 12.3 | 15:40 left"
    assert lines[-1].startswith("2,000/10,000 env steps (20%)")


def test_a_resumed_run_counts_its_own_steps_only(clock: Clock) -> None:
    progress = Progress(10_000, console=Console(file=io.StringIO()))
    progress.update(5000, 4000)
    clock.now += 10
    progress.update(5100, 4020)
    assert progress.rates() == (10.0, 2.0)


def test_rates_follow_a_change_of_speed(clock: Clock) -> None:
    progress = Progress(100_000, console=Console(file=io.StringIO()), plain_seconds=5)
    step = 0
    for rate in (10, 100):
        for _ in range(100):
            progress.update(step, 0)
            clock.now += 1
            step += rate
    progress.update(step, 0)
    assert progress.rates()[0] == pytest.approx(100.0)


def test_in_a_terminal_the_line_is_redrawn(clock: Clock) -> None:
    out = io.StringIO()
    with Progress(100, label="run", console=Console(file=out, width=120, force_terminal=True)) as progress:
        progress.update(0, 0)
        clock.now += 1
        progress.update(50, 25)
        progress.print("evaluation: 3.0")
    text = out.getvalue()
    assert "50/100 env steps (50%)" in text
    assert "evaluation: 3.0" in text
