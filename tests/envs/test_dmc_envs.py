"""The dm-control suite, against the suite itself."""

import numpy as np
import pytest
import torch
from dm_control import suite

from steelyard.envs import EnvError, make
from steelyard.envs.dmc_envs import TASKS, DmcEnv, canonical_name


def test_every_task_has_a_name():
    assert {TASKS[name] for name in TASKS} == set(suite.ALL_TASKS)
    assert all(canonical_name(name.replace("_", "-")) == name for name in TASKS)
    assert canonical_name("cartpole-swingup-sparse") == "cartpole-swingup_sparse"
    assert canonical_name("cartpole-swing") is None


def test_trajectories_are_the_suites_own():
    """Same seeds and actions, through an episode's end: the same numbers in the suite's order, one reset row, a truncation."""
    env = make("reacher-easy", 2)
    plain = [suite.load("reacher", "easy", task_kwargs={"random": 5 + i}) for i in range(2)]
    obs = env.reset(seed=5)
    generator = np.random.default_rng(0)
    timesteps = [world.reset() for world in plain]
    for t in range(1003):
        expected = np.array([np.concatenate(list(timestep.observation.values())) for timestep in timesteps])
        assert np.array_equal(obs.numpy(), expected.astype(np.float32))
        action = generator.uniform(-1, 1, (2, 2)).astype(np.float32)
        timesteps = [world.step(action[i]) for i, world in enumerate(plain)]
        step = env.step(torch.from_numpy(action))
        obs = step.obs
        assert step.reward.tolist() == [np.float32(timestep.reward or 0.0) for timestep in timesteps]
        assert step.truncated.tolist() == [timestep.last() for timestep in timesteps] == [t == 999] * 2
        assert step.valid.tolist() == [not timestep.first() for timestep in timesteps] == [t != 1000] * 2
        assert not step.terminated.any()


def test_action_repeat_sums_rewards():
    repeated, single = make("cartpole-balance", 1, action_repeat=4), make("cartpole-balance", 1)
    assert (repeated.spec.horizon, single.spec.horizon) == (250, 1000)
    repeated.reset(seed=0)
    single.reset(seed=0)
    action = torch.full((1, 1), 0.3)
    step, inner = repeated.step(action), [single.step(action) for _ in range(4)]
    assert step.reward.item() == pytest.approx(sum(one.reward.item() for one in inner))
    assert torch.equal(step.obs, inner[-1].obs)


def test_a_final_discount_of_zero_terminates(monkeypatch):
    env = DmcEnv("lqr-lqr_2_1", 1)
    assert env.spec.can_terminate
    assert env.spec.horizon is None
    env.reset(seed=0)
    assert not env.step(torch.zeros(1, 1)).terminated.any()
    monkeypatch.setattr(type(env._worlds[0].task), "_TERMINAL_TOL", 1e9)
    step = env.step(torch.zeros(1, 1))
    assert step.terminated.all()
    assert not step.truncated.any()
    assert not env.step(torch.zeros(1, 1)).valid.any()


def test_lqr_is_the_same_problem_in_all_worlds():
    springs = [world.physics.model.jnt_stiffness for world in DmcEnv("lqr-lqr_6_2", 3)._worlds]
    assert np.array_equal(springs[0], springs[1])
    assert np.array_equal(springs[0], springs[2])


def test_a_diverging_simulation_is_named():
    env = DmcEnv("cartpole-balance", 2)
    env.reset(seed=0)
    env._worlds[1].physics.data.qpos[0] = np.nan
    with pytest.raises(EnvError, match="the simulation of world 1 diverged"):
        env.step(torch.zeros(2, 1))


def test_nan_rewards_are_named(monkeypatch):
    env = DmcEnv("cartpole-balance", 2)
    env.reset(seed=0)
    monkeypatch.setattr(type(env._worlds[0].task), "get_reward", lambda self, physics: np.nan)
    with pytest.raises(EnvError, match="cartpole-balance: world 0 returned nan as its reward"):
        env.step(torch.zeros(2, 1))
