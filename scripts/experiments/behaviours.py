"""Data for offline experiments, from behaviour policies that the suite trains itself; made once and reused."""

import dataclasses
from pathlib import Path

from experiments.claim import Workshop
from steelyard.envs import datasets
from steelyard.envs.datasets import Dataset
from steelyard.trainers.config import Run, debug
from steelyard.trainers.presets import MUJOCO
from steelyard.trainers.recording import describe, open_policy, record

SEED = 7
"""Seed of the recordings."""


def behaviour(task: str, env_steps: int, seed: int, small: bool) -> Run:
    """The run whose policy is the good behaviour: SAC."""
    run = dataclasses.replace(MUJOCO["sac"], task=task, env_steps=env_steps, seed=seed, threads=1)
    return debug(run) if small else run


def recorded(source: str, task: str, transitions: int, path: Path, seed: int = SEED) -> Dataset:
    """A recording of a policy (a run's folder, or "random"), read from `path` if it is there."""
    if path.exists():
        return datasets.load(path)
    data = record(open_policy(source, task, seed=seed), transitions, name=path.stem, seed=seed)
    datasets.write_hdf5(path, data, describe(source, seed, True))
    return data


def mixture(workshop: Workshop, run: Run, ratio: float, transitions: int) -> Path:
    """A mixture of the run's behaviour and random actions in which the former has this share of transitions."""
    folder = workshop.folder / "data"
    folder.mkdir(parents=True, exist_ok=True)
    good_name = f"{run.task}-{run.preset}-{run.env_steps}-seed{run.seed}"
    name = f"{good_name}-{ratio:g}-of-{transitions}"
    path = folder / f"{name}.hdf5"
    if not path.exists():
        good = recorded(
            str(workshop.run_folder(run)), run.task, max(transitions // 10, 2_000), folder / f"{run.task}-{run.preset}.hdf5"
        )
        bad = recorded("random", run.task, transitions, folder / f"{run.task}-random-{transitions}.hdf5")
        datasets.write_hdf5(path, datasets.mix(good, bad, ratio, transitions, SEED), {"task": run.task, "source": name})
    return path
