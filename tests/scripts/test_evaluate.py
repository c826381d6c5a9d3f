"""Evaluation and export from a run folder alone, by their command lines."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import pytest
import torch

from steelyard import envs
from steelyard.agents.agent import Execution
from steelyard.agents.networks import MLP
from steelyard.agents.networks.normalizers import RunningNorm
from steelyard.agents.sac import SAC
from steelyard.trainers import checkpoint, plain
from steelyard.trainers.config import Run
from steelyard.trainers.evaluation import FRESH_SEEDS, evaluate

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of cartpole-swingup with a last checkpoint, whose normaliser has seen something, and a different best one."""
    agent = SAC(actor=MLP(hidden=(16,)), critic=MLP(hidden=(16,)), observations=RunningNorm())
    run = Run("cartpole-swingup", agent, "sac", seed=3, action_repeat=50, execution=Execution(compile=False))
    folder = run.folder(tmp_path_factory.mktemp("runs"))
    plain.save(run, folder / "config.json")
    spec = envs.make(run.task, 1, action_repeat=run.action_repeat).spec
    built = run.agent.build(spec, num_envs=1, total_updates=1, seed=0, execution=run.execution)
    checkpoint.save_best(folder / "checkpoints", 500, {"agent": built.state_dict()})
    built.normalizer.get_submodule("statistics").get_buffer("mean").add_(0.5)
    checkpoint.save(folder / "checkpoints", 1000, {"agent": built.state_dict()})
    return folder


def evaluate_json(call: Call, folder: Path, *arguments: str) -> dict[str, Any]:
    status, out, err = call("evaluate", folder, "--json", *arguments)
    assert status == 0, err
    return json.loads(out)


def test_the_last_checkpoint_is_scored_on_fresh_episodes(call: Call, folder: Path) -> None:
    found = evaluate_json(call, folder, "--episodes", "3", "--no-video")
    run = plain.load(folder / "config.json")
    env = envs.make(run.task, 3, action_repeat=50)
    agent = run.agent.build(env.spec, num_envs=1, total_updates=1, seed=9, execution=run.execution)
    agent.load_state_dict(torch.load(folder / "checkpoints/step_1000/agent.pt", weights_only=True)["state"]["agent"])
    scores = evaluate(agent, env, 3, FRESH_SEEDS + 3)
    assert found["returns"] == pytest.approx(list(scores.returns))
    assert found["return"] == pytest.approx(scores.mean)
    assert found["interval_95"] == pytest.approx(list(scores.interval))
    assert (found["env_steps"], found["lengths"], found["training_seed"]) == (1000, [20, 20, 20], 3)
    assert found["video"] is None


def test_the_best_checkpoint_with_a_video(call: Call, folder: Path) -> None:
    found = evaluate_json(call, folder, "--episodes", "1", "--checkpoint", "best", "--seed", "0")
    last = evaluate_json(call, folder, "--episodes", "1", "--no-video", "--seed", "0")
    assert found["env_steps"] == 500
    assert found["return"] != last["return"]
    assert found["interval_95"] == [None, None]
    if found["video"] is None:
        pytest.skip("this machine has no OpenGL")
    assert len(imageio.imread(found["video"], plugin="FFMPEG")) == 20


def test_it_prints_sentences(call: Call, folder: Path) -> None:
    _, out, _ = call("evaluate", folder, "--no-video", "--episodes", "2")
    first, second = out.splitlines()
    assert first == "cartpole-swingup, sac, seed 3, after 1,000 env steps"
    assert second.startswith("return ")
    assert "95 % interval [" in second
    assert second.endswith("over 2 episodes of 20 decisions")


def test_no_run_and_no_checkpoint_are_one_sentence(call: Call, folder: Path, tmp_path: Path) -> None:
    status, _, err = call("evaluate", tmp_path / "nowhere")
    assert status == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    status, _, err = call("evaluate", tmp_path)
    assert status == 1
    assert "has no last checkpoint yet" in err
    status, out, err = call("evaluate", tmp_path, "--episode", "3")
    assert status != 0
    assert "--episodes" in out + err


def test_export_writes_and_checks_both_files(call: Call, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    status, out, err = call("export", folder, "--out", tmp_path)
    assert (status, err) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy.onnx", "policy.pt2"]
    assert out.count("largest difference from the agent on 1,000 observations") == 2
    import onnxruntime

    notes = onnxruntime.InferenceSession(tmp_path / "policy.onnx").get_modelmeta().custom_metadata_map
    assert (notes["task"], notes["env_steps"], notes["action_repeat"]) == ("cartpole-swingup", "1000", "50")
