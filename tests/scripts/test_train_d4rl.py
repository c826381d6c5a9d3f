"""Training from data as a user meets it: help, mistakes, and a debug run through both phases."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from steelyard.envs.datasets import Dataset, write_hdf5
from steelyard.trainers.d4rl_presets import D4RL

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight episodes of thirty random steps, said to be of Hopper."""
    random, count, length = np.random.default_rng(0), 8, 30
    walks = random.normal(size=(count, length + 1, 11)).astype(np.float32)
    action = random.uniform(-0.9, 0.9, (count * length, 3)).astype(np.float32)
    reward = random.uniform(0, 1, (count, length)).astype(np.float32)
    dataset = Dataset(
        name="mine",
        task="Hopper-v4",
        obs=walks[:, :-1].reshape(-1, 11),
        action=action,
        reward=reward.flatten(),
        next_obs=walks[:, 1:].reshape(-1, 11),
        next_action=np.concatenate((action[1:], action[-1:])),
        terminated=np.zeros(count * length, bool),
        truncated=np.arange(count * length) % length == length - 1,
        returns=reward.sum(1, dtype=np.float64),
    )
    return write_hdf5(tmp_path_factory.mktemp("data") / "mine.hdf5", dataset)


def sentence(err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    return lines[0]


def test_help_lists_every_preset(call: Call) -> None:
    status, out, _ = call("train_d4rl", "--help")
    assert status == 0
    assert "Train from D4RL, Minari or own data" in out
    assert all(f"• {name}" in out for name in D4RL)


def test_help_of_a_preset_explains_its_options(call: Call) -> None:
    status, out, _ = call("train_d4rl", "iql-antmaze", "--help")
    assert status == 0
    words = " ".join(out.replace("│", " ").split())
    assert "iql-antmaze [-h]" in words
    assert "--agent.expectile FLOAT tau of the expectile" in words
    assert "(default: 0.9)" in words
    assert "--offline-updates INT Updates from the data set before the first environment step. (default: 1000000)" in words
    assert "--frozen-steps INT" in words
    assert "--root PATH" in words
    assert "replay:mixed" in words
    assert "sampler:trajectory-weighted" in words


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("iql-locomtion", "iql-locomotion"), ("wrsl-antmaze", "wsrl-antmaze"), ("iqlantmaze", "iql-antmaze")],
)
def test_a_mistyped_preset_gets_a_suggestion(call: Call, typo: str, meant: str) -> None:
    status, _, err = call("train_d4rl", "--debug", typo, "--seed", "3")
    assert status == 1
    assert f"there is no preset '{typo}'; did you mean {meant}" in sentence(err)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("--agent.expectil", "--agent.expectile"), ("--offline-update", "--offline-updates"), ("--datset", "--dataset")],
)
def test_a_mistyped_option_gets_a_suggestion(call: Call, typo: str, meant: str) -> None:
    status, out, err = call("train_d4rl", "iql-locomotion", typo, "0.8")
    assert status == 2
    words = out + err
    assert meant in words[words.index("Perhaps you meant") :]


def test_a_mistyped_slot_names_those_there_are(call: Call) -> None:
    status, out, err = call("train_d4rl", "iql-locomotion", "replay:mxied")
    assert status == 2
    assert "replay:mixed" in out + err


def test_a_mistyped_data_set_gets_a_suggestion_and_leaves_nothing(call: Call, tmp_path: Path) -> None:
    status, _, err = call("train_d4rl", "iql-locomotion", "--dataset", "hoper-medium-v2", "--debug", "--root", tmp_path)
    assert status == 1
    assert "did you mean hopper-medium-v2" in sentence(err)
    assert not list(tmp_path.rglob("*"))


def test_rebrac_on_own_data_asks_for_its_weights(call: Call, data: Path, tmp_path: Path) -> None:
    status, _, err = call("train_d4rl", "rebrac-locomotion", "--dataset", data, "--debug", "--root", tmp_path)
    assert status == 1
    assert "--agent.cloning.actor and --agent.cloning.critic" in sentence(err)


def test_both_phases_on_own_data_and_a_second_command_continues(call: Call, data: Path, tmp_path: Path) -> None:
    """Options may stand before the preset, slots are swapped behind it, and the task comes from the file."""
    arguments = ("train_d4rl", "--debug", "--root", tmp_path, "iql-famo2o-locomotion", "--dataset", data, "--env-steps", "60")
    slots = ("replay:mixed", "--replay.share", "0.25")
    status, out, err = call(*arguments, *slots)
    assert status == 0, err
    folder = tmp_path / "Hopper-v4" / "iql-famo2o-locomotion-debug" / "seed_0"
    assert out.splitlines()[-1] == str(folder)
    assert "newer" in out  # scores in Gymnasium's -v4 worlds are not exactly D4RL's
    written = json.loads((folder / "config.json").read_text())
    assert (written["class"], written["task"], written["dataset"]) == ("Transfer", "Hopper-v4", str(data))
    assert (written["replay"], written["env_steps"]) == ({"class": "Mixed", "share": 0.25}, 60)
    with (folder / "eval.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["eval/normalized"]) == pytest.approx((float(last["eval/return"]) + 20.272305) / (3234.3 + 20.272305) * 100)
    before = (folder / "train.csv").read_text()
    assert before.splitlines()[0].startswith("steps,updates,")
    assert call(*arguments, *slots)[0] == 0
    assert (folder / "train.csv").read_text() == before


def test_wsrls_draw_of_critics_is_an_option(call: Call, data: Path, tmp_path: Path) -> None:
    arguments = ("train_d4rl", "--debug", "--root", tmp_path, "wsrl-kitchen", "--dataset", data, "--env-steps", "70")
    arguments += ("--offline-updates", "5", "--evaluation-interval", "80")
    written = tmp_path / "Hopper-v4" / "wsrl-kitchen-debug" / "seed_0" / "config.json"
    for options, drawn in (((), "independent"), (("--agent.target-draw", "distinct", "--fresh"), "distinct")):
        status, _, err = call(*arguments, *options)
        assert status == 0, err
        assert json.loads(written.read_text())["agent"]["target_draw"] == drawn
    status, out, err = call(*arguments, "--agent.target-draw", "twice")
    assert status == 2
    assert "--agent.target-draw" in out + err


@pytest.mark.filterwarnings("ignore")  # Minari remarks on everything that a small data set leaves out
def test_dqn_learns_from_what_minari_collected(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both phases, on episodes of random actions that Minari wrote; agents for real numbers refuse them."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    world, episodes = gym.make("CartPole-v1"), []
    world.action_space.seed(0)
    for seed in range(8):
        rows: list[Any] = []
        observations = [world.reset(seed=seed)[0]]
        while not rows or not any(rows[-1][2:4]):
            action = world.action_space.sample()
            following, *outcome, _ = world.step(action)
            observations.append(following)
            rows.append((action, *outcome))
        actions, rewards, terminations, truncations = (list(column) for column in zip(*rows, strict=True))
        seen: Any = np.stack(observations)
        episodes.append(EpisodeBuffer(None, None, None, seen, actions, rewards, terminations, truncations, {}))
    minari.create_dataset_from_buffers(
        "mine/cartpole-v0",
        episodes,
        env="CartPole-v1",
        algorithm_name="random",
        author="test",
        author_email="test@example.org",
        code_permalink="none",
    )
    arguments = ("--debug", "--root", tmp_path / "runs", "--dataset", "minari:mine/cartpole-v0")
    for preset, env_steps in (("dqn", "100"), ("m-dqn", "0")):
        status, out, err = call("train_d4rl", preset, *arguments, "--env-steps", env_steps)
        assert status == 0, err
        folder = tmp_path / "runs" / "CartPole-v1" / f"{preset}-debug" / "seed_0"
        assert out.splitlines()[-1] == str(folder)
        with (folder / "eval.csv").open() as file:
            last = list(csv.DictReader(file))[-1]
        assert float(last["eval/return"]) >= 8
        assert int(last["env_steps"]) == int(env_steps)
    status, _, err = call("train_d4rl", "iql-locomotion", *arguments)
    assert status == 1
    assert "use a DQN preset" in sentence(err)
