"""Data sets for learning offline: one type, `Dataset`, and `load`, which reads it from D4RL, Minari or the suite's own recordings."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.agents.types import Spec
from steelyard.envs import d4rl, d4rl_table
from steelyard.envs.dataset_files import write_hdf5
from steelyard.envs.dataset_type import Dataset, DatasetError
from steelyard.envs.downloads import fetch

__all__ = [
    "Dataset",
    "DatasetError",
    "cache_folder",
    "concatenate",
    "load",
    "mix",
    "require_spec",
    "take_episodes",
    "write_hdf5",
]

CACHE_VARIABLE = "STEELYARD_DATA"
"""Environment variable: the folder of downloaded data sets."""


def load(source: str | Path, cache: Path | None = None, *, limit: int | None = None) -> Dataset:
    """The data set that `source` names, read and converted.

    `source`: an HDF5 file in D4RL's schema; a folder of such files written by `make_dataset.py`, read as one; a D4RL name
    ("hopper-medium-v2"), downloaded once; "minari:ID", downloaded by Minari once; or the folder of a Minari data set.
    `cache`: folder of downloads; default: `STEELYARD_DATA`, else `~/.cache/steelyard/datasets`.
    `limit`: steps after which an episode was cut, for a D4RL file that does not mark its time-outs and whose name does not tell.

    How rows become transitions and episodes is said in `envs.d4rl` and `envs.minari_data`. Raises `DatasetError` for
    whatever is wrong with the source: unknown, missing, damaged, or not what a data set should be.
    """
    text = str(source)
    if text.startswith("minari:"):
        from steelyard.envs import minari_data  # importing Minari takes its time

        return minari_data.load_id(text.removeprefix("minari:"))
    path = Path(text).expanduser()
    if path.is_dir():
        return _load_folder(path, limit)
    if path.exists():
        return d4rl.read(path, limit=limit)
    if text in d4rl_table.TABLE:
        return d4rl.read(fetch(d4rl_table.TABLE[text].url, cache or cache_folder()), name=text, limit=limit)
    if path.suffix or path.parent != Path("."):
        raise DatasetError(f"there is no file {path}; give the path of an HDF5 file, a D4RL name or minari:ID.")
    raise DatasetError(f"there is no data set {text!r}; {_suggestion(text)}")


def cache_folder() -> Path:
    """The folder of downloaded data sets: `STEELYARD_DATA`, else `~/.cache/steelyard/datasets`."""
    folder = os.environ.get(CACHE_VARIABLE)
    return Path(folder).expanduser() if folder else Path.home() / ".cache" / "steelyard" / "datasets"


def require_spec(dataset: Dataset, spec: Spec, task: str) -> None:
    """Raises `DatasetError` if observations or actions of the data set are not those of the worlds of `task`."""
    for field, have, want in (
        ("observations", dataset.obs_size, spec.obs_size),
        ("actions", dataset.action_size, spec.action_size),
    ):
        if have != want:
            raise DatasetError(
                f"{dataset.name} has {field} of {have} components where {task} has {want}; "
                "choose the task that the data was recorded in, or other data."
            )
    if dataset.discrete != spec.discrete:
        kinds = ("real numbers", "choices")
        raise DatasetError(
            f"{dataset.name} has actions that are {kinds[dataset.discrete]} where those of {task} are {kinds[spec.discrete]}; "
            "choose the task that the data was recorded in, or other data."
        )


def concatenate(datasets: Sequence[Dataset], name: str) -> Dataset:
    """The episodes of all of them, in their order. Raises `DatasetError` if their tasks or sizes differ."""
    first = datasets[0]
    for other in datasets[1:]:
        if (other.obs_size, other.action_size, other.discrete) != (first.obs_size, first.action_size, first.discrete):
            raise DatasetError(
                f"{first.name} has observations of {first.obs_size} and actions of {first.action_size} components, {other.name} "
                f"of {other.obs_size} and {other.action_size}; only data of the same task can be joined."
            )
    tasks = {dataset.task for dataset in datasets} - {None}
    if len(tasks) > 1:
        raise DatasetError(f"{name}: its parts come from {' and '.join(sorted(map(str, tasks)))}; join data of one task only.")
    fields = ("obs", "action", "reward", "next_obs", "next_action", "terminated", "truncated", "returns")
    joined: dict[str, Any] = {field: np.concatenate([getattr(dataset, field) for dataset in datasets]) for field in fields}
    return Dataset(
        name=name,
        task=tasks.pop() if tasks else None,
        clipped=sum(dataset.clipped for dataset in datasets),
        discrete=first.discrete,
        **joined,
    )


def take_episodes(dataset: Dataset, episodes: NDArray[np.integer], name: str | None = None) -> Dataset:
    """The episodes with these numbers, in this order; a number may occur several times, and so does its episode then."""
    lengths = dataset.lengths[episodes]
    if not len(lengths):
        raise DatasetError(f"no episode of {dataset.name} was chosen; choose one or more.")
    before = np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows = np.repeat(dataset.starts[episodes], lengths) + np.arange(lengths.sum()) - before
    return Dataset(
        name=name or dataset.name,
        task=dataset.task,
        obs=dataset.obs[rows],
        action=dataset.action[rows],
        reward=dataset.reward[rows],
        next_obs=dataset.next_obs[rows],
        next_action=dataset.next_action[rows],
        terminated=dataset.terminated[rows],
        truncated=dataset.truncated[rows],
        returns=dataset.returns[episodes],
        clipped=dataset.clipped if np.array_equal(episodes, np.arange(len(dataset.returns))) else 0,
        discrete=dataset.discrete,
    )


def mix(good: Dataset, bad: Dataset, ratio: float, transitions: int | None = None, seed: int = 0) -> Dataset:
    """A few good trajectories among many bad ones, as the mixed sets of Hong et al. 2023 ("Harnessing mixed offline RL datasets").

    Good trajectories are drawn uniformly with replacement until they hold more than `ratio` of `transitions`, then bad ones
    likewise until all together hold `transitions` or more; trajectories stay whole, so both shares are exceeded by less than one
    trajectory. `ratio`, in (0, 1], is thus a share of transitions, not of trajectories. `transitions`: default: as many as `good`
    has. The good ones come first. Raises `DatasetError` for a ratio out of range or data of different tasks.
    """
    total = len(good) if transitions is None else transitions
    if not 0 < ratio <= 1:
        raise DatasetError(f"the ratio is {ratio}; give the share of good transitions, above 0 and at most 1.")
    if total < 1:
        raise DatasetError(f"{total} transitions were asked for; ask for one or more.")
    generator = np.random.default_rng(seed)
    name = f"{good.name}+{bad.name}-{ratio:g}"
    first = take_episodes(good, _draw(good.lengths, ratio * total, generator, strictly=True))
    parts = [first]
    if len(first) < total:
        parts.append(take_episodes(bad, _draw(bad.lengths, total - len(first), generator, strictly=False)))
    return concatenate(parts, name)


def _draw(lengths: NDArray[np.int64], target: float, generator: np.random.Generator, *, strictly: bool) -> NDArray[np.int64]:
    """Numbers of episodes drawn with replacement until their lengths sum to `target` or more (`strictly`: to more)."""
    drawn, total = [], 0
    while not (total > target or (total == target and not strictly)):
        drawn.append(int(generator.integers(len(lengths))))
        total += int(lengths[drawn[-1]])
    return np.array(drawn, dtype=np.int64)


def _load_folder(folder: Path, limit: int | None) -> Dataset:
    """A Minari data set, or all HDF5 files of a folder as one."""
    from steelyard.envs import minari_data

    for candidate in (folder, folder.parent):
        if (candidate / "data" / "metadata.json").exists() and folder in (candidate, candidate / "data"):
            return minari_data.load_folder(candidate)
    files = sorted([*folder.glob("*.hdf5"), *folder.glob("*.h5")])
    files = [file for file in files if not file.name.startswith(".")]
    if not files:
        raise DatasetError(
            f"{folder} holds neither a Minari data set (data/main_data.hdf5) nor recordings (*.hdf5); give a folder that does."
        )
    parts = [d4rl.read(file, limit=limit) for file in files]
    return concatenate(parts, folder.resolve().name)


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, d4rl_table.TABLE, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return "give a D4RL name such as hopper-medium-v2, minari:ID, or the path of an HDF5 file."
