"""Recipes for pixels say what DrQ-v2's configuration says, round-trip through JSON, and learn from pictures in their debug form."""

import json
from typing import Any

import pytest
import torch

from steelyard.agents.meters import value_layers
from steelyard.agents.networks import Bottleneck
from steelyard.agents.networks.augmentation import RandomShift
from steelyard.agents.networks.encoders import PictureEncoder
from steelyard.agents.networks.scheduled_noise import ScheduledNoise
from steelyard.agents.optimizer import Adam
from steelyard.agents.types import Batch, Spec
from steelyard.envs import Pictures
from steelyard.envs.dmc_envs import canonical_name
from steelyard.trainers import command_line
from steelyard.trainers.adaptive_ratio import AdaptiveRatio
from steelyard.trainers.config import Run
from steelyard.trainers.pixel_presets import EASY, HARD, MEDIUM, PIXELS, for_task, of_task
from steelyard.trainers.plain import from_plain, to_plain
from steelyard.trainers.schedules import FixedRatio
from steelyard.trainers.shrinking import debug


@pytest.mark.parametrize("run", PIXELS.values(), ids=PIXELS)
def test_round_trip_through_json(run: Run) -> None:
    assert from_plain(json.loads(json.dumps(to_plain(run), allow_nan=False))) == run


def test_the_released_configuration() -> None:
    run: Any = of_task("cheetah-run")
    assert (run.env_steps, run.action_repeat, run.random_steps, run.capacity) == (3_000_000, 2, 2_000, 1_000_000)
    assert run.schedule == FixedRatio(0.5)  # one update for every second decision
    assert run.pictures == Pictures(84, 3, None, "published")
    assert (run.evaluation_interval, run.evaluation_episodes) == (10_000, 10)
    agent = run.agent
    assert agent.encoder == PictureEncoder((32,) * 4, (3,) * 4, (2, 1, 1, 1))
    assert agent.actor == agent.critic == Bottleneck(50, (1024, 1024))
    assert agent.augmentation == RandomShift(4)
    assert agent.noise == ScheduledNoise(1.0, 0.1, 500_000, 0.3)
    assert (agent.optimizer, agent.n_step, agent.batch_size, agent.target_rate, agent.discount) == (
        Adam(1e-4),
        3,
        256,
        0.01,
        0.99,
    )
    assert (agent.critics, agent.policy_value) == (2, "lowest")


def test_classes_and_exceptions() -> None:
    def what(task: str) -> tuple[Any, ...]:
        run: Any = of_task(task)
        agent = run.agent
        settings = (agent.n_step, agent.batch_size, agent.actor.features, agent.optimizer.learning_rate)
        return run.env_steps, agent.noise.decay_steps, run.capacity, *settings

    assert what("finger-spin") == (1_000_000, 100_000, 1_000_000, 3, 256, 50, 1e-4)
    assert what("walker-walk") == (1_000_000, 100_000, 1_000_000, 1, 512, 50, 1e-4)
    assert what("walker-run") == (3_000_000, 500_000, 1_000_000, 1, 512, 50, 1e-4)
    assert what("quadruped-run") == (3_000_000, 500_000, 100_000, 3, 256, 50, 1e-4)
    assert what("quadruped-walk") == (3_000_000, 500_000, 1_000_000, 3, 256, 50, 1e-4)
    assert what("humanoid-run") == (30_000_000, 2_000_000, 1_000_000, 3, 256, 100, 8e-5)
    assert all(canonical_name(task) == task for task in (*EASY, *MEDIUM, *HARD))


def test_a_recipe_for_another_task_has_what_the_release_has_for_that_one() -> None:
    def what(name: str, task: str) -> tuple[Any, ...]:
        run: Any = for_task(name, task)
        assert (run.preset, run.task) == (name, task)
        return run.env_steps, run.capacity, run.agent.n_step, run.agent.batch_size, run.agent.critic.features

    assert what("drq-v2-adaptive", "walker-run") == (3_000_000, 1_000_000, 1, 512, 50)
    assert what("drq-v2-adaptive", "walker-walk") == (1_000_000, 1_000_000, 1, 512, 50)
    assert what("drq-v2-medium", "walker-walk") == (3_000_000, 1_000_000, 1, 512, 50)
    assert what("drq-v2-walker-run", "humanoid-run") == (30_000_000, 1_000_000, 3, 256, 100)
    assert what("drq-v2-easy", "ball-in-cup-catch") == (1_000_000, 1_000_000, 3, 256, 50)
    assert of_task("ball-in-cup-catch").env_steps == 1_000_000
    assert for_task("drq-v2-adaptive", "walker-run").schedule == AdaptiveRatio()
    assert what("drq-v2-small", "walker-run")[1:] == (100_000, 3, 64, 50)
    assert all(for_task(name, run.task) == run for name, run in PIXELS.items())


@pytest.mark.parametrize("option", [("--task", "walker-run"), ("--task=walker-run",)])
def test_the_command_line_takes_the_tasks_recipe_before_other_options(option: tuple[str, ...]) -> None:
    arguments = ["drq-v2-adaptive", "--agent.batch-size", "128", *option]
    run: Any = command_line.read(PIXELS, "Train from pixels.", arguments, for_task)[0]
    assert (run.task, run.capacity, run.agent.n_step, run.agent.batch_size) == ("walker-run", 1_000_000, 1, 128)


def test_games_are_played_for_100_000_decisions_of_four_frames() -> None:
    run = PIXELS["drq-eps"]
    assert (run.env_steps, run.action_repeat, run.random_steps) == (400_000, 4, 1_600)
    assert run.total_updates == 100_000 - 1_600


def test_the_adaptive_recipe_has_the_published_rule() -> None:
    assert PIXELS["drq-v2-adaptive"].schedule == AdaptiveRatio(0.5, 2.0, 25_000, 500, 0.001, 1)
    assert PIXELS["drq-v2-adaptive"].task == "quadruped-run"


def test_the_adaptive_ratio_watches_the_value_layers_of_drq_v2_alone() -> None:
    run = debug(PIXELS["drq-v2-adaptive"])
    config: Any = run.agent
    spec = Spec(9 * 24**2, 3, 100, picture=(9, 24, 24), frames=3)
    agent = config.build(spec, num_envs=1, total_updates=10, seed=0, execution=run.execution)
    schedule = run.schedule.build()
    schedule.begin(agent)
    (layer,) = value_layers(agent.critic)
    assert layer.incoming is agent.critic.body.body.layers[0]


@pytest.mark.parametrize("run", PIXELS.values(), ids=PIXELS)
def test_two_updates_in_debug_form(run: Run) -> None:
    agent_config: Any = debug(run).agent
    stack = 3 if run.pictures is None else run.pictures.stack
    spec = Spec(3 * stack * 24**2, 3, 100, discrete=run.preset == "drq-eps", picture=(3 * stack, 24, 24), frames=stack)
    agent = agent_config.build(spec, num_envs=1, total_updates=10, seed=0, execution=debug(run).execution)
    generator = torch.Generator().manual_seed(0)
    size, blank = agent_config.batch_size, torch.zeros(agent_config.batch_size)
    pictures = torch.randint(0, 256, (2, size, spec.obs_size), dtype=torch.uint8, generator=generator)
    batch = Batch(
        pictures[0], spec.random_action(size, generator), blank, pictures[1], blank + 0.9, blank + 1, torch.arange(size)
    )
    for _ in range(2):
        metrics = agent.update(batch)
    assert all(bool(value.isfinite().all()) for value in metrics.values())
