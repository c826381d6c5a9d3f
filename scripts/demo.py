"""The demonstration of `make demo`: SimbaV2 learns cartpole-swingup in a few minutes, and leaves a curve, a video, logs and a checkpoint."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import tyro

from steelyard.agents.agent import Execution
from steelyard.trainers import presets, shrinking
from steelyard.trainers.builders import has_compiler
from steelyard.trainers.command_line import Launch
from steelyard.trainers.errors import run_script
from steelyard.trainers.online import train

SCRIPTS = Path(__file__).parent


def main() -> None:
    """Train, evaluate, film, plot, and print where everything lies."""
    launch = tyro.cli(Launch, description=__doc__)
    # Without a C++ compiler the same update runs eagerly, several times slower.
    run = dataclasses.replace(presets.DEMO, execution=Execution(compile=has_compiler()))
    run = shrinking.debug(run) if launch.debug else run
    folder = train(run, launch.root, launch.fresh)
    print()
    subprocess.run([sys.executable, SCRIPTS / "evaluate.py", folder], check=True)
    curve = folder / "curve.png"
    subprocess.run([sys.executable, SCRIPTS / "plot.py", folder, "--out", curve], check=True, stdout=subprocess.DEVNULL)
    for label, path in {
        "curve": curve,
        "tables": f"{folder / 'train.csv'}, {folder / 'eval.csv'}",
        "tensorboard": f"tensorboard --logdir {folder / 'tb'}",
        "checkpoint": sorted((folder / "checkpoints").glob("step_*"))[-1],
    }.items():
        print(f"{label} {path}")


if __name__ == "__main__":
    run_script(main)
