"""Recording, mixing and looking into data sets, by the library and by the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from torch import Tensor

from steelyard import envs
from steelyard.agents.agent import Execution
from steelyard.agents.networks import MLP
from steelyard.agents.sac import SAC
from steelyard.agents.types import Spec
from steelyard.envs.dataset_files import write_hdf5
from steelyard.envs.datasets import Dataset, load
from steelyard.trainers import checkpoint, plain
from steelyard.trainers.config import Run
from steelyard.trainers.policy_files import PolicyFileError, read_policy, snapshots
from steelyard.trainers.recording import RECORDING_SEEDS, RecordingError, Source, open_policy, record

Call = Callable[..., tuple[int, str, str]]
LIMIT = 6


class Lottery(gym.Env):
    """Episodes of one step or of as many as the clock allows, by a coin. Observation: (drawn number of the episode, step)."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def observe(self) -> np.ndarray:
        return np.array([self.ticket, self.clock], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.ticket, self.clock = self.np_random.integers(20), 0
        return self.observe(), {}

    def step(self, action: np.ndarray):
        self.clock += 1
        return self.observe(), float(action[0]), bool(self.ticket % 2), False, {}


@pytest.fixture(scope="module", autouse=True)
def lottery():
    gym.register("Lottery-v0", lambda **_: Lottery(), max_episode_steps=LIMIT)
    yield
    del gym.registry["Lottery-v0"]


class Ramp:
    """Actions that tell which call made them, beyond the bounds in the end."""

    device = torch.device("cpu")

    def __init__(self):
        self.calls, self.explored = 0, set()

    def act(self, obs: Tensor, explore: bool) -> Tensor:
        self.calls += 1
        self.explored.add(explore)
        return torch.full((len(obs), 1), 0.2 * self.calls)


def lottery_source(policy: Any = None) -> Source:
    return Source(policy or Ramp(), "Lottery-v0", 1, Spec(2, 1, horizon=LIMIT))


def check_lottery(dataset: Dataset, transitions: int) -> None:
    """Every row is a true step of its world."""
    assert len(dataset) == transitions
    steps = np.concatenate([np.arange(length) for length in dataset.lengths])
    assert dataset.obs[:, 1].tolist() == steps.tolist()
    assert dataset.next_obs[:, 1].tolist() == (steps + 1).tolist(), "the successor is the episode's own last observation"
    assert (dataset.next_obs[:, 0] == dataset.obs[:, 0]).all()
    short = dataset.obs[:, 0] % 2 == 1
    assert (dataset.terminated == short).all()
    ends = dataset.ends[:-1]
    assert (dataset.truncated[ends] == ~short[ends]).all()
    assert (dataset.lengths[:-1] == np.where(short[ends], 1, LIMIT)).all()
    following = np.append(np.arange(1, transitions), transitions - 1)
    following[dataset.ends] = dataset.ends
    assert dataset.next_action.tolist() == dataset.action[following].tolist()
    np.testing.assert_allclose(dataset.reward, 2 * dataset.action[:, 0], rtol=1e-6)
    np.testing.assert_allclose(dataset.returns, np.add.reduceat(dataset.reward, dataset.starts), rtol=1e-5)


@pytest.mark.parametrize("transitions", [2, 5, 60, 200])
def test_recorded_rows_are_true_steps_of_several_worlds(transitions: int):
    policy = Ramp()
    dataset = record(lottery_source(policy), transitions, name="lottery", seed=1, stochastic=False)
    check_lottery(dataset, transitions)
    assert (dataset.name, dataset.task) == ("lottery", "Lottery-v0")
    assert policy.explored == {False}
    assert dataset.action.max() == min(1.0, np.float32(0.2 * policy.calls)), "as the world executes them"


def test_short_episodes_are_as_frequent_as_in_a_single_world():
    """Episodes taken in the order in which they end would make three of four short in such small recordings."""
    short, count = 0, 0
    for seed in range(60):
        tickets = [*(dataset := record(lottery_source(), 30, name="x", seed=seed)).obs[dataset.starts, 0] % 2]
        check_lottery(dataset, 30)
        short, count = short + int(sum(tickets[:5])), count + 5
    assert abs(short / count - 0.5) < 3 * 0.5 / count**0.5


def test_recording_repeats_with_its_seed():
    first, again, other = (record(lottery_source(), 50, name="x", seed=seed) for seed in (3, 3, 4))
    assert first.obs.tolist() == again.obs.tolist() != other.obs.tolist()


def test_a_recording_replays_in_gymnasium():
    source = open_policy("random", "Hopper-v4", seed=5)
    dataset = record(source, 300, name="hopper", seed=2)
    with pytest.warns(DeprecationWarning, match="out of date"):
        env = gym.make("Hopper-v4")
    obs, _ = env.reset(seed=RECORDING_SEEDS + 2_000)
    for row in range(len(dataset)):
        np.testing.assert_array_equal(dataset.obs[row], obs.astype(np.float32))
        obs, reward, terminated, truncated, _ = env.step(dataset.action[row])
        np.testing.assert_array_equal(dataset.next_obs[row], obs.astype(np.float32))
        assert dataset.reward[row] == np.float32(reward)
        last = row == len(dataset) - 1
        assert (dataset.terminated[row], dataset.truncated[row]) == (terminated, truncated or (last and not terminated))
        if terminated or truncated:
            obs, _ = env.reset()
    assert dataset.terminated.sum() > 5


def test_worlds_that_reset_in_the_same_call():
    dataset = record(open_policy("random", "probe-discount"), 41, name="probe")
    assert dataset.obs[:, 0].tolist() == [0, 1] * 20 + [0]
    assert dataset.next_obs[:, 0].tolist() == [1, 2] * 20 + [1], "not the first observation of the next episode"
    assert dataset.terminated.tolist() == [False, True] * 20 + [False]
    assert np.flatnonzero(dataset.truncated).tolist() == [40]


@pytest.mark.parametrize(("transitions", "seed"), [(1, 0), (10, -1), (10, 300_000)])
def test_impossible_recordings_are_refused(transitions: int, seed: int):
    with pytest.raises(RecordingError):
        record(lottery_source(), transitions, name="x", seed=seed)


# --- policies in npz files ---


def squashed(path: Path, kind: str, **changes: Any) -> Path:
    """Mean relu(x0 + x1) + 0.5, standard deviation 1e-6 (or what `changes` say)."""
    names = {"rlkit": ("fc0", "last_fc", "last_fc_log_std"), "sb3": ("latent_pi_0", "mu", "log_std")}[kind]
    layers = ((np.ones((1, 2)), np.zeros(1)), (np.ones((1, 1)), np.full(1, 0.5)), (np.zeros((1, 1)), np.full(1, -13.8)))
    arrays: dict[str, Any] = {}
    for name, (weight, bias) in zip(names, layers, strict=True):
        arrays |= {f"{name}_weight": weight.astype(np.float32), f"{name}_bias": bias.astype(np.float32)}
    if kind == "rlkit":
        arrays |= {"nonlinearity": "relu", "output_distribution": "tanh_gaussian"}
    np.savez(path, **{key: value for key, value in (arrays | changes).items() if value is not None})
    return path


@pytest.mark.parametrize("kind", ["rlkit", "sb3"])
def test_squashed_policies(tmp_path: Path, kind: str):
    obs = torch.tensor([[1.0, 2.0], [-3.0, 1.0]])
    expected = torch.tensor([[3.5], [0.5]]).tanh()
    policy = read_policy(squashed(tmp_path / "p.npz", kind))
    torch.testing.assert_close(policy.act(obs, explore=False), expected)
    torch.testing.assert_close(policy.act(obs, explore=True), expected, atol=1e-5, rtol=0)
    head = "last_fc_log_std_bias" if kind == "rlkit" else "log_std_bias"
    loud = read_policy(squashed(tmp_path / "q.npz", kind, **{head: np.full(1, 9.0, np.float32)}), seed=1)
    drawn = torch.atanh(loud.act(obs[1:].expand(4000, 2), explore=True).double().clamp(-0.9999, 0.9999))
    assert float(drawn.median()) == pytest.approx(0.5, abs=0.4)
    inside = (drawn.abs() < 4).double().mean()
    assert float(inside) == pytest.approx(0.41, abs=0.03), "the logarithm of the deviation is clamped at 2"


def test_other_nonlinearities_and_distributions(tmp_path: Path):
    policy = read_policy(squashed(tmp_path / "p.npz", "rlkit", nonlinearity="tanh", output_distribution="gaussian"))
    obs = torch.tensor([[1.0, 2.0], [-3.0, 1.0]])
    expected = torch.tensor([[1.0], [float(np.tanh(-2.0)) + 0.5]])
    torch.testing.assert_close(policy.act(obs, explore=False), expected)
    with pytest.raises(PolicyFileError, match="nonlinearity 'gelu'"):
        read_policy(squashed(tmp_path / "q.npz", "rlkit", nonlinearity="gelu"))


def trpo(path: Path, **changes: Any) -> Path:
    """Three snapshots: actions are tanh((x0 - 1) / 2) times 0, 1, 2."""
    weight = np.zeros((3, 2, 1), np.float32)
    weight[:, 0] = 1
    arrays = {
        "iteration": np.arange(3),
        "obs_mean": np.ones((3, 2), np.float32),
        "obs_std": np.full((3, 2), 2, np.float32),
        "log_std": np.full((3, 1), -14, np.float32),
        "W0": weight,
        "b0": np.zeros((3, 1), np.float32),
        "W_out": np.arange(3, dtype=np.float32).reshape(3, 1, 1),
        "b_out": np.zeros((3, 1), np.float32),
        "log_return": np.zeros(501),
        **changes,
    }
    np.savez(path, **arrays)
    return path


def test_snapshots(tmp_path: Path):
    path = trpo(tmp_path / "p.npz")
    obs = torch.tensor([[2.0, 9.0]])
    assert snapshots(path) == 3
    for number, factor in ((0, 0), (1, 1), (-1, 2)):
        action = read_policy(path, snapshot=number).act(obs, explore=False)
        assert float(action) == pytest.approx(factor * np.tanh(0.5), abs=1e-6)
    assert float(read_policy(path).act(torch.tensor([[9.0, 0.0]]), explore=False)) == 1.0, "clipped"
    with pytest.raises(PolicyFileError, match="holds the snapshots 0 to 2"):
        read_policy(path, snapshot=3)


def test_policies_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(PolicyFileError, match="there is no file"):
        read_policy(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", banana=np.ones(3))
    with pytest.raises(PolicyFileError, match="has the keys banana"):
        read_policy(tmp_path / "other.npz")
    with pytest.raises(PolicyFileError, match="do not fit each other"):
        read_policy(squashed(tmp_path / "shape.npz", "sb3", mu_weight=np.ones((1, 7), np.float32)))
    with pytest.raises(PolicyFileError, match="do not fit each other"):
        read_policy(squashed(tmp_path / "lost.npz", "sb3", mu_bias=None))
    np.save(tmp_path / "array.npy", np.ones(3))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:60])
    np.savez(tmp_path / "objects.npz", W0=np.array([object()]))
    for name in ("array.npy", "text.npz", "cut.npz", "objects.npz"):
        with pytest.raises(PolicyFileError, match="is no npz file of arrays"):
            read_policy(tmp_path / name)


# --- the command line ---


def test_record_writes_a_d4rl_file_with_its_origin(call: Call, tmp_path: Path):
    output = tmp_path / "new" / "lottery.hdf5"
    arguments = ("record", "random", "--task", "Lottery-v0", "--transitions", 50, "--seed", 7, "--output", output)
    status, out, err = call("make_dataset", *arguments)
    assert (status, err) == (0, ""), err
    assert out.startswith("lottery: 50 transitions in ")
    dataset = load(output)
    check_lottery(dataset, 50)
    with h5py.File(output) as file:
        assert set(file) == {
            "observations",
            "actions",
            "rewards",
            "next_observations",
            "terminals",
            "timeouts",
            "infos",
            "metadata",
        }
        assert np.asarray(file["terminals"]).dtype == np.asarray(file["timeouts"]).dtype == np.bool_
        origin = {key: file.attrs[key] for key in ("task", "source", "seed")}
        assert origin == {"task": "Lottery-v0", "source": "random", "seed": 7}
        assert "gymnasium" in json.loads(str(file.attrs["versions"]))
    before = output.read_bytes()
    assert call("make_dataset", *arguments)[::2] == (
        1,
        f"error: {output} is there already; name another file or add --overwrite.\n",
    )
    assert output.read_bytes() == before
    assert call("make_dataset", *arguments, "--overwrite")[0] == 0
    assert [file.name for file in output.parent.iterdir()] == ["lottery.hdf5"]


def test_record_a_run_and_all_snapshots(call: Call, tmp_path: Path):
    agent = SAC(actor=MLP(hidden=(16,)), critic=MLP(hidden=(16,)))
    run = Run("Lottery-v0", agent, "sac", execution=Execution(compile=False))
    folder = run.folder(tmp_path / "runs")
    plain.save(run, folder / "config.json")
    built = run.agent.build(envs.make(run.task, 1).spec, num_envs=1, total_updates=1, seed=0, execution=run.execution)
    checkpoint.save(folder / "checkpoints", 10, {"agent": built.state_dict()})
    output = tmp_path / "run.hdf5"
    status, _, err = call("make_dataset", "record", folder, "--transitions", 40, "--no-stochastic", "--output", output)
    assert status == 0, err
    dataset = load(output)
    check_lottery(dataset, 40)
    expected = built.act(torch.from_numpy(dataset.obs), explore=False).numpy()
    np.testing.assert_allclose(dataset.action, expected, atol=1e-5)
    assert call("make_dataset", "record", folder, "--transitions", 40, "--output", output, "--overwrite")[0] == 0
    assert np.abs(load(output).action - expected).max() > 0.01

    policy = trpo(tmp_path / "p.npz")
    status, _, err = call(
        "make_dataset",
        "record",
        policy,
        "--task",
        "Lottery-v0",
        "--transitions",
        31,
        "--all-snapshots",
        "--output",
        tmp_path / "s.h5",
    )
    assert status == 0, err
    recorded = load(tmp_path / "s.h5")
    assert len(recorded) == 31
    for number, rows in enumerate((slice(0, 10), slice(10, 20), slice(20, 31))):
        means = np.clip(number * np.tanh((recorded.obs[rows, 0] - 1) / 2), -1, 1)
        np.testing.assert_allclose(recorded.action[rows, 0], means, atol=1e-4)


def test_record_mistakes_are_one_sentence_and_leave_nothing(call: Call, tmp_path: Path):
    policy = squashed(tmp_path / "p.npz", "sb3")
    folder = tmp_path / "out"
    folder.mkdir()
    for arguments, message in (
        (("random", "--output", folder / "x.hdf5"), "does not say in which worlds it acts"),
        (("random", "--task", "Lottery-v0", "--output", folder / "x.pkl"), "does not end in .hdf5 or .h5"),
        (("nothing", "--task", "Lottery-v0", "--output", folder / "x.hdf5"), "there is no file nothing"),
        ((policy, "--task", "Pendulum-v1", "--output", folder / "x.hdf5"), "takes 2 observations and gives 1 actions"),
        (("random", "--task", "Lotery-v0", "--output", folder / "x.hdf5"), "there is no task 'Lotery-v0'"),
        ((tmp_path, "--output", folder / "x.hdf5"), "config.json does not exist"),
        (("random", "--task", "Lottery-v0", "--output", policy / "x.hdf5"), "cannot be written"),
    ):
        status, out, err = call("make_dataset", "record", *arguments, "--transitions", 10)
        assert (status, out) == (1, "")
        assert message in err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
    assert list(folder.iterdir()) == []


def line(lengths: list[int], reward: float, name: str) -> Dataset:
    rows, ends = sum(lengths), np.cumsum(lengths) - 1
    truncated = np.zeros(rows, bool)
    truncated[ends] = True
    zeros, rewards = np.zeros((rows, 2), np.float32), np.full(rows, reward, np.float32)
    returns = reward * np.array(lengths, np.float64)
    return Dataset(name, "Hopper-v4", zeros, zeros, rewards, zeros, zeros, np.zeros(rows, bool), truncated, returns)


def test_mix_by_the_command_line(call: Call, tmp_path: Path):
    good = write_hdf5(tmp_path / "good.hdf5", line([20] * 30, 1.0, "good"))
    bad = write_hdf5(tmp_path / "bad.hdf5", line([3] * 50, 0.0, "bad"))
    output = tmp_path / "mixed.hdf5"
    status, out, err = call("make_dataset", "mix", good, bad, "--ratio", 0.05, "--seed", 4, "--output", output)
    assert status == 0, err
    mixed = load(output)
    assert int(mixed.reward.sum()) == 40, "30 is 5 % of 600, so two trajectories of 20"
    assert 600 <= len(mixed) < 603
    assert [text.split(":")[0] for text in out.splitlines()] == ["good", "bad", "good+bad-0.05", str(output)]
    with h5py.File(output) as file:
        assert (file.attrs["ratio"], file.attrs["seed"]) == (0.05, 4)
    status, _, err = call("make_dataset", "mix", good, bad, "--ratio", 2, "--output", tmp_path / "no.hdf5")
    assert (status, (tmp_path / "no.hdf5").exists()) == (1, False)
    assert "the ratio is 2" in err


def test_inspect_says_what_there_is_and_draws(call: Call, load: Callable[[str], Any], tmp_path: Path):
    path = write_hdf5(tmp_path / "x.hdf5", line([10, 20, 30, 100], 2.0, "four"))
    figure = tmp_path / "new" / "x.png"
    status, out, err = call("make_dataset", "inspect", path, "--figure", figure)
    assert status == 0, err
    lines = dict(text.split(maxsplit=1) for text in out.splitlines())
    assert lines["four:"].startswith("160 transitions in 4 episodes, return 80.0 (20.0 to 200.0)")
    assert lines["returns"] == "mean 80.0, min 20.0, quartiles 35.0 / 50.0 / 95.0, max 200.0"
    assert lines["lengths"] == "mean 40.0, 10 to 100"
    assert out.count("0 terminated, 4 truncated") == 1
    assert lines["RPSV"] == "3,600", "the mean of 0, 0, 0 and 120 squared"
    assert lines["normalised"].startswith("3.1 ")
    assert "-v4 worlds" in lines["note"]
    picture = imageio.imread(figure)
    assert picture.shape[0] > 300
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 20
    assert load("make_dataset").positive_variance(np.array([5.0])) == 0
    status, _, err = call("make_dataset", "inspect", path, "--figure", tmp_path / "x.bmp")
    assert (status, "does not end in .png" in err) == (1, True)


def test_a_rare_good_episode_is_seen_in_the_picture(call: Call, tmp_path: Path):
    path, figure = write_hdf5(tmp_path / "x.hdf5", line([1] * 2000 + [100], 1.0, "rare")), tmp_path / "x.png"
    status, _, err = call("make_dataset", "inspect", path, "--figure", figure)
    assert status == 0, err
    picture = imageio.imread(figure)[..., :3].astype(int)
    blue = (picture[..., 2] - picture[..., 0] > 100).sum(axis=0)
    assert blue[: len(blue) // 2].max() > 200, "the bar of the many, as high as the axes"
    assert blue[int(0.9 * len(blue)) :].max() >= 10, "the mark of the one, whose bar is lower than a pixel"


def test_inspect_of_nonsense_is_one_sentence(call: Call, tmp_path: Path):
    (tmp_path / "x.hdf5").write_bytes(b"\x80\x04pickle")
    for source in ("hopper-medum-v2", tmp_path / "x.hdf5", tmp_path / "none.hdf5", tmp_path):
        status, out, err = call("make_dataset", "inspect", source)
        assert (status, out, err.count("\n")) in ((1, "", 1),), err
