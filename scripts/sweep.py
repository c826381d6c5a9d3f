"""Train presets x tasks x seeds on the machines of a Ray cluster, or on this one."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from steelyard.trainers.cluster import Cluster, ClusterError
from steelyard.trainers.config import ConfigError
from steelyard.trainers.errors import run_script
from steelyard.trainers.interrupts import Interrupts
from steelyard.trainers.ray_launcher import RayLauncher
from steelyard.trainers.sweep import Sweep
from sweeps.grid import BenchmarkName, plan
from sweeps.table import View, draw, summary

LOOK = 1.0
"""Seconds between two looks at the runs."""
WIDTH = 150
"""Columns of tables that go to a file or a pipe."""


@dataclass(frozen=True)
class Options:
    """Train presets x tasks x seeds, each run as a task of Ray with its resources. What follows a lone -- are options of the training script."""

    benchmark: Annotated[BenchmarkName, tyro.conf.Positional]
    """Whose presets: train_mujoco.py's, train_dmc.py's, ..."""
    presets: tuple[str, ...]
    """Recipes."""
    tasks: tuple[str, ...] = ()
    """Tasks; without any, each preset's own."""
    datasets: tuple[str, ...] = ()
    """Data sets, for d4rl."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds."""
    env_steps: int | None = None
    """Length of every run; None for each preset's own."""
    suffix: str = ""
    """Appended to the presets' names, to tell runs with further options from those without."""
    root: Path = Path("runs")
    """Folder below which the runs' folders TASK/PRESET/seed_N lie; with several machines, on a file system that all of them share."""
    cpus: float = 1.0
    """CPUs of a run."""
    gpus: float = 0.0
    """GPUs of a run; 0.25 lets four share one."""
    retries: int = 2
    """Further tries of a run that dies again and again without a newer checkpoint in between."""
    address: str = ""
    """Cluster to join, as host:port or `auto`; without one the variable RAY_ADDRESS counts, and without that Ray starts on this machine."""
    patience: float = 60.0
    """Seconds without a machine that is large enough for a run, after which the sweep ends."""
    debug: bool = False
    """Shrink every run to a few seconds."""


def sweep(options: Options, further: Sequence[str]) -> int:
    """Train what is not finished and print what came of it; returns the exit status."""
    if not (options.cpus > 0 and options.gpus >= 0):
        raise ConfigError(
            f"a run is to have {options.cpus:g} CPUs and {options.gpus:g} GPUs; give some CPUs, and no fewer than 0 GPUs."
        )
    if options.retries < 0:
        raise ConfigError(f"retries is {options.retries}; give zero or more.")
    length = [] if options.env_steps is None else ["--env-steps", str(options.env_steps)]
    runs = plan(
        options.benchmark,
        options.presets,
        options.tasks,
        options.datasets,
        options.seeds,
        [*length, *further],
        options.debug,
        options.suffix,
    )
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    cluster = Cluster(options.address)
    with RayLauncher(cluster, options.root, options.cpus, options.gpus) as launcher, Interrupts() as interrupts:
        if cluster.embedded and not launcher.fits():
            raise ClusterError(f"this machine is too small: {launcher.shortage()}.")
        work = Sweep(runs, options.root, launcher, options.retries, options.patience)
        with View(work.jobs, options.root, console) as view:
            while not work.over:
                began = time.monotonic()
                if interrupts.received and not work.stopping:
                    work.stop()
                    view.update(["asked all runs to save and end; a second Ctrl-C does not wait for them"])
                view.update(work.step(LOOK))
                time.sleep(max(LOOK - (time.monotonic() - began), 0.0))
            view.update([])
    if not console.is_terminal:
        console.print(draw(work.jobs, options.root))
    table, warnings = summary(work.jobs, options.root)
    if table.rows:
        console.print(table, *warnings, sep="\n")
    if work.stopping:
        console.print("stopped; the same command continues.")
        return 130
    return 1 if any(job.state == "failed" for job in work.jobs) else 0


def main() -> None:
    """Reads the command line."""
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    options = tyro.cli(Options, args=words[:cut])
    sys.exit(sweep(options, words[cut + 1 :]))


if __name__ == "__main__":
    run_script(main)
