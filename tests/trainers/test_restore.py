"""An agent from a run folder alone, whatever collected for it."""

import dataclasses
from pathlib import Path

import torch

from steelyard.agents.agent import Execution
from steelyard.agents.types import Spec, Step
from steelyard.trainers import checkpoint, presets, shrinking
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.builders import build_buffer
from steelyard.trainers.model_presets import MODELS
from steelyard.trainers.restore import restore

SPEC = Spec(obs_size=3, action_size=1, horizon=200)


def test_a_run_with_statistics_of_each_actors_worlds_is_restored(tmp_path: Path) -> None:
    run = dataclasses.replace(shrinking.debug(presets.MUJOCO["simba-v2"]), actors=2, num_envs=3)
    agent = run.agent.build(SPEC, num_envs=6, total_updates=run.total_updates, seed=1, execution=run.execution)
    checkpoint.save(tmp_path / "checkpoints", 40, {"agent": agent.state_dict()})
    restored, steps = restore(tmp_path, run, SPEC)
    obs = torch.randn(5, 3)
    assert steps == 40
    assert torch.equal(restored.act(obs, explore=False), agent.act(obs, explore=False))


def test_an_agent_of_a_gpu_is_restored_on_a_cpu(tmp_path: Path) -> None:
    """Its generators have states of another kind, those of its model too."""
    run = dataclasses.replace(shrinking.debug(MODELS["mbpo-hopper"]), execution=Execution(compile=False))
    spec = Spec(obs_size=11, action_size=3, horizon=1000)
    agent = run.agent.build(spec, num_envs=1, total_updates=run.total_updates, seed=1, execution=run.execution)
    state = agent.state_dict()
    for name, extra in state.items():
        if isinstance(extra, dict):
            for key in agent.generators:
                extra[key] = torch.zeros(16, dtype=torch.uint8)
        elif extra.dtype == torch.uint8:
            state[name] = torch.zeros(16, dtype=torch.uint8)
    changed = sum(value.numel() == 16 for value in state.values() if not isinstance(value, dict) and value.dtype == torch.uint8)
    checkpoint.save(tmp_path / "checkpoints", 40, {"agent": state})
    restored, _ = restore(tmp_path, run, spec)
    obs = torch.randn(5, 11)
    assert changed == 1
    assert torch.equal(restored.act(obs, explore=False), agent.act(obs, explore=False))


def test_replay_has_room_for_every_transition_of_a_run_of_short_episodes() -> None:
    """Worlds that are reset by a call of their own spend a row on it, here one for each transition."""
    run = dataclasses.replace(shrinking.debug(presets.MUJOCO["sac"]), env_steps=60, random_steps=10, num_envs=3)
    buffer: ReplayBuffer = build_buffer(run, SPEC, 3)
    yes, no = torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)
    for step in range(20):
        obs = torch.full((3, 3), float(step))
        buffer.add(obs, torch.zeros(3, 1), Step(obs + 0.5, obs + 0.5, torch.full((3,), float(step)), yes, no, yes, {}))
        buffer.add(obs + 0.5, torch.zeros(3, 1), Step(obs + 1, obs + 1, torch.zeros(3), no, no, no, {}))
    batch = buffer.gather(buffer.valid.nonzero().flatten())
    assert int(buffer.filled().sum()) == 120
    assert sorted(batch.reward.tolist()) == [float(step) for step in range(20) for _ in range(3)]
