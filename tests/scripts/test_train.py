"""Training scripts as a user meets them: options, mistakes, and what a debug run leaves."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

Call = Callable[..., tuple[int, str, str]]


def sentence(err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    return lines[0]


def test_debug_run_leaves_everything_and_resumes(call: Call, tmp_path: Path) -> None:
    arguments = ("train_mujoco", "simba-v2", "--task", "Hopper-v5", "--debug", "--env-steps", "150", "--root", str(tmp_path))
    status, out, _ = call(*arguments)
    folder = tmp_path / "Hopper-v5" / "simba-v2-debug" / "seed_0"
    assert status == 0
    assert out.splitlines()[-1] == str(folder)
    found = {path.name for path in folder.iterdir()}
    assert {"config.json", "train.csv", "eval.csv", "run.json", "tb", "checkpoints"} <= found
    before = (folder / "train.csv").read_text()
    assert call(*arguments)[0] == 0
    assert (folder / "train.csv").read_text() == before


def test_a_slot_is_swapped_on_the_command_line(call: Call, tmp_path: Path) -> None:
    status, _, err = call(
        "train_dmc",
        "sac",
        "--task",
        "cartpole-swingup",
        "--debug",
        "--env-steps",
        "250",
        "--root",
        str(tmp_path),
        "agent.critic:simba-v2",
        "agent.head:categorical",
    )
    assert status == 0, err
    written = (tmp_path / "cartpole-swingup" / "sac-debug" / "seed_0" / "config.json").read_text()
    assert '"class": "SimbaV2"' in written
    assert '"class": "Categorical"' in written


def test_actors_in_other_processes(call: Call, tmp_path: Path) -> None:
    status, _, err = call("train_mujoco", "td3", "--task", "Hopper-v5", "--debug", "--actors", "2", "--root", str(tmp_path))
    assert status == 0, err
    rows = (tmp_path / "Hopper-v5" / "td3-debug" / "seed_0" / "train.csv").read_text().splitlines()
    assert rows[-1].startswith("300,200,")  # 300 transitions, of which 100 were random, one update for each of the others


def test_unknown_task_gets_a_suggestion(call: Call, tmp_path: Path) -> None:
    status, _, err = call("train_mujoco", "sac", "--task", "HalfCheeta-v5", "--debug", "--root", str(tmp_path))
    assert status == 1
    assert "HalfCheetah-v5" in sentence(err)
    assert not list(tmp_path.rglob("*.csv"))


def test_mistyped_option_gets_a_suggestion(call: Call) -> None:
    status, out, err = call("train_mujoco", "sac", "--tsk", "Hopper-v5")
    assert status == 2
    assert "--task" in out + err


@pytest.mark.parametrize("option", [("--num-envs", "0"), ("--agent.critics", "0"), ("--schedule.ratio", "-1")])
def test_impossible_numbers_are_refused(call: Call, tmp_path: Path, option: tuple[str, str]) -> None:
    status, _, err = call("train_mujoco", "sac", "--debug", "--root", str(tmp_path), *option)
    assert status == 1
    assert option[0].split(".")[-1].lstrip("-").replace("-", "_") in sentence(err)


def test_corrupt_checkpoint_is_refused(call: Call, tmp_path: Path) -> None:
    arguments = ("train_mujoco", "sac", "--task", "Hopper-v5", "--debug", "--env-steps", "120", "--root", str(tmp_path))
    assert call(*arguments)[0] == 0
    (agent,) = tmp_path.rglob("step_*/agent.pt")
    agent.write_bytes(agent.read_bytes()[:-1000])
    status, _, err = call(*arguments)
    assert status == 1
    assert str(agent) in sentence(err)


def test_a_model_without_data_names_the_option_and_its_hold_out_may_be_without_limit(call: Call, tmp_path: Path) -> None:
    arguments = ("train_models", "vagram-pendulum", "--debug", "--random-steps", "0", "--root", str(tmp_path))
    status, _, err = call(*arguments, "--agent.model.holdout-limit", "None", "--agent.model.holdout", "0.3")
    assert status == 1
    assert "fitted to 1 transition and needs 5; collect more before the first update with --random-steps" in sentence(err)
    model = json.loads(next(tmp_path.rglob("config.json")).read_text())["agent"]["model"]
    assert (model["holdout"], model["holdout_limit"]) == (0.3, None)


def test_a_gpu_that_is_missing_is_named(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, _, err = call("train_mujoco", "sac", "--task", "Hopper-v5", "--debug", "--device", "cuda", "--root", str(tmp_path))
    assert status == 1
    assert "--device cpu" in sentence(err)


@pytest.mark.skipif(os.environ.get("MUJOCO_GL") == "disabled", reason="no OpenGL library on this machine")
def test_training_from_pixels(call: Call, tmp_path: Path) -> None:
    arguments = ("train_pixels", "drq-v2-easy", "--debug", "--pictures.size", "20", "--pictures.rendering", "fast")
    arguments += ("--task", "reacher-easy", "--action-repeat", "50", "--env-steps", "6000", "--pictures.stack", "2")
    status, out, err = call(*arguments, "--root", str(tmp_path))
    assert status == 0, err
    assert "pictures: 20 x 20, 2 frames, fast rendering" in out
    assert "(one 1,200-byte frame each)" in out
    status, _, err = call(*arguments, "--root", str(tmp_path), "--task", "minatar-breakout", "--fresh")
    assert status == 1
    assert "MinAtar's games have no pictures" in sentence(err)
