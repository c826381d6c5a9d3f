"""Minari data sets, written by Minari itself into a folder of the test."""

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Text, Tuple
from minari.data_collector import EpisodeBuffer

from steelyard.agents.types import Spec
from steelyard.envs import minari_data
from steelyard.envs.datasets import DatasetError, load, require_spec, write_hdf5

pytestmark = pytest.mark.filterwarnings("ignore")  # Minari remarks on everything that a small data set leaves out

LINE = Box(-np.inf, np.inf, (2,), np.float64)
UNIT = Box(-1.0, 1.0, (1,), np.float32)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def episode(steps: int, first: int, ending: str = "", **changes: Any) -> EpisodeBuffer:
    """Observations count on from `first`; action t is t / 10, reward t + 1."""
    number = np.arange(first, first + steps + 1, dtype=np.float64)
    fields: dict[str, Any] = {
        "observations": np.stack([number, -number], axis=1),
        "actions": np.arange(steps, dtype=np.float32)[:, None] / 10,
        "rewards": [float(t + 1) for t in range(steps)],
        "terminations": [ending == "terminated" and t == steps - 1 for t in range(steps)],
        "truncations": [ending == "truncated" and t == steps - 1 for t in range(steps)],
        "infos": {},
        **changes,
    }
    return EpisodeBuffer(**fields)


def write(
    *episodes: EpisodeBuffer, name: str = "mine/tiny-v0", obs: gym.Space = LINE, action: gym.Space = UNIT, **options
) -> None:
    minari.create_dataset_from_buffers(
        name,
        list(episodes),
        observation_space=obs,
        action_space=action,
        algorithm_name="hand",
        author="test",
        author_email="test@example.org",
        code_permalink="none",
        **options,
    )


def test_every_step_keeps_its_true_successor(root: Path):
    write(episode(3, 0, "terminated"), episode(2, 10, "truncated"), episode(2, 20), env="Hopper-v5")
    dataset = load("minari:mine/tiny-v0")
    assert (dataset.name, dataset.task) == ("mine/tiny-v0", "Hopper-v5")
    assert dataset.obs[:, 0].tolist() == [0, 1, 2, 10, 11, 20, 21]
    assert dataset.next_obs[:, 0].tolist() == [1, 2, 3, 11, 12, 21, 22]
    assert dataset.obs.dtype == np.float32
    np.testing.assert_allclose(dataset.next_action[:, 0], [0.1, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1])
    assert np.flatnonzero(dataset.terminated).tolist() == [2]
    assert np.flatnonzero(dataset.truncated).tolist() == [4, 6], "an episode that ends neither way is cut"
    assert dataset.returns.tolist() == [6, 3, 3]
    for folder in (root / "mine" / "tiny-v0", root / "mine" / "tiny-v0" / "data"):
        assert load(folder).obs.tolist() == dataset.obs.tolist()


def test_an_end_in_the_middle_counts(root: Path):
    write(episode(4, 0, terminations=[False, True, False, False], truncations=[False, True, False, True]))
    dataset = load("minari:mine/tiny-v0")
    assert dataset.terminated.tolist() == [False, True, False, False]
    assert dataset.truncated.tolist() == [False, False, False, True]
    assert dataset.returns.tolist() == [3, 7]
    np.testing.assert_allclose(dataset.next_action[:, 0], [0.1, 0.1, 0.3, 0.3])


def test_actions_are_scaled_from_their_bounds(root: Path):
    bounds = Box(np.array([-2.0, -1.0, -np.inf], np.float32), np.array([2.0, 3.0, np.inf], np.float32))
    actions = np.array([[-2, -1, 0.5], [1, 1, 4], [2, 3, -0.25]], np.float32)
    write(episode(3, 0, actions=actions), action=bounds)
    dataset = load("minari:mine/tiny-v0")
    np.testing.assert_allclose(dataset.action, [[-1, -1, 0.5], [0.5, 0, 1], [1, 1, -0.25]])
    assert dataset.clipped == 1


def test_observations_are_flattened_as_gymnasium_does(root: Path):
    space = Dict({"z": Box(-9, 9, (2, 2), np.float32), "a": Discrete(3, start=1), "pair": Tuple([Box(-9, 9, (1,)), Discrete(2)])})
    space.seed(0)
    samples = [space.sample() for _ in range(4)]
    observations = {
        "z": np.stack([sample["z"] for sample in samples]),
        "a": np.array([sample["a"] for sample in samples]),
        "pair": tuple(np.stack([sample["pair"][i] for sample in samples]) for i in range(2)),
    }
    write(episode(3, 0, observations=observations), obs=space)
    dataset = load("minari:mine/tiny-v0")
    expected = np.stack([np.asarray(gym.spaces.flatten(space, sample)) for sample in samples])
    np.testing.assert_allclose(dataset.obs, expected[:-1], rtol=1e-6)
    np.testing.assert_allclose(dataset.next_obs, expected[1:], rtol=1e-6)


def test_choices_become_one_hot(root: Path):
    write(
        episode(3, 0, "terminated", actions=np.array([5, 7, 6])),
        episode(2, 9, actions=np.array([6, 5])),
        action=Discrete(3, start=5),
    )
    dataset = load("minari:mine/tiny-v0")
    one, two, three = np.eye(3)
    assert dataset.discrete
    assert dataset.action.tolist() == np.stack([one, three, two, two, one]).tolist()
    assert dataset.next_action.tolist() == np.stack([three, two, two, one, one]).tolist()
    assert dataset.action.dtype == np.float32
    assert "3 choices" in dataset.describe()
    again = load(write_hdf5(root / "copy.hdf5", dataset))
    assert again.discrete
    assert again.action.tolist() == dataset.action.tolist()
    require_spec(dataset, Spec(2, 3, discrete=True), "x")
    with pytest.raises(DatasetError, match="actions that are choices where those of x are real numbers"):
        require_spec(dataset, Spec(2, 3), "x")
    with pytest.raises(DatasetError, match="not all are one-hot"):
        dataclasses.replace(dataset, action=dataset.action * 0.5)


def test_a_choice_that_does_not_exist_is_refused(root: Path):
    write(episode(3, 0, actions=np.array([0, 3, 1])), action=Discrete(3))
    with pytest.raises(DatasetError, match=r"action 3 in step 1 of episode 0 is none of Discrete\(3\)"):
        load("minari:mine/tiny-v0")


def test_spaces_without_vectors_are_refused(root: Path):
    write(episode(3, 0, actions=np.array([[0, 1], [1, 0], [0, 2]])), action=MultiDiscrete([2, 3]))
    with pytest.raises(DatasetError, match="actions are a Box of floats or Discrete"):
        load("minari:mine/tiny-v0")
    write(
        episode(2, 0, observations={"text": ["a", "b", "c"]}),
        name="mine/words-v0",
        obs=Dict({"text": Text(3)}),
    )
    with pytest.raises(DatasetError, match="cannot be flattened"):
        load("minari:mine/words-v0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": [1.0, np.nan, 1.0]}, "rewards of episode 0 are NaN or infinite in step 1"),
        ({"observations": np.full((4, 2), np.inf)}, "observations of episode 0 are NaN or infinite in step 0"),
        ({"observations": np.zeros((3, 2))}, "episode 0 has 3 observations for 3 steps where 4 fit"),
        ({"actions": np.zeros((5, 1), np.float32)}, "episode 0 has 5 actions"),
    ],
)
def test_bad_episodes_are_named(root: Path, changes: dict[str, Any], message: str):
    write(episode(3, 0, **changes))
    with pytest.raises(DatasetError, match=message):
        load("minari:mine/tiny-v0")


def test_what_minari_cannot_provide_is_one_sentence(root: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no network\nhere")

    monkeypatch.setattr("minari.storage.hosting.download_dataset", refuse)
    with pytest.raises(DatasetError, match=r"Minari cannot provide 'mine/none-v0' \(ConnectionError: no network here\)"):
        load("minari:mine/none-v0")
    write(episode(3, 0))
    data = root / "mine" / "tiny-v0" / "data" / "main_data.hdf5"
    with pytest.raises(DatasetError, match="give the folder of the Minari data set"):
        load(data)
    data.write_bytes(data.read_bytes()[:500])
    with pytest.raises(DatasetError, match="is damaged"):
        load("minari:mine/tiny-v0")
    (data.parent / "metadata.json").write_text("{}")
    with pytest.raises(DatasetError, match="Minari cannot read"):
        minari_data.load_folder(root / "mine" / "tiny-v0")
