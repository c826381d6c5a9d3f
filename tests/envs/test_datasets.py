"""The `Dataset` type, what `load` understands, writing and reading back, joining and mixing."""

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest

from steelyard.agents.types import Spec
from steelyard.envs.dataset_files import write_hdf5
from steelyard.envs.datasets import Dataset, DatasetError, cache_folder, concatenate, load, mix, require_spec, take_episodes


def make(lengths: list[int], *, name: str = "made", first: int = 0, task: str | None = "Hopper-v4") -> Dataset:
    """Rows that carry their number, counted from `first`; every second episode is terminal, the others are cut."""
    rows = sum(lengths)
    number = np.arange(first, first + rows, dtype=np.float32)
    ends = np.cumsum(lengths) - 1
    terminated, truncated = np.zeros(rows, bool), np.zeros(rows, bool)
    terminated[ends[::2]], truncated[ends[1::2]] = True, True
    return Dataset(
        name=name,
        task=task,
        obs=np.stack([number, number], axis=1),
        action=np.full((rows, 1), 0.5, np.float32),
        reward=number,
        next_obs=np.stack([number + 0.5, number], axis=1),
        next_action=np.full((rows, 1), -0.5, np.float32),
        terminated=terminated,
        truncated=truncated,
        returns=np.add.reduceat(number.astype(np.float64), (ends - lengths + 1).astype(int)) + 100,
        clipped=2,
    )


def assert_same(a: Dataset, b: Dataset) -> None:
    for field in dataclasses.fields(Dataset):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype, field.name
            np.testing.assert_array_equal(x, y, err_msg=field.name)
        else:
            assert x == y, field.name


def test_episodes_of_a_dataset():
    dataset = make([3, 1, 4])
    assert dataset.starts.tolist() == [0, 3, 4]
    assert dataset.ends.tolist() == [2, 3, 7]
    assert dataset.lengths.tolist() == [3, 1, 4]
    assert {array.dtype for array in (dataset.starts, dataset.ends, dataset.lengths)} == {np.dtype(np.int64)}
    assert (len(dataset), dataset.obs_size, dataset.action_size) == (8, 2, 1)
    assert dataset.describe() == (
        "made: 8 transitions in 3 episodes, return 109.3 (103.0 to 122.0), observation 2, action 1 (2 action components clipped)"
    )
    assert "in 1 episode, return 103.0, observation" in make([3]).describe()
    assert dataset.normalized(3234.3) == pytest.approx(100)
    assert dataclasses.replace(dataset, task=None).normalized(1.0) is None


def test_fields_that_do_not_fit_are_refused():
    dataset = make([3, 4])
    both = dataset.terminated | dataset.truncated
    for changes, message in (
        ({"obs": dataset.obs[:-1]}, "obs has the shape"),
        ({"next_action": np.zeros((7, 2))}, "next_action has the shape"),
        ({"truncated": both}, "no row may have both"),
        ({"truncated": np.zeros(7, bool)}, "the last row"),
        ({"returns": np.zeros(3)}, "3 returns were given for 2 episodes"),
    ):
        with pytest.raises(DatasetError, match=message):
            dataclasses.replace(dataset, **changes)


def test_what_is_written_is_read_back_exactly(tmp_path: Path):
    dataset = make([3, 1, 4])
    path = write_hdf5(tmp_path / "new" / "mine.hdf5", dataset, {"source": "here", "seed": 3})
    assert_same(load(path), dataset)
    with h5py.File(path) as file:
        assert (file.attrs["source"], file.attrs["seed"], file.attrs["task"]) == ("here", 3, "Hopper-v4")
        arrays = {key: np.asarray(file[key]) for key in ("observations", "terminals", "timeouts")}
    assert arrays["observations"].shape == (8, 2)
    assert np.flatnonzero(arrays["terminals"]).tolist() == [2, 7]
    assert np.flatnonzero(arrays["timeouts"]).tolist() == [3]
    unknown = dataclasses.replace(dataset, task=None)
    assert_same(load(write_hdf5(path, unknown)), unknown)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = write_hdf5(tmp_path / "mine.hdf5", make([3]))
    before = path.read_bytes()
    with pytest.raises((DatasetError, TypeError)):
        write_hdf5(path, make([4]), {"bad": object()})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["mine.hdf5"]
    with pytest.raises(DatasetError, match="cannot be written"):
        write_hdf5(path / "below" / "a_file.hdf5", make([3]))


def test_a_recording_that_lost_a_key_is_refused(tmp_path: Path):
    path = write_hdf5(tmp_path / "mine.hdf5", make([3, 2]))
    with h5py.File(path, "a") as file:
        del file["timeouts"]
    with pytest.raises(DatasetError, match="lacks next_observations or timeouts"):
        load(path)


def test_a_folder_of_recordings_is_one_data_set(tmp_path: Path):
    write_hdf5(tmp_path / "b.hdf5", make([2], first=10))
    write_hdf5(tmp_path / "a.hdf5", make([3, 1]))
    (tmp_path / ".part.1.c.hdf5").write_bytes(b"half a file")
    dataset = load(tmp_path)
    assert dataset.obs[:, 0].tolist() == [0, 1, 2, 3, 10, 11]
    assert (dataset.name, dataset.task, dataset.clipped) == (tmp_path.name, "Hopper-v4", 4)
    write_hdf5(tmp_path / "c.hdf5", make([2], task="Ant-v4"))
    with pytest.raises(DatasetError, match="Ant-v4 and Hopper-v4"):
        load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="neither a Minari data set"):
        load(tmp_path / "empty")


def test_unknown_sources_get_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match="did you mean hopper-medium-v2"):
        load("hopper-medum-v2")
    with pytest.raises(DatasetError, match="give a D4RL name such as"):
        load("qwertz")
    with pytest.raises(DatasetError, match="there is no file"):
        load(tmp_path / "nothing.hdf5")


def test_downloads_lie_where_the_variable_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STEELYARD_DATA", "/somewhere")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("STEELYARD_DATA")
    assert cache_folder() == Path.home() / ".cache" / "steelyard" / "datasets"


def test_a_data_set_must_fit_its_worlds():
    dataset = make([3])
    require_spec(dataset, Spec(obs_size=2, action_size=1), "Hopper-v4")
    with pytest.raises(DatasetError, match="made has observations of 2 components where Hopper-v4 has 11"):
        require_spec(dataset, Spec(obs_size=11, action_size=1), "Hopper-v4")
    with pytest.raises(DatasetError, match="actions of 1 components"):
        require_spec(dataset, Spec(obs_size=2, action_size=3), "Hopper-v4")


def test_chosen_episodes_come_whole_and_in_order():
    dataset = make([3, 1, 4])
    chosen = take_episodes(dataset, np.array([2, 0, 2]))
    assert chosen.reward.tolist() == [4, 5, 6, 7, 0, 1, 2, 4, 5, 6, 7]
    assert chosen.next_obs[:, 0].tolist() == [4.5, 5.5, 6.5, 7.5, 0.5, 1.5, 2.5, 4.5, 5.5, 6.5, 7.5]
    assert chosen.returns.tolist() == [122, 103, 122]
    assert chosen.lengths.tolist() == [4, 3, 4]
    with pytest.raises(DatasetError, match="no episode"):
        take_episodes(dataset, np.array([], dtype=int))


def test_data_of_other_sizes_cannot_be_joined():
    wide = dataclasses.replace(make([3]), obs=np.zeros((3, 5), np.float32), next_obs=np.zeros((3, 5), np.float32))
    with pytest.raises(DatasetError, match="only data of the same task"):
        concatenate([make([3]), wide], "both")
    good, bad = dataclasses.replace(make([3]), name="good"), dataclasses.replace(wide, name="bad")
    with pytest.raises(DatasetError, match=r"^good has observations of \d+ .* components, bad of 5 and"):
        mix(good, bad, 0.1, 20)


@pytest.mark.parametrize("ratio", [0.01, 0.05, 0.1, 0.5])
def test_a_mixture_holds_its_share_of_good_transitions(ratio: float):
    good, bad = make([100] * 20, name="good"), make([7] * 300, name="bad", first=10_000)
    mixed = mix(good, bad, ratio, transitions=2_000, seed=1)
    taken = int((mixed.reward < 10_000).sum())
    assert ratio * 2_000 < taken <= ratio * 2_000 + 100, "more than the share, by at most one trajectory"
    assert 2_000 <= len(mixed) < 2_000 + 7
    assert mixed.reward[:taken].max() < 10_000 <= mixed.reward[taken:].min()
    assert (mixed.name, mixed.task) == (f"good+bad-{ratio:g}", "Hopper-v4")


def test_a_mixture_draws_uniformly_with_replacement():
    good, bad = make([2, 2, 2, 2], name="good"), make([1] * 5, name="bad", first=1_000)
    mixed = mix(good, bad, 0.5, transitions=8_000, seed=3)
    first = mixed.reward[mixed.starts]
    counts = np.array([(first == start).sum() for start in (0, 2, 4, 6)])
    assert counts.sum() == 2001, "4,000 transitions are not more than half"
    assert counts.min() > 400
    assert len(mixed) == 8_000
    assert min((first == 1_000 + i).sum() for i in range(5)) > 600


def test_a_mixture_repeats_with_its_seed_and_has_the_size_of_the_good_data():
    good, bad = make([10] * 10), make([3] * 10, first=500)
    assert_same(mix(good, bad, 0.2, seed=5), mix(good, bad, 0.2, seed=5))
    assert mix(good, bad, 0.2, seed=5).reward.tolist() != mix(good, bad, 0.2, seed=6).reward.tolist()
    assert 100 <= len(mix(good, bad, 0.2)) < 103
    assert (mix(good, bad, 1.0).reward < 500).all()
    for ratio in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(DatasetError, match="the ratio is"):
            mix(good, bad, ratio)
    with pytest.raises(DatasetError, match="ask for one or more"):
        mix(good, bad, 0.5, transitions=0)
