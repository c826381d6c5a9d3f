"""Draw the same states with each rendering: how fast, how alike, and one picture of all."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from steelyard.envs import EnvError, Pictures
from steelyard.envs.dmc_envs import DmcEnv
from steelyard.trainers.errors import run_script

RENDERINGS = ("published", "fast", "rays")


@dataclass(frozen=True)
class Renderings:
    """Draw the same states of dm-control tasks with each rendering: frames per second of processor time, and how far from the published picture."""

    tasks: tuple[str, ...] = ("cheetah-run", "walker-walk", "quadruped-walk")
    """dm-control tasks."""
    worlds: int = 16
    """Worlds drawn at a time."""
    size: int = 84
    """Height and width of a picture in pixels."""
    seconds: float = 2.0
    """Length of each of the timings, of which the best counts."""
    rounds: int = 3
    """How often each is timed."""
    output: Path = Path("results/pictures")
    """Folder for renderings.png and renderings.json."""


def measure(task: str, options: Renderings) -> tuple[dict[str, Any], dict[str, NDArray[np.uint8]]]:
    """Numbers and pictures [worlds, size, size, 3] of a task, by rendering; one whose package is missing is left out."""
    world = DmcEnv(task, options.worlds, action_repeat=2)
    world.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        world.step(world.spec.random_action(options.worlds, generator))
    found: dict[str, Any] = {}
    drawn: dict[str, NDArray[np.uint8]] = {}
    for rendering in RENDERINGS:
        try:
            painter = world.painter(Pictures(size=options.size, rendering=rendering))
        except EnvError as error:
            print(error)
            continue
        drawn[rendering] = painter.draw()
        difference = np.abs(drawn[rendering].astype(float) - drawn["published"])
        found[rendering] = {
            "frames_per_second": max(rate(painter.draw, options) for _ in range(options.rounds)),
            "brightness": float(drawn[rendering].mean() / 255),
            "difference": float(difference.mean()),
        }
        painter.close()
    world.close()
    return found, drawn


def rate(draw: Any, options: Renderings) -> float:
    """Frames per second of processor time, all threads of this process together: what one core draws, whatever else is busy."""
    start, used, frames = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < options.seconds:
        draw()
        frames += options.worlds
    return frames / (time.process_time() - used)


def plot(pictures: dict[str, dict[str, NDArray[np.uint8]]], path: Path) -> None:
    """World 0 of each task, a row each, with each rendering."""
    columns = next(iter(pictures.values()))
    figure, axes = plt.subplots(len(pictures), len(columns), figsize=(2.2 * len(columns), 2.3 * len(pictures)), squeeze=False)
    for row, (task, drawn) in zip(axes, pictures.items(), strict=True):
        for axis, (rendering, picture) in zip(row, drawn.items(), strict=True):
            axis.imshow(picture[0], interpolation="nearest")
            axis.set_title(f"{task}, {rendering}", fontsize=8)
            axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Read the command line, measure, print a table and write both files."""
    options = tyro.cli(Renderings)
    options.output.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, Any] = {}
    pictures: dict[str, dict[str, NDArray[np.uint8]]] = {}
    for task in options.tasks:
        numbers[task], pictures[task] = measure(task, options)
        for rendering, found in numbers[task].items():
            print(
                f"{task:15} {rendering:10} {found['frames_per_second']:7,.0f} frames/s  mean brightness {found['brightness']:.3f}  "
                f"mean difference {found['difference']:.1f} of 255"
            )
    (options.output / "renderings.json").write_text(json.dumps(numbers, indent=1) + "\n")
    plot(pictures, options.output / "renderings.png")


if __name__ == "__main__":
    run_script(main)
