"""What a person watches while a sweep runs, and what it ends with."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from steelyard.trainers import run_folders
from steelyard.trainers.statistics import summarise
from steelyard.trainers.sweep import Job

COLOURS = {"running": "cyan", "finished": "green", "failed": "red", "stopped": "yellow"}


def rows(jobs: Sequence[Job], root: Path) -> list[tuple[str, ...]]:
    """Task, preset, seed, state, steps, return, machine and words of every job, as text."""
    found = []
    for job in jobs:
        run = job.run
        steps = max(run_folders.steps_done(run, root, name) for name in ("train.csv", "eval.csv"))
        score = run_folders.last_return(run, root)
        tries = f" (try {job.tries})" if job.tries > 1 and job.state in ("running", "queued", "waiting") else ""
        found.append(
            (
                run.task,
                run.preset,
                str(run.seed),
                job.state + tries,
                f"{steps:,} / {run.total_steps:,}",
                "" if score is None else f"{score:,.1f}",
                job.machine,
                job.words if job.state == "failed" else "",
            )
        )
    return found


def draw(jobs: Sequence[Job], root: Path) -> Group:
    """The table of all runs, below a line that counts them."""
    counts = ", ".join(f"{number} {state}" for state, number in Counter(job.state for job in jobs).items())
    table = Table()
    for heading in ("task", "preset", "seed", "state", "steps", "return", "machine", ""):
        table.add_column(heading, justify="right" if heading in ("seed", "steps", "return") else "left")
    for job, row in zip(jobs, rows(jobs, root), strict=True):
        table.add_row(*row, style=COLOURS.get(job.state))
    return Group(Text(f"{len(jobs)} runs below {root}: {counts}"), table)


def summary(jobs: Sequence[Job], root: Path) -> tuple[Table, list[str]]:
    """Final evaluations: mean over seeds with its 95 % interval for every task and preset, and sentences about few seeds."""
    scores: dict[tuple[str, str], dict[int, float]] = {}
    for job in jobs:
        score = run_folders.last_return(job.run, root)
        if job.state == "finished" and score is not None:
            scores.setdefault((job.run.task, job.run.preset), {})[job.run.seed] = score
    table = Table(title="final evaluation, mean over seeds with 95 % interval", title_justify="left")
    for heading in ("task", "preset", "seeds", "return"):
        table.add_column(heading, justify="right" if heading in ("seeds", "return") else "left")
    warnings = []
    for (task, preset), by_seed in sorted(scores.items()):
        found = summarise({task: by_seed})
        table.add_row(task, preset, str(found.seeds), str(found.mean))
        warnings += [found.warning] if found.warning else []
    return table, list(dict.fromkeys(warnings))


class View:
    """The table, redrawn in a terminal; elsewhere one line for each run whose state changed. A context manager."""

    def __init__(self, jobs: Sequence[Job], root: Path, console: Console):
        self.jobs, self.root, self.console = jobs, root, console
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self.states: dict[int, tuple[str, int]] = {}

    def update(self, news: Sequence[str]) -> None:
        """Say what is new, each in a line of its own above the table, and redraw it."""
        for sentence in news:
            self.console.print(sentence, highlight=False, soft_wrap=True)
        if self.live:
            self.live.update(draw(self.jobs, self.root), refresh=True)
            return
        changed = [number for number, job in enumerate(self.jobs) if self.states.get(number) != (job.state, job.tries)]
        for number in changed:
            job = self.jobs[number]
            self.states[number] = (job.state, job.tries)
            if job.state in ("running", "finished", "failed", "stopped"):
                words = " ".join(filter(None, (job.name, job.state, f"on {job.machine}" * (job.state == "running"))))
                self.console.print(words, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leave the last table on the screen."""
        if self.live:
            self.live.stop()
