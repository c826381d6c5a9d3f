"""The suite's tasks on CPU threads are dm-control's: states bit for bit, observations and rewards to rounding."""

import numpy as np
import pytest
import torch
from dm_control import suite

from steelyard.envs import check_contract, make
from steelyard.envs.batch_envs import BatchEnv
from steelyard.envs.tasks import SUITE, tolerance
from steelyard.envs.tasks.reacher import ReacherEasy

STATE = ("qpos", "qvel", "qacc_warmstart", "ctrl")
STANDING = {"walker": (0.0, 2.0), "hopper": (0.0, 2.0), "humanoid": (1.3, 2.0), "cheetah": (0.0, 4.0), "cartpole": (0.0, 0.1)}
"""Height of the root and forward velocity of a state in which tasks that reward little else pay something."""


def flat(timestep):
    return np.concatenate([np.ravel(value) for value in timestep.observation.values()])


def worlds(name, seed):
    """The batched task with two worlds, and dm-control's two; the second of each is put into a state that is worth something."""
    domain, kind = name.split("-")
    env, plain = BatchEnv(name, 2), [suite.load(domain, kind, task_kwargs={"random": seed + i}) for i in range(2)]
    first = env.reset(seed=seed)
    assert np.array_equal(first.numpy(), np.array([flat(world.reset()) for world in plain], dtype=np.float32))
    physics = plain[1].physics
    qpos, qvel = physics.data.qpos.copy(), physics.data.qvel.copy()
    if domain in STANDING:
        height, speed = STANDING[domain]
        qpos[:], qvel[:] = physics.model.qpos0, 0.0
        qvel[0] = speed
        if domain == "humanoid":
            qpos[2] = height
    with physics.reset_context():
        physics.data.qpos[:], physics.data.qvel[:] = qpos, qvel
    if domain == "reacher":
        physics.named.model.geom_pos["target", :2] = env._episode["target"][1] = physics.named.data.geom_xpos["finger", :2]
        with physics.reset_context():
            physics.data.qpos[:], physics.data.qvel[:] = qpos, qvel
    env._batch.state[1] = 0.0
    for field, value in (("qpos", qpos), ("qvel", qvel)):
        env._batch.bind(field)[1] = value
    env._batch.forward()
    return env, plain


@pytest.mark.parametrize("name", SUITE)
def test_a_hundred_steps_are_dm_controls(name):
    env, plain = worlds(name, seed=5)
    assert env.spec.horizon == plain[0]._step_limit
    assert not env.spec.can_terminate
    generator, paid = np.random.default_rng(0), 0.0
    for _ in range(100):
        action = generator.uniform(-1, 1, (2, env.spec.action_size)).astype(np.float32)
        step = env.step(torch.from_numpy(action))
        for i, world in enumerate(plain):
            exact = world.step(action[i].astype(np.float64))
            data = world.physics.data
            for field in STATE:
                assert np.array_equal(env._batch.bind(field)[i], getattr(data, field))
            assert np.allclose(env._task.observe(env._state)[i].numpy(), flat(exact), rtol=0, atol=1e-14)
            assert step.reward[i].item() == pytest.approx(exact.reward, abs=1e-7)
            paid = max(paid, exact.reward)
        assert not (step.terminated | step.truncated).any()
    assert paid > 0.01


def test_shapes_of_reward_are_dm_controls():
    from dm_control.utils import rewards

    value = torch.linspace(-3, 3, 601, dtype=torch.float64)
    for sigmoid in ("gaussian", "linear", "quadratic", "cosine", "long_tail"):
        for low, high, margin, at_margin in ((0, 0, 1, 0.1), (-0.5, 1, 0.7, 0.4), (1, np.inf, 2, 0.2), (0, 1, 0, 0.1)):
            exact = rewards.tolerance(value.numpy(), (low, high), margin, sigmoid, at_margin)
            ours = tolerance(value, low, high, margin, sigmoid, at_margin)
            assert np.allclose(ours.numpy(), exact, atol=1e-12)


@pytest.mark.parametrize(("name", "repeat"), [("walker-run", 1), ("reacher-easy", 50)])
def test_contract(name, repeat):
    """With episodes of 20 decisions too, so that a saved state goes on into new episodes."""
    check_contract(make(name, 3, vectorization="batch", action_repeat=repeat), steps=50)


def test_episodes_end_with_the_clock_and_targets_are_the_episodes():
    env = make("reacher-hard", 3, vectorization="batch", action_repeat=4)
    assert env.spec.horizon == 250
    env.reset(seed=0)
    assert isinstance(env, BatchEnv)
    assert isinstance(env._task, ReacherEasy)
    target = env._episode["target"].copy()
    action = torch.zeros(3, 2)
    for number in range(1, 252):
        step = env.step(action)
        assert step.truncated.all() == (number == 250)
        moved = not np.array_equal(env._episode["target"], target)
        assert moved == (number >= 250)
    assert len(np.unique(env._episode["target"], axis=0)) == 3


def test_staggered_worlds_do_not_end_together():
    env, plain = (make("cartpole-balance", 8, vectorization="batch", staggered=on) for on in (True, False))
    ends = {}
    for world, kind in ((env, "staggered"), (plain, "plain")):
        world.reset(seed=0)
        found = [world.step(torch.zeros(8, 1)).truncated for _ in range(1000)]
        ends[kind] = torch.stack(found).int().argmax(0)
        assert torch.stack(found).sum(0).max() == 1
    assert (ends["plain"] == 999).all()
    assert ends["staggered"].unique().numel() >= 7
