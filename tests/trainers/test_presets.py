"""Every preset: says what its recipe says, round-trips through JSON, and learns for two updates in its debug form."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from steelyard.agents.dqn import DQN
from steelyard.agents.networks import Convolution, SimbaV2
from steelyard.agents.networks.greedy import EpsilonGreedy
from steelyard.agents.networks.heads import Categorical
from steelyard.agents.networks.normalizers import ReturnScale, RunningNorm
from steelyard.agents.networks.policies import Gaussian
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import Greedy, Munchausen, Squared
from steelyard.agents.parts import Uniform as UniformWeight
from steelyard.agents.sac import SAC
from steelyard.agents.types import Spec, Step
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.config import Run
from steelyard.trainers.gpu_presets import GPU
from steelyard.trainers.learner import Learner
from steelyard.trainers.plain import from_plain, to_plain
from steelyard.trainers.presets import DEMO, DMC, MINATAR, MUJOCO
from steelyard.trainers.schedules import FixedRatio
from steelyard.trainers.shrinking import debug

TABLES: Mapping[str, Mapping[str, Run]] = {"mujoco": MUJOCO, "dmc": DMC, "minatar": MINATAR, "gpu": GPU, "demo": {"demo": DEMO}}
ALL = {f"{table}/{name}": run for table, runs in TABLES.items() for name, run in runs.items()}
SPEC = Spec(obs_size=5, action_size=2, horizon=200)
CHOICES = Spec(obs_size=400, action_size=6, discrete=True, picture=(4, 10, 10))


def of(run: Run) -> Any:
    """Its agent, whichever it is."""
    return run.agent


@pytest.mark.parametrize("run", ALL.values(), ids=ALL)
def test_round_trip_through_json(run: Run) -> None:
    assert from_plain(json.loads(json.dumps(to_plain(run), allow_nan=False))) == run


@pytest.mark.parametrize("name", ALL)
def test_the_folder_is_named_after_the_preset(name: str) -> None:
    assert ALL[name].preset == name.split("/")[1]


def replay(spec: Spec) -> ReplayBuffer:
    """A hundred random transitions of one world."""
    generator = torch.Generator().manual_seed(0)
    buffer = ReplayBuffer(spec, 1_000)
    obs, no = torch.zeros(1, spec.obs_size), torch.zeros(1, dtype=torch.bool)
    for _ in range(100):
        after = torch.randn(1, spec.obs_size, generator=generator)
        step = Step(after, after, torch.randn(1, generator=generator), no, no, ~no, {})
        buffer.add(obs, spec.random_action(1, generator), step)
        obs = after
    return buffer


@pytest.mark.parametrize("run", ALL.values(), ids=ALL)
def test_two_updates_in_debug_form(run: Run, tmp_path: Path) -> None:
    run = debug(run)
    spec = CHOICES if isinstance(run.agent, DQN) else SPEC
    agent = run.agent.build(spec, num_envs=1, total_updates=run.total_updates, seed=0, execution=run.execution)
    sampler = run.sampler.build(replay(spec), run.agent.batch_size, run.agent.n_step, agent.gamma, 0)
    before = {name: p.detach().clone() for name, p in agent.named_parameters()}
    learner = Learner(agent, sampler, tmp_path)
    count = max(2, *agent.every.values())
    learner.update(count)
    assert agent.update_count == count
    losses = {f"{name}_loss" for name in agent.losses}
    assert {"critic_loss", "value", *losses} <= learner.metrics.keys()
    for child in agent.losses:
        assert any(not torch.equal(before[name], p) for name, p in agent.named_parameters() if name.startswith(f"{child}."))


@pytest.mark.parametrize("run", ALL.values(), ids=ALL)
def test_debug_shrinks_and_keeps_the_recipe(run: Run) -> None:
    small = debug(run)
    assert small.preset == f"{run.preset}-debug"
    assert small.env_steps // small.action_repeat <= 300
    assert small.env_steps // small.action_repeat > small.random_steps  # there is something to learn from
    assert small.evaluation_interval < small.env_steps
    assert small.log_interval < small.env_steps
    assert small.checkpoint_interval < small.env_steps
    assert not small.execution.compile
    assert small.agent.batch_size < run.agent.batch_size
    names = [name for name in ("actor", "critic") if hasattr(run.agent, name)]
    for network, original in ((getattr(small.agent, name), getattr(run.agent, name)) for name in names):
        assert type(network) is type(original)
        assert (network.width if isinstance(network, SimbaV2) else sum(network.hidden)) <= 16
    assert type(small.agent) is type(run.agent)
    assert (of(small).head, of(small).rewards, of(small).critics) == (of(run).head, of(run).rewards, of(run).critics)
    assert (small.task, small.schedule, small.action_repeat) == (run.task, run.schedule, run.action_repeat)


def test_simba_v2_has_its_published_settings() -> None:
    run = MUJOCO["simba-v2"]
    agent = run.agent
    assert isinstance(agent, SAC)
    assert agent.actor == SimbaV2(width=128, blocks=1, expansion=4, shift=3.0)
    assert agent.critic == SimbaV2(width=512, blocks=2, expansion=4, shift=3.0)
    assert agent.head == Categorical(atoms=101, low=-5.0, high=5.0)
    assert agent.observations == RunningNorm(epsilon=1e-8)
    assert agent.rewards == ReturnScale(max_return=5.0, epsilon=1e-8)
    assert agent.policy == Gaussian(low=-10.0, high=2.0, bound="tanh")
    assert agent.optimizer == Adam(1e-4, 5e-5, 0.9, 0.999, 1e-8)
    assert (agent.initial_temperature, agent.entropy_per_action) == (0.01, -0.5)
    assert (agent.discount, agent.n_step, agent.batch_size, agent.target_rate) == (None, 1, 256, 0.005)
    assert (run.random_steps, run.capacity, run.num_envs, run.action_repeat, run.schedule) == (
        5_000,
        1_000_000,
        1,
        1,
        FixedRatio(1.0),
    )


def test_critics_repeats_and_updates_follow_the_benchmark() -> None:
    """MuJoCo: twins and one update per step. dm-control: a single SimbaV2 critic, two updates per decision of two steps."""
    assert all(of(run).critics == 2 and run.action_repeat == 1 and run.schedule == FixedRatio(1.0) for run in MUJOCO.values())
    assert all(run.action_repeat == 2 and run.schedule == FixedRatio(2.0) for run in DMC.values())
    assert {name: of(run).critics for name, run in DMC.items()} == {
        "sac": 2,
        "sac-layer-norm": 2,
        "td3": 2,
        "simba-v2": 1,
        "simba-v2-td3": 1,
    }


@pytest.mark.parametrize(("table", "horizon", "gamma"), [("mujoco", 1000, 0.995), ("dmc", 500, 0.99)])
def test_simba_v2_takes_its_discount_from_the_horizon(table: str, horizon: int, gamma: float) -> None:
    assert of(TABLES[table]["simba-v2"]).gamma(Spec(1, 1, horizon)) == pytest.approx(gamma)


@pytest.mark.parametrize("table", ["mujoco", "dmc"])
def test_a_published_run_makes_a_million_updates(table: str) -> None:
    """Less those of the random steps."""
    run = TABLES[table]["simba-v2"]
    assert run.env_steps == 1_000_000
    assert 0.985e6 <= run.total_updates <= 1e6


def test_minatar_presets_have_the_papers_numbers() -> None:
    """Kitamura et al. 2023, released code: table of MinAtar's settings."""
    for name in ("dqn", "m-dqn", "dvw-dqn", "dvw-m-dqn"):
        run, agent = MINATAR[name], of(MINATAR[name])
        assert (run.env_steps, run.random_steps, run.capacity, run.schedule) == (10_000_000, 10_000, 100_000, FixedRatio(0.25))
        assert (agent.batch_size, agent.discount, agent.optimizer, agent.target_period, agent.target_rate) == (
            32,
            0.99,
            Adam(2.5e-4),
            250,
            1.0,
        )
        assert agent.critic == Convolution((16,), 3, (128,), 10)
        assert agent.critics == 1
        assert agent.exploration == EpsilonGreedy(1.0, 0.1, 1_000_000)
        assert agent.objective == Squared()
        assert agent.improvement == (Munchausen(0.03, 0.9, -1.0) if "m-dqn" in name else Greedy(0.0))
        if "dvw" in name:
            part = agent.weighting
            assert (part.optimizer, part.period, part.smallest_variance, part.lowest) == (Adam(2.5e-4), 250, 0.1, 0.1)
            assert part.scale_speed * part.optimizer.learning_rate == 1e-3
            assert part.network == agent.critic
            assert math.log(part.initial_scale) == 1.0
        else:
            assert agent.weighting == UniformWeight()
