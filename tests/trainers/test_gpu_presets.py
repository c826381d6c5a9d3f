"""Recipes for thousands of worlds: what their sources say, what a debug run leaves, and that small forms of them learn."""

import dataclasses
import importlib.util
import runpy
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from steelyard.agents.agent import Execution
from steelyard.agents.networks import MLP, SimbaV2
from steelyard.agents.networks.exploration import HeldNoise, NoiseRange
from steelyard.agents.networks.policies import Gaussian
from steelyard.agents.optimizer import Adam
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.trainers.evaluation import evaluate
from steelyard.trainers.gpu_presets import GPU
from steelyard.trainers.online import Online, train
from steelyard.trainers.resident_collector import ResidentCollector
from steelyard.trainers.schedules import PerStep
from steelyard.trainers.shrinking import debug
from steelyard.trainers.tables import read_columns

Drift: Any = runpy.run_path(str(Path(__file__).with_name("resident_worlds.py")))["Drift"]


def test_fast_td3_has_its_defaults() -> None:
    run, agent = GPU["fast-td3"], GPU["fast-td3"].agent
    assert isinstance(agent, TD3)
    assert isinstance(agent.actor, MLP)
    assert isinstance(agent.critic, MLP)
    assert (agent.actor.hidden, agent.critic.hidden) == ((512, 256, 128), (1024, 512, 256))
    assert (agent.exploration, agent.exploration_noise) == (NoiseRange(0.001, 0.4), 1.0)
    assert (agent.batch_size, agent.target_rate, agent.policy_delay, agent.discount) == (32_768, 0.1, 2, 0.99)
    assert (agent.target_noise, agent.target_noise_clip, agent.target_value, agent.policy_value) == (
        0.001,
        0.5,
        "lowest",
        "lowest",
    )
    assert agent.optimizer == Adam(3e-4, weight_decay=0.1)
    assert (run.num_envs, run.schedule, run.capacity) == (1_024, PerStep(2.0), 1_024 * 10_240)


def test_fast_sac_has_what_holosoma_documents() -> None:
    run, agent = GPU["fast-sac"], GPU["fast-sac"].agent
    assert isinstance(agent, SAC)
    assert agent.actor == MLP((512, 256, 128), layer_norm=True, activation="silu")
    assert agent.critic == MLP((768, 384, 192), layer_norm=True, activation="silu")
    assert (agent.target_value, agent.policy_value, agent.policy_delay) == ("own", "mean", 4)
    assert (agent.batch_size, agent.target_rate, agent.discount) == (8_192, 0.125, 0.97)
    assert agent.policy == Gaussian(low=-5.0, high=0.0, bound="tanh")
    assert (agent.initial_temperature, agent.entropy_per_action) == (0.001, 0.0)
    assert agent.optimizer == Adam(3e-4, first_decay=0.9, second_decay=0.95, weight_decay=1e-3)
    assert (run.num_envs, run.schedule, run.capacity) == (4_096, PerStep(8.0), 4_096 * 1_024)


def test_flash_sac_has_its_setting_for_gpus() -> None:
    run, agent = GPU["flash-sac"], GPU["flash-sac"].agent
    assert isinstance(agent, SAC)
    assert (agent.actor, agent.critic) == (SimbaV2(128, 2), SimbaV2(256, 2))
    assert (agent.batch_size, agent.n_step, agent.target_rate, agent.policy_delay) == (2_048, 3, 0.01, 2)
    assert (agent.exploration, agent.initial_temperature, agent.entropy_per_action) == (HeldNoise(2.0, 16), 0.01, -0.478)
    assert agent.optimizer == Adam(3e-4, 1.5e-4, decay="cosine")
    assert (run.num_envs, run.schedule, run.random_steps) == (1_024, PerStep(2.0), 100_000)


@pytest.mark.parametrize("run", GPU.values(), ids=GPU)
def test_every_recipe_lives_on_the_device_and_counts_updates_per_step_of_all_worlds(run: Any) -> None:
    assert run.resident
    assert isinstance(run.schedule, PerStep)
    transitions = run.env_steps // run.action_repeat - run.random_steps
    assert run.total_updates == int(transitions * run.schedule.updates / run.num_envs)
    assert debug(run).num_envs == 16
    assert debug(dataclasses.replace(run, num_envs=4)).num_envs == 4


@pytest.mark.parametrize("name", ["fast-td3", "fast-sac", "flash-sac"])
def test_small_forms_learn(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A point is to be brought to the origin; what a policy that knows the rules reaches is known."""
    monkeypatch.setattr("steelyard.trainers.builders.envs.make", lambda task, num_envs, **options: Drift(num_envs))
    recipe: Any = GPU[name].agent
    networks: Any = (
        {"actor": SimbaV2(32, 1), "critic": SimbaV2(32, 1)}
        if name == "flash-sac"
        else {"actor": dataclasses.replace(recipe.actor, hidden=(64, 64)), "critic": MLP((64, 64), layer_norm=True)}
    )
    # Episodes are short and cut: values stay within the critic's support only for a short sight.
    changes: Any = {"batch_size": 128, "target_rate": 0.05, "policy_delay": 2, "discount": 0.8, "optimizer": Adam(1e-3)}
    agent: Any = dataclasses.replace(recipe, **networks, **changes)
    run = dataclasses.replace(
        GPU[name],
        task="drift",
        agent=agent,
        num_envs=32,
        env_steps=32 * 330,
        random_steps=32 * 30,
        capacity=32 * 400,
        schedule=PerStep(2.0),
        evaluation_episodes=32,
        evaluation_interval=10**6,
        transfer_episodes=0,
        log_interval=32 * 100,
        checkpoint_interval=10**6,
        threads=1,
        device="cpu",
        execution=Execution(compile=False),
        log_to=(),
    )
    loop = Online(run, tmp_path)

    class Knowing:
        device = torch.device("cpu")

        def act(self, obs: torch.Tensor, explore: bool) -> torch.Tensor:
            return (-obs[:, :2] / 0.3).clamp(-1, 1)

    best = evaluate(Knowing(), Drift(32), 32, 0).mean
    before = evaluate(loop.agent, Drift(32), 32, 0).mean
    while loop.env_steps < run.env_steps:
        loop.step()
    after = evaluate(loop.agent, Drift(32), 32, 0).mean
    assert loop.agent.update_count == 600
    assert after > best - 0.12 * (best - before), (before, after, best)


@pytest.mark.skipif(importlib.util.find_spec("mujoco_warp") is None, reason="needs the extra gpu")
def test_stopped_and_resumed_in_real_worlds_equals_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = dataclasses.replace(debug(GPU["fast-td3-small"]), device="cpu", log_to=(), num_envs=4, evaluation_interval=600)
    collect, calls = ResidentCollector.collect, [0]

    def collect_and_signal(self: ResidentCollector) -> int:
        calls[0] += 1
        if calls[0] == 50:
            signal.raise_signal(signal.SIGTERM)
        return collect(self)

    whole = train(run, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(ResidentCollector, "collect", collect_and_signal)
        with pytest.raises(KeyboardInterrupt):
            train(run, tmp_path / "parts")
    parts = train(run, tmp_path / "parts")
    one, other = Online(run, whole), Online(run, parts)
    assert one.env_steps == other.env_steps == 1_200
    assert torch.equal(one.buffer.data, other.buffer.data)
    states = one.collector.state_dict(), other.collector.state_dict()
    assert all(torch.equal(value, states[1]["env"][name]) for name, value in states[0]["env"].items())
    assert torch.equal(states[0]["obs"], states[1]["obs"])
    weights = dict(other.agent.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in one.agent.named_parameters())
    found = read_columns(whole / "eval.csv", ["env_steps", "eval/return"])
    assert found == read_columns(parts / "eval.csv", ["env_steps", "eval/return"])
    assert found["env_steps"] == [0, 608, 1_200]
    assert len(read_columns(whole / "eval.csv", ["transfer/return"])["transfer/return"]) == 1
