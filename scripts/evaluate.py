"""Score a trained agent from its run folder alone: return, interval, and a video of one episode."""

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from steelyard.agents.acting import ActingAgent
from steelyard.envs.d4rl_table import normalized_score
from steelyard.trainers import plain
from steelyard.trainers.builders import make_evaluation_env
from steelyard.trainers.config import Run
from steelyard.trainers.errors import run_script
from steelyard.trainers.evaluation import FRESH_SEEDS, evaluate
from steelyard.trainers.restore import Which, restore
from steelyard.trainers.video import VideoError, film

WORLDS = 10
"""Episodes played side by side."""
PICTURE = 384
"""Width and height of the video in pixels."""
FRAMES = 250
"""Frames of the video, about: drawing one takes a CPU 50 to 100 ms."""


@dataclass(frozen=True)
class Evaluate:
    """Score a trained agent from its run folder alone: return, interval, and a video of one episode."""

    folder: tyro.conf.Positional[Path]
    """Folder of the run: runs/TASK/PRESET/seed_N."""
    episodes: int = 10
    """Episodes to play, with deterministic actions."""
    video: bool = True
    """Film the first episode."""
    checkpoint: Which = "last"
    """Last or best checkpoint. The best was chosen by its score, so prefer the last for numbers to report."""
    seed: int | None = None
    """Seed of the episodes' starts; default: starts that the run's own evaluations have not seen."""
    vectorization: Literal["sync", "async", "batch", "warp"] | None = None
    """How the worlds are stepped, sync being the published simulator; default: as in the run's own evaluations."""
    json: bool = False
    """Print one JSON object, every episode included, instead of sentences."""


def score(options: Evaluate) -> dict[str, Any]:
    """Plays the episodes and returns what was found, as plain data."""
    run = plain.load(options.folder / "config.json")
    seed = FRESH_SEEDS + run.seed if options.seed is None else options.seed
    vectorization = options.vectorization or run.evaluation_vectorization
    # Worlds on a device are played all at once.
    worlds = max(options.episodes if vectorization == "warp" else min(options.episodes, WORLDS), 1)
    env = make_evaluation_env(run, worlds, vectorization)
    agent, env_steps = restore(options.folder, run, env.spec, options.checkpoint)
    scores = evaluate(agent, env, options.episodes, seed)
    env.close()
    path = options.folder / "video" / f"step_{env_steps}.mp4"
    return {
        "task": run.task,
        "preset": run.preset,
        "training_seed": run.seed,
        "env_steps": env_steps,
        "unit": "env steps" if run.total_steps == run.env_steps else "steps",
        "checkpoint": options.checkpoint,
        "episodes": len(scores.returns),
        "return": scores.mean,
        "return_std": _or_none(scores.std),
        "normalized": normalized_score(getattr(run, "dataset", ""), scores.mean, run.task),
        "interval_95": [_or_none(end) for end in scores.interval],
        "length": scores.length,
        "returns": scores.returns,
        "lengths": scores.lengths,
        "vectorization": vectorization,
        "video": _film(run, agent, path, seed, round(scores.length), vectorization) if options.video else None,
    }


def _film(run: Run, agent: ActingAgent, path: Path, seed: int, length: int, vectorization: str) -> str | None:
    """The video's path; None, and a line on stderr, where no picture can be drawn: the score stands without one."""
    env = make_evaluation_env(run, 1, vectorization, PICTURE)
    try:
        return str(film(agent, env, path, seed, every=max(length // FRAMES, 1)))
    except VideoError as error:
        print(error, file=sys.stderr)
        return None
    finally:
        env.close()


def _or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def main() -> None:
    """Reads the command line and prints."""
    options = tyro.cli(Evaluate)
    found = score(options)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    low, high = found["interval_95"]
    interval = "" if low is None else f", 95 % interval [{low:,.1f}, {high:,.1f}]"
    count = f"{found['episodes']} episode{'s' if found['episodes'] > 1 else ''} of {found['length']:,.0f} decisions"
    print(f"{found['task']}, {found['preset']}, seed {found['training_seed']}, after {found['env_steps']:,} {found['unit']}")
    print(f"return {found['return']:,.1f}{interval} over {count}")
    if found["normalized"] is not None:
        print(f"D4RL's normalised score {found['normalized']:.1f}")
    if found["video"]:
        print(f"video {found['video']}")


if __name__ == "__main__":
    run_script(main)
