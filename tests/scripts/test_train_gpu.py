"""`train_gpu.py` as a user meets it: a debug run in real worlds, its score on both simulators, and mistakes."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

Call = Callable[..., tuple[int, str, str]]
needs_warp = pytest.mark.skipif(importlib.util.find_spec("mujoco_warp") is None, reason="needs the extra gpu")


def sentence(err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    return lines[0]


@needs_warp
def test_what_critics_alone_saw_is_not_needed_to_act(call: Call, tmp_path: Path) -> None:
    """A run whose critics see the factors of its worlds is evaluated, resumed and exported without them."""
    arguments = ("train_gpu", "fast-td3", "--task", "cartpole-swingup", "--debug", "--device", "cpu", "--root", str(tmp_path))
    arguments += ("--action-repeat", "8", "randomization:randomization", "--randomization.mass", "0.8", "1.2")
    for seen in ("--randomization.shown", "--randomization.shown"):
        status, out, err = call(*arguments, seen)
        assert status == 0, err
    folder = Path(out.splitlines()[-1])
    for vectorization in ("warp", "sync"):
        status, out, err = call("evaluate", folder, "--json", "--no-video", "--episodes", "2", "--vectorization", vectorization)
        assert status == 0, err
        assert json.loads(out)["lengths"] == [125, 125]
    status, out, err = call("export", folder, "--formats", "pt2")
    assert status == 0, err
    policy = torch.export.load(folder / "export" / "policy.pt2").module()
    assert policy(torch.zeros(7, 5)).shape == (7, 1)
    status, _, err = call(*arguments)
    assert status == 1
    assert "randomization.shown" in sentence(err)


@needs_warp
def test_a_debug_run_is_trained_and_scored_on_both_simulators(call: Call, tmp_path: Path) -> None:
    arguments = ("train_gpu", "fast-sac", "--task", "cartpole-swingup", "--debug", "--device", "cpu", "--root", str(tmp_path))
    status, out, err = call(
        *arguments, "--action-repeat", "8", "randomization:randomization", "--randomization.mass", "0.8", "1.2"
    )
    assert status == 0, err
    folder = Path(out.splitlines()[-1])
    assert folder == tmp_path / "cartpole-swingup" / "fast-sac-debug" / "seed_0"
    assert "on the published simulator" in out
    scores = {}
    for vectorization in ("warp", "sync"):
        status, out, err = call("evaluate", folder, "--json", "--no-video", "--episodes", "2", "--vectorization", vectorization)
        assert status == 0, err
        found = json.loads(out)
        assert (found["vectorization"], found["lengths"]) == (vectorization, [125, 125])
        scores[vectorization] = found["return"]
    assert scores["warp"] != scores["sync"]  # starts are drawn in other ways
    assert scores["warp"] == pytest.approx(scores["sync"], abs=60)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--actors", "2"), "actors are given"),
        (("--distractors", "5"), "distractors are given"),
        (("--capacity", "1000"), "capacity is 1,000"),
        (("--num-envs", "0"), "num_envs is 0"),
        (("--schedule.updates", "0"), "give a positive number"),
        (("--vectorization", "sync", "randomization:randomization"), "randomization is given"),
        (("--agent.exploration.low", "2"), "give two numbers"),
        (("randomization:randomization", "--randomization.mass", "0", "1"), "nothing moves without mass"),
    ],
)
def test_mistakes_are_one_sentence(arguments: tuple[str, ...], words: str, call: Call, tmp_path: Path) -> None:
    status, _, err = call("train_gpu", "fast-td3", "--root", str(tmp_path), *arguments)
    assert status == 1
    assert words in sentence(err)
    assert not list(tmp_path.iterdir())


@needs_warp
def test_a_task_that_is_not_stepped_there_is_named(call: Call, tmp_path: Path) -> None:
    status, _, err = call(
        "train_gpu", "fast-td3-small", "--task", "Pendulum-v1", "--debug", "--device", "cpu", "--root", str(tmp_path)
    )
    assert status == 1
    assert "Pendulum-v1" in sentence(err)
    assert not list(tmp_path.rglob("*.csv"))
