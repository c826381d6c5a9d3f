"""The probes' answers are what their table says."""

import pytest
import torch

from steelyard.envs import EnvError, make


def act(env, value):
    return env.step(torch.full((env.num_envs, 1), value))


def test_constant():
    env = make("probe-constant", 3)
    env.reset(seed=0)
    step = act(env, 0.3)
    assert step.reward.tolist() == [1, 1, 1]
    assert step.terminated.all()
    assert not step.truncated.any()


def test_observation_is_the_reward_and_is_uniform():
    env = make("probe-observation", 4096)
    obs = env.reset(seed=0)
    step = act(env, 0.0)
    assert torch.equal(step.reward, obs[:, 0])
    assert step.terminated.all()
    assert obs.min() >= -1
    assert obs.max() <= 1
    assert obs.mean().abs() < 0.05
    assert (obs.std() - 3**-0.5).abs() < 0.02
    between = torch.corrcoef(torch.stack([obs[:, 0], step.obs[:, 0]]))[0, 1]
    assert between.abs() < 0.05


def test_discount_pays_one_step_later():
    env = make("probe-discount", 2)
    assert env.reset(seed=0).tolist() == [[0], [0]]
    first, second = act(env, 0.0), act(env, 0.0)
    assert first.reward.tolist() == [0, 0]
    assert first.next_obs.tolist() == [[1], [1]]
    assert not first.terminated.any()
    assert second.reward.tolist() == [1, 1]
    assert second.terminated.all()
    assert second.obs.tolist() == [[0], [0]]


@pytest.mark.parametrize("action", [-1.0, 0.5, 1.0])
def test_action_decides(action):
    env = make("probe-action", 2)
    env.reset(seed=0)
    assert act(env, action).reward[0].item() == pytest.approx(1 - (action - 0.5) ** 2)


def test_the_observation_is_the_best_action():
    env = make("probe-action-observation", 16)
    obs = env.reset(seed=0)
    assert torch.equal(env.step(obs).reward, torch.ones(16))
    obs = act(env, 0.0).obs
    wrong = (obs + 0.5).where(obs < 0, obs - 0.5)
    assert torch.allclose(env.step(wrong).reward, torch.tensor(0.75))


def test_truncation_never_terminates():
    env = make("probe-truncation", 2)
    env.reset(seed=0)
    steps = [act(env, 0.0) for _ in range(10)]
    assert [bool(step.truncated[0]) for step in steps] == [False] * 4 + [True] + [False] * 4 + [True]
    assert not any(step.terminated.any() for step in steps)
    assert all(step.reward.eq(1).all() for step in steps)


def test_a_state_of_another_size_is_refused():
    state = make("probe-constant", 3).state_dict()
    assert state is not None
    with pytest.raises(EnvError, match="3 worlds was saved"):
        make("probe-constant", 2).load_state_dict(state)
