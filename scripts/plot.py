"""Draw learning curves with intervals over seeds from the eval.csv files of run folders."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from steelyard.trainers.curves import Curves, read_reference, read_runs
from steelyard.trainers.errors import run_script
from steelyard.trainers.figures import draw, draw_beside
from steelyard.trainers.statistics import Interval, Statistic, aggregate

METRICS = {"eval/return": "return", "eval/normalized": "normalised score"}
"""Columns of eval.csv in words."""


@dataclass(frozen=True)
class Plot:
    """Draw learning curves with intervals over seeds from the eval.csv files of run folders."""

    folders: tyro.conf.Positional[tuple[Path, ...]] = (Path("runs"),)
    """Run folders, or folders above them: every <task>/<preset>/seed_<k>/ found is drawn, grouped by task and preset."""
    out: Path = Path("curve.png")
    """Where the picture goes; .png, .pdf or .svg."""
    reference: tuple[Path, ...] = ()
    """CSV files (.csv or .csv.gz) of published curves to draw beside them, one row per seed and point."""
    reference_labels: tuple[str, ...] = ()
    """Of the references, only these agents."""
    statistic: Statistic = "mean"
    """Mean or interquartile mean over seeds."""
    metric: str = "eval/return"
    """Column of eval.csv to draw: eval/normalized is D4RL's normalised score of runs that began with data."""
    meters: tuple[str, ...] = ()
    """Columns of train.csv to draw beside it, a panel each, such as meter/critic/active or schedule/active; without references."""


def plot(options: Plot) -> Path:
    """Draws what the options say, prints the final scores, and returns the picture's path."""
    curves = read_runs(options.folders, options.metric)
    words = METRICS.get(options.metric, options.metric)
    if options.meters:
        beside = {name: read_runs(options.folders, name, "train.csv") for name in options.meters}
        path = draw_beside({words: curves, **beside}, options.out, statistic=options.statistic)
        print(path)
        return path
    references: Curves = {}
    for path in options.reference:
        for task, by_label in read_reference(path, curves, options.reference_labels).items():
            references.setdefault(task, {}).update(by_label)
    for task, by_label in sorted(curves.items()):
        for label, by_seed in sorted(by_label.items()):
            band = aggregate(by_seed, statistic=options.statistic)
            last = Interval(band.value[-1], band.low[-1], band.high[-1])
            warning = f"  ({band.warning})" if band.warning else ""
            unit = "steps" if any(curve.offline for curve in by_seed.values()) else "env steps"
            print(f"{task}  {label}  {last} at {band.env_steps[-1]:,.0f} {unit}, seeds: {band.seeds}{warning}")
    path = draw(curves, options.out, references=references, statistic=options.statistic, metric=words)
    print(path)
    return path


def main() -> None:
    """Reads the command line."""
    plot(tyro.cli(Plot))


if __name__ == "__main__":
    run_script(main)
