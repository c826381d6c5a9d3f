"""Run one published effect end to end and compare it with what its source says."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from experiments import report
from experiments.adaptive_rr_pixels import AdaptiveRrPixels
from experiments.adaptive_rr_state import AdaptiveRrState
from experiments.baird import Baird
from experiments.bf16 import Bf16
from experiments.claim import Experiment
from experiments.door_human import DoorHuman
from experiments.dvw_continuous import DvwContinuous
from experiments.dvw_minatar import DvwMinatar
from experiments.famo2o import FamO2O
from experiments.heavy_priming import HeavyPriming
from experiments.maze import StochasticMaze
from experiments.mbpo_hopper import MbpoHopper
from experiments.outlier_state import OutlierState
from experiments.point_mass import PointMass
from experiments.rare_reward import RareReward
from experiments.robust_control import RobustControl
from experiments.simba_v2_dmc import SimbaV2Dmc
from experiments.spectral import Spectral
from experiments.step_sizes import StepSizes
from experiments.training import train_all
from experiments.trajectory_weighting import TrajectoryWeighting
from experiments.vagram_control import VagramHopper, VagramPendulum
from experiments.vagram_supervised import VagramSupervised
from experiments.vwls_mdvi import VwlsMdvi
from steelyard.agents.errors import SteelyardError
from steelyard.trainers.config import Run
from steelyard.trainers.curves import Curves, read_runs
from steelyard.trainers.errors import run_script

EXPERIMENTS: dict[str, type[Experiment]] = {
    "simba-v2-dmc": SimbaV2Dmc,
    "bf16": Bf16,
    "point-mass": PointMass,
    "trajectory-weighting": TrajectoryWeighting,
    "famo2o": FamO2O,
    "door-human": DoorHuman,
    "vwls-mdvi": VwlsMdvi,
    "maze": StochasticMaze,
    "baird": Baird,
    "rare-reward": RareReward,
    "outlier-state": OutlierState,
    "step-sizes": StepSizes,
    "robust-control": RobustControl,
    "dvw-continuous": DvwContinuous,
    "dvw-minatar": DvwMinatar,
    "adaptive-rr-pixels": AdaptiveRrPixels,
    "vagram-supervised": VagramSupervised,
    "vagram-pendulum": VagramPendulum,
    "vagram-hopper": VagramHopper,
    "mbpo-hopper": MbpoHopper,
    "spectral": Spectral,
    "heavy-priming": HeavyPriming,
    "adaptive-rr-state": AdaptiveRrState,
}
"""Every experiment by its name."""
WIDTH = 120
"""Columns of tables that go to a file or a pipe."""


class ObstacleError(SteelyardError):
    """An experiment cannot run on this machine."""


@dataclass(frozen=True)
class Output:
    """What to do with the runs and their results."""

    root: Path = Path("runs/reproduce")
    """Folder below which the training runs lie; finished ones are reused, interrupted ones continue."""
    results: Path = Path("results")
    """Folder in which NAME/{claims.json,curves.csv,figure.png,README.md} are written."""
    jobs: int = 0
    """Runs that train at the same time, one thread each; 0 takes one per core. What they print goes to output.log in their folders."""
    json: bool = False
    """Print the claims as JSON."""


class Workplace:
    """Trains an experiment's runs below a folder, several at a time."""

    def __init__(self, folder: Path, jobs: int, console: Console):
        self.folder, self.jobs, self.console = folder, jobs, console

    def train(self, runs: Sequence[Run]) -> Curves:
        """Train the runs that are not finished and return the evaluation curves of all."""
        return read_runs(train_all(list(runs), self.folder, self.jobs, self.console))

    def run_folder(self, run: Run) -> Path:
        """Where a run's results lie."""
        return run.folder(self.folder)


def reproduce(name: str, experiment: Experiment, output: Output) -> bool:
    """Train what is missing, judge the claims, write the results; returns whether every claim holds."""
    console = Console(stderr=output.json, width=None if sys.stdout.isatty() else WIDTH)
    obstacle = experiment.obstacle()
    if obstacle:
        raise ObstacleError(f"{name}: {obstacle}")
    outcome = experiment.measure(Workplace(output.root / name, output.jobs, console))
    claims = outcome.claims
    command = shlex.join(["python", "scripts/reproduce.py", *sys.argv[1:]])
    summary = (type(experiment).__doc__ or "").strip()
    if output.json:
        print(json.dumps(report.plain(name, command, claims), indent=2))
    else:
        report.show(claims, console)
    # What is scaled down stays with its runs: `results` is for what can be published.
    folder = output.root / name / "scaled" if experiment.scaled() else output.results / name
    for path in report.write(folder, name, summary, command, outcome):
        console.print(path)
    return all(claim.holds for claim in claims)


def main() -> None:
    """Reads the command line."""
    if sys.argv[1:] == ["--list"]:
        for name, kind in EXPERIMENTS.items():
            print(f"{name:20} {(kind.__doc__ or '').strip()}")
        return
    choice = tyro.extras.subcommand_type_from_defaults({name: kind() for name, kind in EXPERIMENTS.items()}, prefix_names=False)

    def parse(
        experiment: Annotated[Experiment, tyro.conf.arg(name="")], output: Annotated[Output, tyro.conf.arg(name="")]
    ) -> tuple[Experiment, Output]:
        return experiment, output

    parse.__annotations__["experiment"] = Annotated[choice, tyro.conf.arg(name="")]
    description = "Run one published effect end to end and compare it with what its source says. `--list` alone lists them."
    experiment, output = tyro.cli(parse, description=description, config=(tyro.conf.CascadeSubcommandArgs,))
    name = next(name for name, kind in EXPERIMENTS.items() if type(experiment) is kind)
    sys.exit(0 if reproduce(name, experiment, output) else 1)


if __name__ == "__main__":
    run_script(main)
