"""How far the runs below a folder have come, read from what they write."""

from pathlib import Path

from steelyard.trainers import checkpoint, plain
from steelyard.trainers.config import Run, Transfer
from steelyard.trainers.online import Online, train
from steelyard.trainers.pipeline import Pipeline
from steelyard.trainers.tables import Table


def steps_done(run: Run, root: Path, table: str) -> int:
    """Steps of the last row of one of the run's tables."""
    path = run.folder(root) / table
    if not path.exists():
        return 0
    rows = Table(path)
    return int(rows.last(rows.columns[0]) or 0)


def last_return(run: Run, root: Path) -> float | None:
    """Mean return of the last evaluation; None before the first."""
    path = run.folder(root) / "eval.csv"
    return Table(path).last("eval/return") if path.exists() else None


def saved_steps(run: Run, root: Path) -> int:
    """Steps of the newest checkpoint; -1 if there is none."""
    found = checkpoint.latest(run.folder(root) / "checkpoints")
    return -1 if found is None else int(found.name.split("_")[1].split(".")[0])


def finished(run: Run, root: Path) -> bool:
    """Whether exactly this run lies there with its last evaluation done."""
    written = run.folder(root) / "config.json"
    return written.exists() and plain.load(written) == run and steps_done(run, root, "eval.csv") >= run.total_steps


def train_here(run: Run, root: Path, patience: float = 0.0) -> Path:
    """Train in this process, from data if the run names some. Another process is given `patience` seconds to leave the run's folder."""
    return train(run, root, make_loop=Pipeline if isinstance(run, Transfer) else Online, patience=patience)
