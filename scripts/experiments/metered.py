"""Runs whose networks are measured while they learn: their returns and meters at a point, and beside one another."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.claim import Workshop
from steelyard.trainers.config import Run
from steelyard.trainers.curves import Curves, read_runs
from steelyard.trainers.figures import draw_beside

METERS = {"active units of the critic": "meter/critic/active", "dormant units of the critic": "meter/critic/dormant"}
"""Columns of train.csv, by what a figure calls them."""
LAST = 3
"""Evaluations at the end of a run whose mean is its score: the last alone swings."""


def meters(workshop: Workshop, runs: Sequence[Run], column: str) -> Curves:
    """The curves of a column of train.csv over the runs."""
    return read_runs([workshop.run_folder(run) for run in runs], column, "train.csv")


def late(curves: Curves, task: str, label: str) -> dict[int, float]:
    """{seed: mean of the last evaluations}."""
    return {seed: float(curve.values[-LAST:].mean()) for seed, curve in curves[task][label].items()}


def at(curves: Curves, task: str, label: str, env_steps: float) -> dict[int, float]:
    """{seed: value of the last measurement at or before these steps}, or of the first one."""
    found: dict[int, float] = {}
    for seed, curve in curves[task][label].items():
        index = max(int(np.searchsorted(curve.env_steps, env_steps, side="right")) - 1, 0)
        found[seed] = float(curve.values[index])
    return found


def picture(workshop: Workshop, runs: Sequence[Run], returns: Curves, name: str) -> Path:
    """Returns and meters side by side."""
    columns = {"return": returns} | {words: meters(workshop, runs, column) for words, column in METERS.items()}
    return draw_beside(columns, workshop.folder / f"{name}.png")
