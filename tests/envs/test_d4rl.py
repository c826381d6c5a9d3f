"""D4RL files: every trap of the format against rows worked out by hand, and the real files where they are at hand."""

import json
import pickle
import random
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from steelyard.envs import d4rl, d4rl_table
from steelyard.envs.dataset_files import write_hdf5
from steelyard.envs.datasets import Dataset, DatasetError, load

SHARED = Path(__file__).parents[3] / "shared" / "data"
DOOR = SHARED / "transitions" / "d4rl_door_human_v0" / "door-v0_demos_clipped.hdf5"
CHEETAH = SHARED / "transitions" / "cs285_expert" / "halfcheetah_expert.hdf5"
SCORES = SHARED / "reference" / "d4rl_reference_scores.json"


def write(path: Path, **changes: Any) -> Path:
    """Six rows that carry their own number i: observation (i, -i), action i / 10, reward 2^i; None leaves a key out."""
    rows = 6
    number = np.arange(rows, dtype=np.float32)
    arrays: dict[str, Any] = {
        "observations": np.stack([number, -number], axis=1),
        "actions": number[:, None] / 10,
        "rewards": 2**number,
        "terminals": np.zeros(rows, bool),
        "timeouts": np.zeros(rows, bool),
        **changes,
    }
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            if array is not None:
                file[key] = array
    return path


def flags(*rows: int, count: int = 6) -> np.ndarray:
    array = np.zeros(count, bool)
    array[list(rows)] = True
    return array


def numbers(dataset: Dataset) -> list[int]:
    return dataset.obs[:, 0].astype(int).tolist()


def successors(dataset: Dataset) -> list[int]:
    return dataset.next_obs[:, 0].astype(int).tolist()


def next_actions(dataset: Dataset) -> list[int]:
    return np.round(dataset.next_action[:, 0] * 10).astype(int).tolist()


def test_a_timed_out_row_becomes_the_successor_of_the_row_before(tmp_path: Path):
    dataset = load(write(tmp_path / "x.hdf5", timeouts=flags(2, 5)))
    assert numbers(dataset) == [0, 1, 3, 4]
    assert successors(dataset) == [1, 2, 4, 5]
    assert next_actions(dataset) == [1, 2, 4, 5]
    assert dataset.truncated.tolist() == [False, True, False, True]
    assert not dataset.terminated.any()
    assert dataset.reward.tolist() == [1, 2, 8, 16]
    assert dataset.returns.tolist() == [1 + 2 + 4, 8 + 16 + 32], "the dropped rows' rewards count"
    assert (dataset.starts.tolist(), dataset.ends.tolist(), dataset.lengths.tolist()) == ([0, 2], [1, 3], [2, 2])
    assert (dataset.name, dataset.task, dataset.obs_size, dataset.action_size) == ("x", None, 2, 1)


def test_a_terminal_row_stays_and_has_no_successor_of_another_episode(tmp_path: Path):
    dataset = load(write(tmp_path / "x.hdf5", terminals=flags(2, 5)))
    assert numbers(dataset) == [0, 1, 2, 3, 4, 5]
    assert successors(dataset) == [1, 2, 2, 4, 5, 5]
    assert next_actions(dataset) == [1, 2, 2, 4, 5, 5]
    assert np.flatnonzero(dataset.terminated).tolist() == [2, 5]
    assert not dataset.truncated.any()
    assert dataset.returns.tolist() == [7, 56]


def test_a_recorded_successor_of_a_terminal_row_is_kept(tmp_path: Path):
    recorded = np.arange(1, 7, dtype=np.float32)[:, None].repeat(2, axis=1) * [1, -1]
    recorded[2] = 77
    dataset = load(write(tmp_path / "x.hdf5", terminals=flags(2, 5), next_observations=recorded))
    assert successors(dataset) == [1, 2, 77, 4, 5, 6]


def test_terminal_wins_over_a_timeout_in_the_same_row(tmp_path: Path):
    dataset = load(write(tmp_path / "x.hdf5", terminals=flags(2, 5), timeouts=flags(2)))
    assert numbers(dataset) == [0, 1, 2, 3, 4, 5]
    assert not dataset.truncated.any()


def test_a_file_that_ends_in_the_middle_of_an_episode_is_cut_there(tmp_path: Path):
    dataset = load(write(tmp_path / "x.hdf5", terminals=flags(2)))
    assert numbers(dataset) == [0, 1, 2, 3, 4]
    assert successors(dataset) == [1, 2, 2, 4, 5]
    assert dataset.truncated.tolist() == [False] * 4 + [True]
    assert dataset.returns.tolist() == [7, 56]


def test_an_episode_of_one_cut_row_vanishes_with_its_return(tmp_path: Path):
    dataset = load(write(tmp_path / "x.hdf5", timeouts=flags(1, 2, 5)))
    assert numbers(dataset) == [0, 3, 4]
    assert dataset.returns.tolist() == [3, 56]
    dataset = load(write(tmp_path / "y.hdf5", terminals=flags(2), timeouts=flags(3, 5)))
    assert numbers(dataset) == [0, 1, 2, 4]
    assert dataset.terminated.tolist() == [False, False, True, False]
    assert dataset.truncated.tolist() == [False, False, False, True], "the terminal row is not truncated by the row after it"


@pytest.mark.parametrize(("name", "limit"), [("x", 2), ("x", 3), ("kitchen_mine", None), ("hopper_mine", None), ("x", None)])
def test_without_timeouts_the_limit_ends_episodes(tmp_path: Path, name: str, limit: int | None):
    dataset = load(write(tmp_path / f"{name}.hdf5", timeouts=None, terminals=flags(0)), limit=limit)
    expected = {2: [0, 1, 3], 3: [0, 1, 2, 4], None: [0, 1, 2, 3, 4]}[limit]
    assert numbers(dataset) == expected, "the limit counts from the last terminal row"


def test_the_limit_follows_the_name():
    limits = {name: d4rl_table.step_limit(name) for name in ("hopper-medium-v0", "pen-human-v0", "kitchen-mixed-v0", "hopper_x")}
    assert limits == {"hopper-medium-v0": 1000, "pen-human-v0": 100, "kitchen-mixed-v0": 280, "hopper_x": 1000}
    assert d4rl_table.step_limit("hopperlike") is None
    rows = 2500
    ends = d4rl._cut_every(flags(1499, count=rows), 1000)
    assert np.flatnonzero(ends).tolist() == [999, 1499, 2499]


def test_columns_and_float_flags_are_understood(tmp_path: Path):
    path = write(
        tmp_path / "x.hdf5", rewards=np.arange(6.0)[:, None], terminals=flags(5).astype(np.float32)[:, None], timeouts=None
    )
    with h5py.File(path, "a") as file:
        file["metadata/algorithm"] = "SAC"
        file["infos/action_log_probs"] = np.full(6, np.nan)
    dataset = load(path)
    assert dataset.reward.shape == (6,)
    assert dataset.terminated.dtype == np.bool_
    assert dataset.terminated[-1]


def test_actions_are_clipped_and_counted(tmp_path: Path):
    action = np.array([[0.5, 1.0], [-3.0, 1.5], [0, 0], [2, -1.0], [0, 0], [0, 0]], dtype=np.float32)
    dataset = load(write(tmp_path / "x.hdf5", actions=action, terminals=flags(5)))
    assert dataset.clipped == 3
    assert dataset.action[1].tolist() == [-1.0, 1.0]
    assert dataset.next_action[0].tolist() == [-1.0, 1.0]


def test_human_demonstrations_end_at_terminals_only(tmp_path: Path):
    rows = d4rl.read_rows(write(tmp_path / "x.hdf5", terminals=flags(2, 5), timeouts=flags(1, 4)))
    assert d4rl.boundaries("door-human-v0", rows).tolist() == flags(2, 5).tolist()
    assert d4rl.boundaries("door-expert-v0", rows).tolist() == flags(1, 2, 4, 5).tolist()
    rows = d4rl.read_rows(write(tmp_path / "y.hdf5", timeouts=flags(2, 5)))
    assert d4rl.boundaries("door-human-v1", rows).tolist() == flags(2, 5).tolist()


def test_recorded_successors_decide_over_timeouts_of_unknown_files(tmp_path: Path):
    recorded = np.arange(1, 7, dtype=np.float32)[:, None].repeat(2, axis=1) * [1, -1]
    shifted = write(tmp_path / "shifted.hdf5", timeouts=flags(1), next_observations=recorded)
    assert numbers(load(shifted)) == [0, 2, 3, 4], "a record that never differs proves nothing"
    recorded[3] = 50
    clock = write(tmp_path / "clock.hdf5", timeouts=flags(1), next_observations=recorded)
    assert numbers(load(clock)) == [0, 1, 2, 4], "row 1 goes on in row 2, and row 3 does not go on in row 4"
    rows = d4rl.read_rows(clock)
    assert np.flatnonzero(d4rl.boundaries("hopper-medium-v2", rows)).tolist() == [1, 5], "D4RL's own files keep the standard"


def smooth_file(path: Path, *, real: bool, qpos: bool) -> Path:
    """Ten episodes of 50 rows that walk on from nought, ended by terminals; `timeouts` in their middle, or (real) at resets."""
    generator = np.random.default_rng(0)
    walk = np.concatenate(
        [np.cumsum(generator.uniform(0.5, 1.5, (25 if real else 50, 2)), axis=0) for _ in range(20 if real else 10)]
    )
    rows = len(walk)
    ends = range(49, rows, 50)
    changes = {"infos/qpos": walk} if qpos else {}
    noise = generator.normal(size=(rows, 2)) * 100
    return write(
        path,
        observations=noise if qpos else walk,
        actions=np.zeros((rows, 1)),
        rewards=np.zeros(rows),
        terminals=flags(*ends, count=rows),
        timeouts=flags(*(end - 25 for end in ends), count=rows),
        **changes,
    )


@pytest.mark.parametrize("qpos", [False, True])
def test_timeouts_behind_which_an_unknown_file_goes_on_smoothly_are_dismissed(tmp_path: Path, qpos: bool):
    assert len(load(smooth_file(tmp_path / "clock.hdf5", real=False, qpos=qpos)).returns) == 10
    assert len(load(smooth_file(tmp_path / "real.hdf5", real=True, qpos=qpos)).returns) == 20


def test_ant_is_shown_without_contact_forces_that_are_zero(tmp_path: Path):
    obs = np.zeros((6, 111), np.float32)
    obs[:, :27] = np.arange(6)[:, None] + 1
    path = write(tmp_path / "ant_medium-v2.hdf5", observations=obs, terminals=flags(5))
    assert (load(path).obs_size, load(path).task, load(path).name) == (27, "Ant-v4", "ant-medium-v2")
    obs[3, 60] = 0.1
    assert load(write(path, observations=obs, terminals=flags(5))).obs_size == 111


# --- what is wrong with a file ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": None}, "lacks rewards .*it holds actions, observations"),
        ({"terminals": None, "actions": None}, "lacks actions, terminals"),
        ({"rewards": np.zeros(5)}, "observations has 6 rows where rewards has 5"),
        ({"terminals": np.zeros(7)}, "terminals has 7 rows where rewards has 6"),
        ({"timeouts": np.zeros(2)}, "timeouts has 2 rows"),
        ({"observations": np.zeros(6)}, "observations has the shape"),
        ({"actions": np.zeros((6, 0))}, "actions has the shape"),
        ({"rewards": np.zeros((6, 2))}, "rewards has the shape"),
        ({"rewards": np.array([0, 1, np.nan, 3, 4, 5])}, "rewards is NaN or infinite in row 2"),
        ({"terminals": np.array([0, np.nan, 0, 0, 0, 0])}, "terminals is NaN or infinite in row 1"),
        ({"actions": np.array([[0], [0], [0], [-np.inf], [0], [0.0]])}, "actions is NaN or infinite in row 3, component 0"),
        ({"observations": np.full((6, 2), 1e200)}, "observations is NaN or infinite in row 0"),
        ({"next_observations": np.zeros((6, 3))}, "next_observations has the shape"),
        ({"rewards": np.array([b"a"] * 6)}, "holds .* where numbers are needed"),
        ({"observations": np.zeros((0, 2)), "rewards": np.zeros(0)}, "holds 0 rows"),
        ({key: np.zeros((1, 1)) for key in ("observations", "actions", "rewards", "terminals")}, "holds 1 row;"),
        ({"timeouts": np.ones(6)}, "no row has a successor"),
        ({"terminals": np.array([0, 0, 0.5, 0, 0, 1])}, "terminals is 0.5 in row 2 where 0 or 1 is needed"),
        ({"timeouts": np.arange(6)}, "timeouts is 2 in row 2 where 0 or 1 is needed"),
        ({"observations": np.float32(1)}, r"observations has the shape \(\) where"),
    ],
)
def test_bad_files_are_named_in_one_sentence(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(DatasetError, match=message) as error:
        load(write(tmp_path / "bad.hdf5", **changes))
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


def test_a_group_or_a_dead_link_in_place_of_an_array_is_missing(tmp_path: Path):
    path = write(tmp_path / "x.hdf5", rewards=None, actions=None)
    with h5py.File(path, "a") as file:
        file.create_group("rewards")
        file["actions"] = h5py.SoftLink("/nothing")
    with pytest.raises(DatasetError, match=r"lacks actions, rewards \(it holds observations, terminals, timeouts\);"):
        load(path)


def test_what_is_no_hdf5_file_is_refused(tmp_path: Path):
    path = tmp_path / "x.hdf5"
    for content, message in (
        (b"", "is empty"),
        (pickle.dumps({"observations": [1]}), "a Python pickle"),
        (b"<html>404</html>", "an HTML page"),
        (b"PK\x03\x04 and so on", "zip or npz"),
        (b"hello", "unknown contents"),
    ):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=message):
            load(path)
    whole = write(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="damaged or was cut short"):
        load(path)


def test_limits_below_two_are_refused(tmp_path: Path):
    with pytest.raises(DatasetError, match="step limit is 1"):
        load(write(tmp_path / "x.hdf5", timeouts=None), limit=1)


@pytest.mark.parametrize("own", [False, True])
def test_damaged_bytes_raise_nothing_but_a_dataset_error(tmp_path: Path, own: bool):
    path = write(tmp_path / "whole.hdf5", terminals=flags(2, 5))
    if own:
        path = write_hdf5(tmp_path / "own.hdf5", load(path), {"task": "Hopper-v4"})
    whole, damaged = path.read_bytes(), tmp_path / "damaged.hdf5"
    dice = random.Random(7)
    outcomes = {"read": 0, "refused": 0}
    for trial in range(400):
        content = bytearray(whole)
        if trial % 4 == 0:
            del content[dice.randrange(len(content)) :]
        else:
            for _ in range(dice.choice([1, 1, 3, 20])):
                content[dice.randrange(len(content))] = dice.randrange(256)
        damaged.write_bytes(content)
        try:
            dataset = load(damaged)
        except DatasetError as error:
            assert "\n" not in str(error)  # noqa: PT017 - reading a damaged file may also succeed
            outcomes["refused"] += 1
        else:
            assert np.isfinite(dataset.obs).all()
            assert np.abs(dataset.action).max() <= 1
            assert len(dataset) == dataset.lengths.sum()
            outcomes["read"] += 1
    assert min(outcomes.values()) > 20, outcomes


# --- what D4RL publishes ---


def test_scores_are_normalised_by_name_and_by_task():
    assert d4rl_table.normalized_score("hopper-medium-v2", 3234.3) == pytest.approx(100)
    assert d4rl_table.normalized_score("hopper-medium-v2", -20.272305) == pytest.approx(0)
    assert d4rl_table.normalized_score("halfcheetah-random-v0", (12135.0 - 280.178953) / 2) == pytest.approx(50)
    assert d4rl_table.normalized_score("mine", 4592.3, "Walker2d-v4") == pytest.approx(100)
    assert d4rl_table.normalized_score("mine", 4592.3, "gymnasium_robotics:AdroitHandDoor-v1") == pytest.approx(158.28, abs=1e-3)
    assert d4rl_table.normalized_score("mine", 1.0, "Hopper-v5") is None, "rewards of -v5 are others"
    assert d4rl_table.normalized_score("mine", 1.0) is None


def test_worlds_without_files_of_their_own_have_scores():
    assert d4rl_table.normalized_score("maze2d-umaze-v0", 62.6) == pytest.approx(100)
    assert d4rl_table.normalized_score("maze2d-large-dense-v0", 27.388310) == pytest.approx(0)
    assert d4rl_table.normalized_score("maze2d-eval-medium-v1", (13.07 + 204.93) / 2) == pytest.approx(50)
    assert d4rl_table.normalized_score("antmaze-large-play-v1", 0.25) == pytest.approx(25)
    assert d4rl_table.step_limit("maze2d-medium-v0") == 250
    assert not set(d4rl_table.SCORES_ALONE) & set(d4rl_table.TABLE)


def test_published_file_names_are_recognised_unless_anybody_may_use_them():
    assert d4rl_table.recognise("hopper_medium-v2.hdf5") == "hopper-medium-v2"
    assert d4rl_table.recognise("door-v0_demos_clipped.hdf5") == "door-human-v0"
    assert d4rl_table.recognise("hopper_expert.hdf5") is None
    assert len({entry.filename for entry in d4rl_table.TABLE.values()}) == len(d4rl_table.TABLE)


@pytest.mark.skipif(not SCORES.exists(), reason="needs the reference table in ../shared")
def test_the_table_equals_the_published_one():
    published = json.loads(SCORES.read_text())
    assert d4rl_table.TABLE.keys() == published["scores"].keys()
    for name, row in published["scores"].items():
        entry = d4rl_table.TABLE[name]
        assert (entry.minimum, entry.maximum, entry.url) == (row["ref_min"], row["ref_max"], row["url"]), name
    checksums = published["file_checksums_reported_by_third_parties"]
    assert {name: (row["bytes"], row["sha256"]) for name, row in checksums.items()} == d4rl_table.CHECKSUMS


@pytest.mark.skipif(not DOOR.exists(), reason="needs D4RL's door-human-v0 in ../shared")
def test_door_human_as_published(tmp_path: Path):
    dataset = load(DOOR)
    assert (dataset.name, dataset.task) == ("door-human-v0", "AdroitHandDoor-v1")
    assert (len(dataset), len(dataset.returns), dataset.obs_size, dataset.action_size) == (6729, 25, 39, 28)
    assert dataset.returns.mean() == pytest.approx(795.7, abs=0.05)
    assert dataset.terminated.sum() == 25
    same = np.abs(dataset.next_obs[:-1] - dataset.obs[1:]).max(axis=1) == 0
    assert np.flatnonzero(~same).tolist() == dataset.ends[:-1].tolist()
    # Under a name that says nothing the positions of the simulator tell that the clock is no end, and so do the observations.
    renamed = tmp_path / "mine.hdf5"
    renamed.write_bytes(DOOR.read_bytes())
    assert load(renamed).ends.tolist() == dataset.ends.tolist()
    with h5py.File(renamed, "a") as file:
        del file["infos"]
    assert load(renamed).ends.tolist() == dataset.ends.tolist()


@pytest.mark.skipif(not CHEETAH.exists(), reason="needs the expert rollouts in ../shared")
def test_expert_rollouts_lose_one_row_for_each_timeout():
    dataset = load(CHEETAH)
    assert dataset.lengths.tolist() == [999, 999]
    assert dataset.returns.mean() == pytest.approx(4034.8, abs=0.1)
    assert dataset.truncated.sum() == 2
    with h5py.File(CHEETAH) as file:
        recorded = np.delete(np.asarray(file["next_observations"]), [999, 1999], axis=0)
    np.testing.assert_allclose(dataset.next_obs, recorded, atol=1e-6)
