"""The batched locomotion tasks are Gymnasium's: states bit for bit, observations and rewards to rounding."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from mujoco.batch import SimulationError

from steelyard.envs import EnvError, make
from steelyard.envs.batch_envs import BatchEnv
from steelyard.envs.tasks import LOCOMOTION


def gymnasium_worlds(task, count, seed):
    worlds = [gym.make(task, disable_env_checker=True) for _ in range(count)]
    return worlds, np.array([world.reset(seed=seed + i)[0] for i, world in enumerate(worlds)])


@pytest.mark.parametrize("task", LOCOMOTION)
def test_episodes_are_gymnasiums(task):
    """Three worlds through falls (or 1000 steps of HalfCheetah) and into new episodes, from Gymnasium's own seeds."""
    env = BatchEnv(task, 3)
    plain, first = gymnasium_worlds(task, 3, seed=11)
    assert np.array_equal(env.reset(seed=11).numpy(), first.astype(np.float32))
    assert env.spec.obs_size == first.shape[1]
    generator = np.random.default_rng(1)
    batch, ends = env._batch, 0
    scale = plain[0].get_wrapper_attr("action_space").high[0]
    for _ in range({"HalfCheetah-v5": 1010, "Ant-v5": 400}.get(task, 150)):
        action = generator.uniform(-1, 1, (3, env.spec.action_size)).astype(np.float32)
        step = env.step(torch.from_numpy(action))
        for i, world in enumerate(plain):
            control = (action[i].astype(np.float64) * scale).astype(np.float32)
            row, reward, terminated, truncated, _ = world.step(control)
            assert np.array_equal(step.next_obs[i].numpy(), row.astype(np.float32))
            assert step.reward[i].item() == pytest.approx(reward, rel=1e-6, abs=1e-6)
            assert (step.terminated[i].item(), step.truncated[i].item()) == (terminated, truncated)
            if terminated or truncated:
                ends += 1
                row, _ = world.reset()
            assert np.array_equal(step.obs[i].numpy(), row.astype(np.float32))
            data = world.get_wrapper_attr("data")
            for field in ("qpos", "qvel", "qacc_warmstart", "time"):
                assert np.array_equal(batch.bind(field)[i], getattr(data, field))
    assert ends >= 3


@pytest.mark.parametrize("task", LOCOMOTION)
def test_rewards_and_contact_forces_in_double_precision(task, monkeypatch):
    """Gymnasium given float64 actions sums in float64; then rewards agree to 1e-10 and observations are equal."""
    env = BatchEnv(task, 1)
    (world,), _ = gymnasium_worlds(task, 1, seed=3)
    env.reset(seed=3)
    rewards = []
    monkeypatch.setattr(env, "_task", _Recorder(env._task, rewards))
    generator = np.random.default_rng(2)
    scale = np.float64(world.get_wrapper_attr("action_space").high[0])
    touched = False
    for _ in range(60):
        action = generator.uniform(-1, 1, env.spec.action_size).astype(np.float32)
        control = (action * scale).astype(np.float32).astype(np.float64)
        step = env.step(torch.from_numpy(action)[None])
        observation, reward, terminated, *_ = world.step(control)
        assert rewards[-1] == pytest.approx(float(reward), rel=1e-10, abs=1e-10)
        forces = world.get_wrapper_attr("data").cfrc_ext
        touched |= bool(np.abs(forces).max() > 1)
        if terminated:
            break
        assert np.array_equal(env._task.observe(env._state)[0].numpy(), observation)
        assert not step.terminated.any()
    assert touched or not env._forces


class _Recorder:
    """A task that notes the rewards it gives before they are rounded to float32."""

    def __init__(self, task, rewards):
        self._task, self._rewards = task, rewards

    def __getattr__(self, name):
        return getattr(self._task, name)

    def reward(self, *arguments):
        reward = self._task.reward(*arguments)
        self._rewards.append(reward[0].item())
        return reward


def test_worlds_end_and_start_alone():
    """Only the finished worlds are reset; the others go on as they would have without them."""
    together, alone = make("Hopper-v5", 8, vectorization="batch"), make("Hopper-v5", 1, vectorization="batch")
    together.reset(seed=0)
    alone.reset(seed=5)
    generator = torch.Generator().manual_seed(0)
    apart = 0
    for _ in range(150):
        action = torch.rand(8, 3, generator=generator) * 2 - 1
        step, single = together.step(action), alone.step(action[5:6])
        assert torch.equal(step.obs[5:6], single.obs)
        assert torch.equal(step.next_obs[5:6], single.next_obs)
        apart += int(step.terminated.any() and not step.terminated.all())
    assert apart > 5


def test_action_repeat_stops_where_the_episode_ends():
    repeated, single = make("Hopper-v5", 4, vectorization="batch", action_repeat=5), make("Hopper-v5", 4, vectorization="batch")
    assert repeated.spec.horizon == 200
    repeated.reset(seed=0)
    single.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    done = torch.zeros(4, dtype=torch.bool)
    for _ in range(12):
        action = torch.rand(4, 3, generator=generator) * 2 - 1
        step = repeated.step(action)
        total, last = torch.zeros(4), torch.zeros(4, 11)
        inner_done = torch.zeros(4, dtype=torch.bool)
        for _ in range(5):
            inner = single.step(action)
            total = torch.where(inner_done, total, total + inner.reward)
            last = torch.where(inner_done[:, None], last, inner.next_obs)
            inner_done = inner_done | inner.terminated
        going_on = ~done  # after its first end the single world's clock runs differently
        assert torch.equal(step.terminated[going_on], inner_done[going_on])
        assert torch.allclose(step.reward[going_on], total[going_on], rtol=1e-5)
        assert torch.equal(step.next_obs[going_on], last[going_on])
        done |= inner_done
    assert done.any()


def test_failures_of_the_simulator_and_nan_are_named(monkeypatch):
    env = BatchEnv("HalfCheetah-v5", 3)
    env.reset(seed=0)
    env._position[1] = torch.nan
    with pytest.raises(EnvError, match="HalfCheetah-v5: world 1 returned nan as its reward"):
        env.step(torch.zeros(3, 6))

    def fail(ids, nstep, stage):
        raise SimulationError(np.array([2]), "arena is full", 3)

    monkeypatch.setattr(env._batch, "step", fail)
    with pytest.raises(EnvError, match=r"HalfCheetah-v5: .*simulation 2: arena is full"):
        env.step(torch.zeros(3, 6))
