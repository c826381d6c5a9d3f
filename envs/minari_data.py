"""Minari data sets, read by Minari's own API.

A Minari episode of T steps has T + 1 observations, so every step has its true successor and none is dropped. A step whose
`terminations` is set ends an episode, as does one whose `truncations` is set, and the episode's last step in any case (as a cut). Both are also
obeyed in the middle of an episode.

**Spaces.** Observations of Dict, Tuple, Box and Discrete spaces become one vector in the order of `gymnasium.spaces.flatten`: the parts of
a Dict by its (sorted) keys (of "policy" and "critic" the former first), arrays in row order, a Discrete value as one-hot; that is also what
`envs.make` shows of such a world. Actions
of a Box of floats are rescaled from its bounds to [-1, 1] (components with an infinite bound are taken as they are and clipped); Discrete ones
become one-hot.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from steelyard.envs.asymmetric import policy_and_critic
from steelyard.envs.dataset_type import Dataset, DatasetError
from steelyard.envs.edge import bounded


def load_id(name: str) -> Dataset:
    """The Minari data set with the id `name`, downloaded by Minari if it is not on this machine.

    Raises `DatasetError` if Minari cannot provide or read it.
    """
    import minari
    from minari.storage.datasets_root_dir import get_dataset_path

    try:
        data = minari.load_dataset(name, download=True)
    except Exception as error:  # what Minari's storages and their network clients raise is not in their contract
        raise DatasetError(
            f"Minari cannot provide {name!r} ({_one_line(error)}); check the id with `minari list remote`, or put the data set's "
            f"folder at {get_dataset_path(name)}."
        ) from error
    return _convert(name, data)


def load_folder(folder: Path) -> Dataset:
    """The Minari data set in `folder`, which contains `data/main_data.hdf5`. Raises `DatasetError` if Minari cannot read it."""
    import minari

    try:
        data = minari.MinariDataset(folder / "data")
    except Exception as error:
        raise DatasetError(f"Minari cannot read {folder} ({_one_line(error)}); download the data set again.") from error
    return _convert(data.id, data)


def _convert(name: str, data: Any) -> Dataset:
    """The transitions of a `minari.MinariDataset`."""
    actions, observations = data.action_space, data.observation_space
    discrete = isinstance(actions, gym.spaces.Discrete)
    if not discrete and not (isinstance(actions, gym.spaces.Box) and np.issubdtype(actions.dtype, np.floating)):
        raise DatasetError(
            f"{name}: its action space is {actions}; choose a data set whose actions are a Box of floats or Discrete."
        )
    _check_space(name, observations)
    try:
        episodes = [_episode(name, episode, observations, actions) for episode in data.iterate_episodes()]
    except DatasetError:
        raise
    except Exception as error:
        raise DatasetError(f"{name} is damaged ({_one_line(error)}); download the data set again.") from error
    episodes = [episode for episode in episodes if len(episode["reward"])]
    if sum(len(episode["reward"]) for episode in episodes) < 2:
        raise DatasetError(f"{name} holds fewer than two steps; choose another data set.")
    joined = {field: np.concatenate([episode[field] for episode in episodes]) for field in episodes[0]}
    action = joined["action"]
    clipped = int(np.count_nonzero(np.abs(action) > 1.0))
    joined["action"] = np.clip(action, -1.0, 1.0)
    joined["next_action"] = np.clip(joined["next_action"], -1.0, 1.0)
    ends = np.flatnonzero(joined["terminated"] | joined["truncated"])
    rewards = joined.pop("exact_reward")
    returns = np.add.reduceat(rewards, np.concatenate([[0], ends[:-1] + 1]))
    spec = data.env_spec
    return Dataset(
        name=name, task=None if spec is None else spec.id, returns=returns, clipped=clipped, discrete=discrete, **joined
    )


def _episode(name: str, episode: Any, observations: gym.Space, actions: gym.Space) -> dict[str, NDArray[Any]]:
    """The columns of one episode. Raises `DatasetError` if they do not fit each other or hold NaN."""
    reward = np.asarray(episode.rewards, dtype=np.float64).reshape(-1)
    steps = len(reward)
    obs = flatten(observations, episode.observations)
    action = _unit_actions(name, episode, actions)
    terminated = np.asarray(episode.terminations, dtype=np.bool_).reshape(-1)
    truncated = np.asarray(episode.truncations, dtype=np.bool_).reshape(-1) & ~terminated
    for field, array, rows in (
        ("observations", obs, steps + 1),
        ("actions", action, steps),
        ("terminations", terminated, steps),
        ("truncations", truncated, steps),
    ):
        if len(array) != rows:
            raise DatasetError(f"{name}: episode {episode.id} has {len(array)} {field} for {steps} steps where {rows} fit.")
    with np.errstate(over="ignore"):  # too large for float32 becomes infinity, and that is reported
        numbers = {
            "observations": obs.astype(np.float32),
            "actions": action.astype(np.float32),
            "rewards": reward.astype(np.float32),
        }
    for field, array in numbers.items():
        finite = np.isfinite(array)
        if not finite.all():
            raise DatasetError(
                f"{name}: {field} of episode {episode.id} are NaN or infinite in step {int(np.argwhere(~finite)[0][0])} "
                "and cannot be learned from; filter that episode out."
            )
    if steps:
        truncated[-1] |= not terminated[-1]
    unit = numbers["actions"]
    next_action = np.concatenate([unit[1:], unit[-1:]])
    ended = terminated | truncated
    next_action[ended] = unit[ended]
    return {
        "obs": numbers["observations"][:-1],
        "action": unit,
        "reward": numbers["rewards"],
        "exact_reward": reward,
        "next_obs": numbers["observations"][1:],
        "next_action": next_action,
        "terminated": terminated,
        "truncated": truncated,
    }


def flatten(space: gym.Space, values: Any) -> NDArray[np.float64]:
    """Values of `space` for many rows, as Minari hands them over, as [rows, size]: what `envs.make` shows of each row."""
    pair = policy_and_critic(space)
    parts = [(space, values)] if pair is None else [(cast(gym.spaces.Dict, space)[key], values[key]) for key in pair]
    return np.concatenate([array for part in parts for array in _parts(*part)], axis=1)


def _parts(space: gym.Space, values: Any) -> Iterator[NDArray[np.float64]]:
    if isinstance(space, gym.spaces.Dict):
        for key, part in space.spaces.items():
            yield from _parts(part, values[key])
    elif isinstance(space, gym.spaces.Tuple):
        for part, value in zip(space.spaces, values, strict=True):
            yield from _parts(part, value)
    elif isinstance(space, gym.spaces.Discrete):
        index = np.asarray(values).reshape(-1).astype(np.int64) - int(space.start)
        yield np.eye(int(space.n))[index]
    else:
        array = np.asarray(values, dtype=np.float64)
        yield array.reshape(len(array), -1)


def _check_space(name: str, space: gym.Space) -> None:
    """Raises `DatasetError` for an observation space without a vector of fixed size."""
    if isinstance(space, gym.spaces.Dict):
        parts = list(space.spaces.values())
    elif isinstance(space, gym.spaces.Tuple):
        parts = list(space.spaces)
    elif isinstance(space, (gym.spaces.Box, gym.spaces.Discrete)):
        return
    else:
        raise DatasetError(
            f"{name}: observations of {space} cannot be flattened into a vector; choose a data set of Box, Dict, Tuple or Discrete."
        )
    for part in parts:
        _check_space(name, part)


def _unit_actions(name: str, episode: Any, space: gym.Space) -> NDArray[np.float64]:
    """Actions [T, size] of an episode in [-1, 1], or one-hot. Raises `DatasetError` for a choice that the space does not have."""
    if isinstance(space, gym.spaces.Discrete):
        choice = np.asarray(episode.actions).reshape(-1).astype(np.int64) - int(space.start)
        outside = (choice < 0) | (choice >= space.n)
        if outside.any():
            step = int(np.argmax(outside))
            raise DatasetError(
                f"{name}: action {int(choice[step]) + int(space.start)} in step {step} of episode {episode.id} is none of {space}; "
                "filter that episode out."
            )
        return np.eye(int(space.n))[choice]
    assert isinstance(space, gym.spaces.Box)  # _convert saw to it
    low, high = space.low.reshape(-1).astype(np.float64), space.high.reshape(-1).astype(np.float64)
    return _to_unit(np.asarray(episode.actions, dtype=np.float64).reshape(len(episode.actions), -1), low, high)


def _to_unit(action: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Actions [T, size] from their bounds to [-1, 1]; exactly themselves where the bounds are -1 and 1, or infinite."""
    rescaled = bounded(low, high) & (high > low) & ~((low == -1) & (high == 1))
    centre = np.where(rescaled, np.add(low, high, out=np.zeros_like(low), where=rescaled) / 2, 0.0)
    half = np.where(rescaled, np.subtract(high, low, out=np.ones_like(low), where=rescaled) / 2, 1.0)
    return (action - centre) / half


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(".")
