"""Data for offline experiments, from behaviour policies that the suite trains itself; made once and reused."""

import dataclasses
import zlib
from dataclasses import dataclass
from pathlib import Path

from experiments.claim import Workshop
from steelyard.envs import datasets
from steelyard.envs.datasets import Dataset
from steelyard.trainers.config import Run
from steelyard.trainers.presets import MUJOCO
from steelyard.trainers.recording import describe, open_policy, record
from steelyard.trainers.shrinking import debug

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


@dataclass(frozen=True)
class Good:
    """A good behaviour."""

    task: str
    """Where it acts."""
    source: str
    """A run's folder or a file of weights."""
    label: str
    """Its part of the names of what is made from it."""


def trained(workshop: Workshop, run: Run) -> Good:
    """The policy of a run that has been trained."""
    return Good(run.task, str(workshop.run_folder(run)), f"{run.preset}-{run.env_steps}-seed{run.seed}")


def given(task: str, source: str) -> Good:
    """A policy that the user names: a run's folder, or a file that `make_dataset.py record` understands."""
    path = Path(source).expanduser().resolve()
    return Good(task, str(path), f"{path.stem}-{zlib.crc32(str(path).encode()):08x}")


def mixture_path(workshop: Workshop, good: Good, ratio: float, transitions: int) -> Path:
    """Where a mixture lies, once it is made."""
    return workshop.folder / "data" / f"{good.task}-{good.label}-{ratio:g}-of-{transitions}.hdf5"


def good_recording(workshop: Workshop, good: Good, transitions: int) -> Dataset:
    """What the good behaviour does: a tenth as many transitions as a mixture of `transitions`."""
    wanted = max(transitions // 10, 2_000)
    return recorded(good.source, good.task, wanted, workshop.folder / "data" / f"{good.task}-{good.label}-{wanted}.hdf5")


def mixture(workshop: Workshop, good: Good, ratio: float, transitions: int) -> Path:
    """A mixture of the good behaviour and random actions in which the former has this share of transitions."""
    path = mixture_path(workshop, good, ratio, transitions)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        best = good_recording(workshop, good, transitions)
        bad = recorded("random", good.task, transitions, path.with_name(f"{good.task}-random-{transitions}.hdf5"))
        datasets.write_hdf5(path, datasets.mix(best, bad, ratio, transitions, SEED), {"task": good.task, "source": path.stem})
    return path
