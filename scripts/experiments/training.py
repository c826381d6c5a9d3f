"""The runs of an experiment: one after the other or several at once, continued if interrupted, reused if finished."""

import contextlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console

from steelyard.trainers import config
from steelyard.trainers.config import Run
from steelyard.trainers.online import train
from steelyard.trainers.tables import Table


def finished(run: Run, root: Path) -> bool:
    """Whether the run lies there with its last evaluation done."""
    folder = run.folder(root)
    if not (folder / "config.json").exists() or config.load(folder / "config.json") != run:
        return False
    return (Table(folder / "eval.csv").last("env_steps") or 0) >= run.env_steps


def train_quietly(run: Run, root: Path) -> Path:
    """Train with what it prints in `output.log` of its folder, so that several runs do not write over each other's progress."""
    folder = run.folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.log").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        return train(run, root)


def train_all(runs: list[Run], root: Path, jobs: int, console: Console) -> list[Path]:
    """Train the runs that are not finished, `jobs` at a time, and return the folders of all."""
    missing = [run for run in runs if not finished(run, root)]
    console.print(f"{len(runs)} runs below {root}: {len(runs) - len(missing)} finished, {len(missing)} to train")
    if jobs == 1:
        for run in missing:
            train(run, root)
    elif missing:
        with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
            pending = {pool.submit(train_quietly, run, root): run for run in missing}
            for done in as_completed(pending):
                console.print(f"finished: {done.result()}")
    return [run.folder(root) for run in runs]
