"""Many runs at once: what became of each, which are tried again, and when there is nothing left to run on. Ray is not needed here."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from steelyard.trainers import run_folders
from steelyard.trainers.cluster import ClusterError
from steelyard.trainers.config import ConfigError, Run
from steelyard.trainers.sweep_task import Outcome

State = Literal["waiting", "queued", "running", "finished", "failed", "stopped"]
PAUSE = 2.0
"""Seconds between the end of a try and the next one."""


class Launcher(Protocol):
    """What runs are started through: Ray (`RayLauncher`), or a test's own."""

    def launch(self, run: Run) -> Any:
        """Queue a run, which continues from its checkpoint if it has one; returns what will hold its outcome."""
        ...

    def machine(self, run: Run) -> str | None:
        """Where the run that was launched last under this configuration is, or None while it is queued."""
        ...

    def ready(self, answers: Sequence[Any], seconds: float) -> list[Any]:
        """Which of them have ended, waiting at most so long for the first."""
        ...

    def outcome(self, answer: Any) -> Outcome:
        """How it ended."""
        ...

    def fits(self) -> bool:
        """Whether some machine is large enough for a run."""
        ...

    def shortage(self) -> str:
        """What a run needs and what there is: the middle of a sentence."""
        ...

    def stop(self) -> None:
        """Ask all runs to save and end."""
        ...


@dataclass
class Job:
    """A run and what became of it."""

    run: Run
    state: State = "waiting"
    tries: int = 0
    fruitless: int = 0
    """Tries in a row that ended without a newer checkpoint."""
    machine: str = ""
    words: str = ""
    saved: int = -1
    """Steps of the checkpoint that this try began with; -1 for none."""
    answer: Any = None
    after: float = 0.0
    """When it may be tried again."""

    @property
    def name(self) -> str:
        """Task, preset and seed."""
        return f"{self.run.task} {self.run.preset} seed {self.run.seed}"

    @property
    def over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.state in ("finished", "failed", "stopped")


class Sweep:
    """Runs every run until it is finished, has failed too often, or all are stopped.

    A run that died, or whose machine did, is launched again and continues from its checkpoint, as often as it got further in between; after
    `retries` further tries in a row without a newer checkpoint it has failed. One that refused is not tried again.

    Args:
        runs: What to train. Finished ones are left as they are.
        root: Folder below which their folders lie.
        launcher: What starts them.
        retries: Fruitless tries that are forgiven.
        patience: Seconds without a machine that is large enough for a run, after which that is an error.
        clock: Seconds that only grow.

    Raises `ConfigError` if two runs would share a folder.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        root: Path,
        launcher: Launcher,
        retries: int = 2,
        patience: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        folders = [run.folder(root) for run in runs]
        for number, folder in enumerate(folders):
            if folder in folders[:number]:
                raise ConfigError(f"two runs would share {folder}; give each its own preset name, task or seed.")
        self.root, self.launcher, self.retries, self.patience, self.clock = root, launcher, retries, patience, clock
        self.jobs = [Job(run, "finished" if run_folders.finished(run, root) else "waiting") for run in runs]
        self.stopping = False
        self.placed = clock()

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return all(job.over for job in self.jobs)

    def step(self, seconds: float) -> list[str]:
        """Launch what waits, look after what runs, wait at most `seconds`; returns what a reader should know, a sentence each.

        Raises `ClusterError` if for `patience` seconds no machine was large enough for a run and none ran.
        """
        news: list[str] = []
        for job in self.jobs:
            if job.state == "waiting" and self.stopping:
                job.state = "stopped"
            elif job.state == "waiting" and self.clock() >= job.after:
                job.saved, job.state, job.machine = run_folders.saved_steps(job.run, self.root), "queued", ""
                job.tries += 1
                job.answer = self.launcher.launch(job.run)
        waiting = [job for job in self.jobs if job.state in ("queued", "running")]
        there = self.launcher.ready([job.answer for job in waiting], seconds)
        for job in waiting:
            if job.state == "queued" and (machine := self.launcher.machine(job.run)) is not None:
                job.state, job.machine = "running", machine
            if job.answer in there:
                sentence = self.settle(job, self.launcher.outcome(job.answer))
                news += [f"{job.name}: {sentence}"] if sentence else []
        self.require_place()
        return news

    def settle(self, job: Job, outcome: Outcome) -> str | None:
        """Decide what follows from a try's outcome; returns a sentence if it is not that the run is finished."""
        job.answer, job.words = None, outcome.words
        if outcome.kind == "finished":
            job.state = "finished"
            return None
        if outcome.kind == "stopped" or self.stopping:
            job.state = "stopped"
            return None
        if outcome.kind == "refused":
            job.state = "failed"
            return f"{outcome.words}."
        saved = run_folders.saved_steps(job.run, self.root)
        job.fruitless = 0 if saved > job.saved else job.fruitless + 1
        if job.fruitless > self.retries:
            job.state = "failed"
            return f"{outcome.words}; it failed {job.fruitless} times in a row without a newer checkpoint and is given up."
        job.state, job.after = "waiting", self.clock() + PAUSE
        place = "from the beginning" if saved < 0 else f"from its checkpoint of step {saved:,}"
        return f"{outcome.words}; it is tried again, {place}."

    def require_place(self) -> None:
        """Raises `ClusterError` if nothing runs and no machine has been large enough for `patience` seconds."""
        queued = any(job.state == "queued" for job in self.jobs)
        if not queued or any(job.state == "running" for job in self.jobs) or self.launcher.fits():
            self.placed = self.clock()
        elif self.clock() - self.placed > self.patience:
            raise ClusterError(f"there is no machine to run on: {self.launcher.shortage()}.")

    def stop(self) -> None:
        """Ask every run to save and end; `step` goes on until they have."""
        self.stopping = True
        self.launcher.stop()
