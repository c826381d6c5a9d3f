"""Learning curves from plain files: the suite's run folders and tables of others' results."""

import csv
import gzip
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from steelyard.agents.errors import SteelyardError
from steelyard.trainers.statistics import Curve
from steelyard.trainers.tables import Table, read_columns

Curves = dict[str, dict[str, dict[int, Curve]]]
"""task -> label (the preset, or a reference's name) -> training seed -> curve."""

REFERENCE_COLUMNS = {
    "task": ("task", "env", "env_name"),
    "label": ("label", "agent", "algo", "exp_name"),
    "seed": ("seed", "run"),
    "env_steps": ("env_steps", "env_step", "step", "frame"),
    "return": ("return", "eval/return", "mean_return", "episode_reward", "reward", "value"),
}
"""Names under which published tables carry what a curve needs."""


class CurveError(SteelyardError):
    """A folder or table has no curve in it."""


def read_runs(folders: Iterable[Path], metric: str = "eval/return", table: str = "eval.csv") -> Curves:
    """The curves of all runs in or below `folders`, by the layout `<task>/<preset>/seed_<k>/<table>`; `metric` is the column shown.

    Raises `CurveError` for a folder without runs, one outside that layout, or two runs with the same task, preset and seed;
    `TableError` for a run that lacks the column.
    """
    curves: Curves = {}
    seen: dict[tuple[str, str, int], Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise CurveError(f"{folder} is no folder; give run folders or a folder above them.")
        files = sorted(folder.resolve().rglob("eval.csv"))
        if not files:
            raise CurveError(f"there is no eval.csv in or below {folder}; give run folders that were evaluated at least once.")
        for file in files:
            task, preset, seed = _place(file)
            if seen.setdefault((task, preset, seed), file) != file:
                raise CurveError(
                    f"{file.parent} and {seen[task, preset, seed].parent} are the same task, preset and seed; give one of them."
                )
            axis = Table(file).columns[0]
            columns = read_columns(file.with_name(table), (axis, metric))
            if columns[axis]:
                offline = _offline_updates(file.parent / "config.json") if axis == "steps" else 0
                curve = Curve(np.array(columns[axis]), np.array(columns[metric]), offline)
                curves.setdefault(task, {}).setdefault(preset, {})[seed] = curve
    if not curves:
        raise CurveError("the runs have no evaluation yet; wait for the first one.")
    return curves


def read_reference(path: Path, tasks: Iterable[str], labels: Sequence[str] = ()) -> Curves:
    """The curves of a published table for `tasks` only, and for `labels` only if there are any.

    The table is CSV or gzipped CSV, one row per seed and point. Columns are found by the names in `REFERENCE_COLUMNS`.
    Without a column for the label the file's name is it; without one for the seed all is one seed; without one for the task
    the curves belong to every task. Of several metrics the return is taken. Tasks match without regard to case and to `_` or
    `-`. Raises `CurveError` for a table that lacks steps or returns.
    """
    if not path.is_file():
        raise CurveError(f"the reference {path} does not exist.")
    wanted = {_plain(task): task for task in tasks}
    points: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        rows = csv.DictReader(file)
        header = rows.fieldnames or []
        column = {key: next((name for name in names if name in header), None) for key, names in REFERENCE_COLUMNS.items()}
        steps, returns = column["env_steps"], column["return"]
        if steps is None or returns is None:
            raise CurveError(
                f"{path} needs a column for the environment steps and one for the return; it has {', '.join(header)}."
            )
        for number, row in enumerate(rows, start=2):
            if "return" not in row.get("metric", "return") or not row[returns]:
                continue
            label = row[column["label"]] if column["label"] else path.name.split(".")[0]
            if labels and label not in labels:
                continue
            here = wanted.values() if column["task"] is None else filter(None, [wanted.get(_plain(row[column["task"]]))])
            for task in here:
                try:
                    key = (task, label, int(row[column["seed"]]) if column["seed"] else 0)
                    points.setdefault(key, []).append((float(row[steps]), float(row[returns])))
                except ValueError as error:
                    raise CurveError(f"{path}, line {number} has something else than a number ({error}).") from error
    curves: Curves = {}
    for (task, label, seed), pairs in points.items():
        env_steps, values = np.array(sorted(pairs)).T
        curves.setdefault(task, {}).setdefault(label, {})[seed] = Curve(env_steps, values)
    return curves


def _place(file: Path) -> tuple[str, str, int]:
    """(task, preset, seed) of an eval.csv from the folders above it."""
    match = re.fullmatch(r"seed_(\d+)", file.parent.name)
    if match is None:
        raise CurveError(f"{file.parent} is not a run folder; runs lie under <task>/<preset>/seed_<k>.")
    return file.parts[-4], file.parts[-3], int(match[1])


def _offline_updates(path: Path) -> int:
    """Updates offline of the run whose configuration lies at `path`; zero if none lies there."""
    try:
        return int(json.loads(path.read_text()).get("offline_updates", 0))
    except FileNotFoundError:
        return 0
    except (ValueError, TypeError, AttributeError) as error:
        raise CurveError(f"{path} is no configuration of a run ({error}); restore it or delete it.") from None


def _plain(task: str) -> str:
    return task.lower().replace("_", "-")
