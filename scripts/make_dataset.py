"""Make and look into data sets for offline learning: inspect one, record a policy, mix good trajectories into bad ones."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from steelyard.envs.d4rl_table import remark
from steelyard.envs.dataset_files import write_hdf5
from steelyard.envs.datasets import Dataset, DatasetError, concatenate, load, mix
from steelyard.trainers import recording
from steelyard.trainers.errors import run_script
from steelyard.trainers.figures import COLOURS, INK, MUTED
from steelyard.trainers.policy_files import snapshots

SUFFIXES = (".hdf5", ".h5")


@dataclass(frozen=True)
class Inspect:
    """Print what a data set holds, and draw a histogram of its returns."""

    source: tyro.conf.Positional[str]
    """A file, a folder, a D4RL name (hopper-medium-v2) or minari:ID."""
    figure: Path | None = None
    """Write a histogram of the returns to this .png, .pdf or .svg."""
    limit: int | None = None
    """Steps after which an episode was cut, for a file that does not mark it."""

    def run(self) -> None:
        """Prints and draws. Raises `DatasetError`."""
        dataset = load(self.source, limit=self.limit)
        print("\n".join(facts(dataset)))
        if self.figure is not None:
            print(f"figure {draw(dataset, self.figure)}")


@dataclass(frozen=True)
class Record:
    """Roll a policy out and write its transitions, in D4RL's schema."""

    source: tyro.conf.Positional[str]
    """The folder of a run, an npz policy, or the word random."""
    transitions: int
    """Rows to record: whole episodes, the last one cut where they are reached."""
    output: Path
    """The .hdf5 file to write."""
    task: str | None = None
    """Gymnasium id, dm-control domain-task; default: the run's own."""
    seed: int = 0
    """Seed of the worlds and of drawn actions."""
    stochastic: bool = True
    """Explore; otherwise the policy's deterministic action."""
    snapshot: int = -1
    """Which policy of a file of snapshots; -1 is the last."""
    all_snapshots: bool = False
    """Record every policy of a file of snapshots for an equal share: data like a replay buffer's."""
    overwrite: bool = False
    """Replace the file if it is there."""

    def run(self) -> None:
        """Records and writes. Raises the errors of `recording`, and `DatasetError` if the file cannot be written."""
        check_output(self.output, self.overwrite)
        numbers = range(snapshots(Path(self.source))) if self.all_snapshots else (self.snapshot,)
        shares = np.diff(np.linspace(0, self.transitions, len(numbers) + 1).astype(int)).tolist()
        parts, before = [], 0
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("recording", total=self.transitions)
            for number, share in zip(numbers, shares, strict=True):
                policy = recording.open_policy(self.source, self.task, seed=self.seed + len(parts), snapshot=number)
                parts.append(
                    recording.record(
                        policy,
                        share,
                        name=self.output.stem,
                        seed=self.seed + len(parts),
                        stochastic=self.stochastic,
                        progress=lambda count, before=before: bar.update(task, completed=before + count),
                    )
                )
                before += share
        dataset = concatenate(parts, self.output.stem)
        write_hdf5(self.output, dataset, recording.describe(self.source, self.seed, self.stochastic))
        print(f"{dataset.describe()}\n{self.output}")


@dataclass(frozen=True)
class Mix:
    """Mix a small share of good trajectories into bad ones, and write the result in D4RL's schema.

    Trajectories of GOOD are drawn with replacement until they hold more than `ratio` of the transitions, then trajectories of BAD until
    the rest is filled.
    """

    good: tyro.conf.Positional[str]
    """The better data set: a file, a folder, a D4RL name or minari:ID."""
    bad: tyro.conf.Positional[str]
    """The worse one."""
    ratio: float
    """Share of good transitions, above 0 and at most 1."""
    output: Path
    """The .hdf5 file to write."""
    transitions: int | None = None
    """Size of the result, exceeded by less than a trajectory; default: that of GOOD."""
    seed: int = 0
    """Seed of the draws."""
    overwrite: bool = False
    """Replace the file if it is there."""

    def run(self) -> None:
        """Mixes and writes. Raises `DatasetError`."""
        check_output(self.output, self.overwrite)
        good, bad = load(self.good), load(self.bad)
        dataset = mix(good, bad, self.ratio, self.transitions, self.seed)
        attributes = {"source": f"{self.good} + {self.bad}", "ratio": self.ratio, "seed": self.seed}
        write_hdf5(self.output, dataset, attributes)
        print(f"{good.describe()}\n{bad.describe()}\n{dataset.describe()}\n{self.output}")


def check_output(path: Path, overwrite: bool) -> None:
    """Raises `DatasetError` if the file could not be written in the end, before the work is done."""
    if path.suffix not in SUFFIXES:
        raise DatasetError(f"{path} does not end in {' or '.join(SUFFIXES)}; name an HDF5 file.")
    if path.exists() and not overwrite:
        raise DatasetError(f"{path} is there already; name another file or add --overwrite.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise DatasetError(f"{path} cannot be written, since {folder} is no folder that one may write to; name another.")


def positive_variance(returns: NDArray[np.float64]) -> float:
    """`E[(G - E G)_+^2]`: how far returns lie above their mean (RPSV of Hong et al. 2023), what weighting trajectories can gain by."""
    return float(np.mean(np.maximum(returns - returns.mean(), 0.0) ** 2))


def facts(dataset: Dataset) -> list[str]:
    """What `inspect` prints, line by line."""
    returns, lengths = dataset.returns, dataset.lengths
    low, middle, high = np.quantile(returns, [0.25, 0.5, 0.75])
    lines = [
        dataset.describe(),
        f"task          {dataset.task or 'unknown'}",
        f"returns       mean {returns.mean():,.1f}, min {returns.min():,.1f}, quartiles {low:,.1f} / {middle:,.1f} / {high:,.1f}, "
        f"max {returns.max():,.1f}",
        f"lengths       mean {lengths.mean():,.1f}, {lengths.min():,} to {lengths.max():,}",
        f"episode ends  {int(dataset.terminated.sum()):,} terminated, {int(dataset.truncated.sum()):,} truncated",
        f"RPSV          {positive_variance(returns):,.4g}",
    ]
    score = dataset.normalized(float(returns.mean()))
    if score is not None:
        lines.append(f"normalised    {score:.1f} (D4RL: 0 random, 100 expert)")
        note = remark(dataset.task or "")
        if note is not None:
            lines.append(f"note          {note}")
    return lines


def draw(dataset: Dataset, path: Path) -> Path:
    """Draws a histogram of the episodes' returns, with a mark for each, to `path` and returns it.

    Raises `DatasetError` for an unknown format.
    """
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise DatasetError(f"{path} does not end in .png, .pdf or .svg; name a picture.")
    figure = Figure(figsize=(6.4, 3.8), dpi=160, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    returns = dataset.returns
    bins = int(np.clip(2 * len(returns) ** 0.5, 5, 60))
    ax.hist(returns, bins=bins, color=COLOURS[0], alpha=0.85, edgecolor="white", linewidth=0.6, zorder=2)
    # A mark for each episode: in a mixture the few good ones are no visible bar.
    ax.plot(
        returns, np.full(len(returns), 0.02), "|", color=COLOURS[0], markersize=8, transform=ax.get_xaxis_transform(), zorder=4
    )
    ax.axvline(float(returns.mean()), color=COLOURS[1], linewidth=1.8, zorder=3, label=f"mean {returns.mean():,.1f}")
    ax.set_title(dataset.name, loc="left", fontsize=11, fontweight="bold", color=INK)
    ax.set_xlabel("undiscounted return of an episode", color=INK)
    ax.set_ylabel("episodes", color=INK)
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    ax.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(length=0, labelsize=9, colors=MUTED)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color("#BBBBBB")
    figure.legend(loc="outside upper right", frameon=False, fontsize=9)
    caption = (
        f"{len(dataset):,} transitions in {len(returns):,} episodes; {int(dataset.terminated.sum()):,} end in a terminal state."
    )
    figure.supxlabel(caption, fontsize=7.5, color=MUTED, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part.{path.name}")
    figure.savefig(part)
    os.replace(part, path)
    return path


def main() -> None:
    """Reads the command line."""
    command = tyro.cli(
        Annotated[Inspect, tyro.conf.subcommand("inspect")]
        | Annotated[Record, tyro.conf.subcommand("record")]
        | Annotated[Mix, tyro.conf.subcommand("mix")],
        description=__doc__,
    )
    command.run()


if __name__ == "__main__":
    run_script(main)
