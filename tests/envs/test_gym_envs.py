"""Gymnasium's worlds, and worlds of others' making, in one process and in many."""

import os
import signal

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from steelyard.agents.types import Spec
from steelyard.envs import EnvError, check_contract, make
from steelyard.envs.gym_envs import GymEnv

pytestmark = pytest.mark.usefixtures("foreign_worlds")


def step_until_refused(env, action=None):
    env.reset(seed=0)
    for _ in range(10):
        env.step(torch.zeros(env.num_envs, env.spec.action_size) if action is None else action)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_worlds_may_say_whatever_they_like_beside_observations(vectorization):
    env = make("foreign_worlds:Talkative-v0", 3, vectorization=vectorization)
    env.reset(seed=0)
    for _ in range(20):
        step = env.step(torch.zeros(3, 1))
    env.close()
    assert step.info == {}


def test_worlds_that_draw_from_their_own_spaces_start_by_their_seed():
    alone, together = (make("foreign_worlds:Goals-v0", worlds) for worlds in (1, 3))
    starts = together.reset(seed=5)
    assert len(starts.unique()) == 3
    for world, start in enumerate(starts):
        assert torch.equal(alone.reset(seed=5 + world)[0], start)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("name", "obs_size"), [("Walk", 2), ("DictWalk", 3), ("TupleWalk", 4), ("EndsAtOnce", 2), ("TwoByTwo", 2), ("OneElement", 2)]
)
def test_worlds_of_others_keep_the_contract(name, obs_size, vectorization):
    env = make(f"foreign_worlds:{name}-v0", 2, vectorization=vectorization)
    try:
        assert env.spec.obs_size == obs_size
        check_contract(env, steps=100)
    finally:
        env.close()


def test_a_world_that_gymnasiums_checker_accepts_is_accepted():
    make("foreign_worlds:Walk-v0", 1)  # registers it
    check_env(gym.make("Walk-v0", disable_env_checker=True).unwrapped, skip_render_check=True)
    check_contract(make("Walk-v0", 2))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("NanObservation", r"foreign_worlds:NanObservation-v0: world 0 returned nan as its observation\[0\]"),
        ("NanReward", "foreign_worlds:NanReward-v0: world 0 returned nan as its reward"),
        ("NoReward", r"world [01] returned None as its reward; let its step return one number"),
        ("WrongShape", r"world [01] returned an observation of shape \(5,\) where its observation_space declares \(2,\)"),
    ],
)
def test_bad_worlds_are_named(name, sentence, vectorization):
    env = make(f"foreign_worlds:{name}-v0", 2, vectorization=vectorization)
    try:
        with pytest.raises(EnvError, match=sentence):
            step_until_refused(env)
    finally:
        env.close()


def test_a_world_of_its_own_process_that_dies_is_named():
    env = make("foreign_worlds:Dies-v0", 2, vectorization="async")
    try:
        with pytest.raises(EnvError, match=r"Dies-v0: the process of world 0 \(exit code 7\)"):
            step_until_refused(env)
    finally:
        env.close()


def test_a_process_that_is_killed_is_named():
    env = GymEnv("Pendulum-v1", 3, asynchronous=True)
    try:
        env.reset(seed=0)
        assert isinstance(env._vector, AsyncVectorEnv)
        os.kill(env._vector.processes[1].pid or 0, signal.SIGKILL)
        with pytest.raises(EnvError, match=r"the process of world 1 \(exit code -9\) died"):
            env.step(torch.zeros(3, 1))
    finally:
        env.close()


def test_actions_that_cannot_be_reached_are_refused():
    with pytest.raises(EnvError, match=r"component 0 of its actions goes from 2 to inf, which cannot be rescaled"):
        make("foreign_worlds:HalfOpen-v0", 1)


def test_whole_actions_are_refused():
    with pytest.raises(EnvError, match="a Box of floats or Discrete"):
        make("foreign_worlds:Whole-v0", 1)


def test_actions_reach_the_world_in_its_own_bounds():
    env = GymEnv("foreign_worlds:TwoByTwo-v0", 1)
    env.reset(seed=0)
    env.step(torch.tensor([[-1.0, 0.3, 0.5, 1.0]]))
    assert isinstance(env._vector, SyncVectorEnv)
    seen = env._vector.envs[0].get_wrapper_attr("seen")
    assert np.allclose(seen, [[0.0, 0.3], [0.5, 0.0]])


def test_trajectories_are_gymnasiums_own():
    """Same seeds and actions as plain Gymnasium, through falls and resets: the same numbers and the same reset rows."""
    env, plain = make("Hopper-v5", 2), [gym.make("Hopper-v5") for _ in range(2)]
    obs = env.reset(seed=7)
    expected = np.array([world.reset(seed=7 + i)[0] for i, world in enumerate(plain)])
    assert np.array_equal(obs.numpy(), expected.astype(np.float32))
    ended, resets = [False, False], 0
    generator = np.random.default_rng(0)
    for _ in range(120):
        action = generator.uniform(-1, 1, (2, 3)).astype(np.float32)
        step = env.step(torch.from_numpy(action))
        for i, world in enumerate(plain):
            if ended[i]:
                row, reward, ended[i], valid = world.reset()[0], 0.0, False, False
                resets += 1
            else:
                row, reward, ended[i], _, _ = world.step(action[i])
                valid = True
            assert np.array_equal(step.obs[i].numpy(), row.astype(np.float32))
            assert step.reward[i].item() == np.float32(reward)
            assert step.terminated[i].item() == ended[i]
            assert step.valid[i].item() == valid
    assert resets > 3


def test_both_vectorizations_agree():
    sync, processes = make("Pendulum-v1", 2), make("Pendulum-v1", 2, vectorization="async")
    try:
        assert torch.equal(sync.reset(seed=1), processes.reset(seed=1))
        for i in range(30):
            action = torch.full((2, 1), 0.1 * (i % 7) - 0.3)
            assert all(map(torch.equal, sync.step(action)[:-1], processes.step(action)[:-1]))
    finally:
        processes.close()


def test_action_repeat_sums_rewards_and_stops_at_the_end():
    repeated, single = make("foreign_worlds:Walk-v0", 1, action_repeat=3), make("Walk-v0", 1)
    assert repeated.spec.horizon == 7  # ceil(20 / 3)
    assert single.spec.horizon == 20
    repeated.reset(seed=0)
    single.reset(seed=0)
    for decision in range(7):
        action = torch.full((1, 1), -0.2 if decision % 2 else -0.4)  # -2..4 is centred on 1: small moves to both sides
        step = repeated.step(action)
        inner = [single.step(action) for _ in range(3 if decision < 6 else 2)]
        assert step.reward.item() == pytest.approx(sum(one.reward.item() for one in inner))
        assert torch.equal(step.next_obs, inner[-1].next_obs)
        assert step.truncated.item() == (decision == 6)


def test_horizon_and_termination_of_known_worlds():
    assert make("HalfCheetah-v4", 1).spec.can_terminate is False
    assert make("Hopper-v4", 1).spec.can_terminate is True
    assert make("Pendulum-v1", 1, action_repeat=3).spec.horizon == 67
    assert make("foreign_worlds:Endless-v0", 1).spec.horizon is None


def test_old_versions_and_boxes_are_made_without_remarks(recwarn):
    make("Hopper-v4", 1)
    make("HalfCheetah-v5", 1)
    assert [str(warning.message) for warning in recwarn] == []


def test_choices_are_given_one_hot_and_counted_from_the_first():
    env = make("CartPole-v1", 3)
    assert env.spec.discrete
    assert (env.spec.obs_size, env.spec.action_size, env.spec.horizon) == (4, 2, 500)
    obs = env.reset(seed=5)
    world = gym.make("CartPole-v1")
    first, _ = world.reset(seed=6)
    assert obs[1].tolist() == first.tolist()
    for choice in (1, 0, 0, 1):
        step = env.step(
            torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]) if choice else torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
        )
        expected, reward, *_ = world.step(choice)
        assert step.next_obs[1].tolist() == expected.tolist()
        assert step.reward[1] == reward
    for wrong in ([0.5, 0.5], [1.0, 1.0], [0.0, 0.0], [-1.0, 1.0]):
        with pytest.raises(
            EnvError, match=r"CartPole-v1: the action for world 2 is \[.*which is no choice; give 1 for the chosen"
        ):
            env.step(torch.tensor([[1.0, 0.0], [0.0, 1.0], wrong]))
    env.close()


def test_random_actions_are_of_the_tasks_kind():
    generator = torch.Generator().manual_seed(0)
    choices = Spec(1, 3, discrete=True).random_action(3000, generator)
    assert set(choices.unique().tolist()) == {0.0, 1.0}
    assert choices.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.05)
    box = Spec(1, 3).random_action(3000, generator)
    assert float(box.min()) < -0.99
    assert float(box.max()) > 0.99
