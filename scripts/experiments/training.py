"""The runs of an experiment: several at once, continued if interrupted, reused if finished."""

import contextlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

import torch
from rich.console import Console

from steelyard.trainers.config import Run
from steelyard.trainers.run_folders import finished, steps_done, train_here

LOOK = 5.0
"""Seconds between looks at how far the runs have come."""


def default_jobs() -> int:
    """One run per core; one alone on a GPU."""
    if torch.cuda.is_available():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent() -> None:
    """In a worker: what begins the runs may be killed, and is not outlived by longer than a checkpoint takes."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()


def train_quietly(run: Run, root: Path) -> Path:
    """Train with what it prints in `output.log` of its folder, so that several runs do not write over each other's progress.

    A signal ends the run after a checkpoint, and this process with it: the pool has more runs to hand out, and must not.
    """
    folder = run.folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / "output.log").open("a") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
        contextlib.suppress(KeyboardInterrupt),
    ):
        return train_here(run, root)
    os._exit(1)


def train_all(runs: list[Run], root: Path, jobs: int, console: Console) -> list[Path]:
    """Train the runs that are not finished, `jobs` at a time (0: `default_jobs`), and return the folders of all."""
    missing = [run for run in runs if not finished(run, root)]
    console.print(f"{len(runs)} runs below {root}: {len(runs) - len(missing)} finished, {len(missing)} to train")
    jobs = min(jobs or default_jobs(), len(missing))
    if jobs == 1:
        for run in missing:
            train_here(run, root)
    elif missing:
        train_together(missing, root, jobs, console)
    return [run.folder(root) for run in runs]


def train_together(runs: list[Run], root: Path, jobs: int, console: Console) -> None:
    """Train in processes of their own and say how far they are. A run that fails is named at once; its error is raised when the others are done."""
    total = sum(run.total_steps for run in runs)
    spawn = multiprocessing.get_context("spawn")
    failed: list[BaseException] = []
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=end_with_parent) as pool, console.status("") as status:
        folders: dict[Future[Path], Path] = {pool.submit(train_quietly, run, root): run.folder(root) for run in runs}
        pending = set(folders)
        while pending:
            done, pending = wait(pending, timeout=LOOK, return_when=FIRST_COMPLETED)
            for run in done:
                if error := run.exception():
                    failed.append(error)
                    console.print(f"failed: {folders[run]}: {error}", markup=False)
                else:
                    console.print(f"finished: {folders[run]}")
            steps = sum(steps_done(run, root, "train.csv") for run in runs)
            status.update(f"{jobs} runs at a time, {steps:,} of {total:,} steps ({steps / total:.0%})")
    if failed:
        raise failed[0]
