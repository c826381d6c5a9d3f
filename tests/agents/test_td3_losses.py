"""TD3's losses against numbers worked out with plain Python, and its two delays."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steelyard.agents.networks.heads import Categorical
from steelyard.agents.td3 import TD3
from steelyard.agents.types import Batch, Spec

GAINS, SLOW_GAINS = (0.8, -0.5), (0.3, 0.4)
"""The policy answers tanh(gain * s) in each component; the slow one has gains of its own."""
WEIGHTS = ((1.0, 0.5, -0.5), (-1.0, 0.2, 0.3))
SLOW_WEIGHTS = ((0.4, -0.2, 0.1), (0.1, 0.6, -0.3))
NOISE = (((0.3, -4.0), (9.0, 0.4)),)
"""Standard normal draws; times 0.2 two of them go beyond the bound of 0.5."""
BATCH = Batch(
    obs=torch.tensor([[0.5], [-0.8]]),
    action=torch.tensor([[0.1, -0.2], [0.7, 0.3]]),
    reward=torch.tensor([1.5, -0.5]),
    next_obs=torch.tensor([[0.9], [2.5]]),
    discount=torch.tensor([0.9, 0.5]),
    weight=torch.tensor([1.0, 0.25]),
    index=torch.tensor([0, 1]),
)


class Gain(nn.Module):
    def __init__(self, gains: tuple[float, ...]):
        super().__init__()
        self.gains = nn.Parameter(torch.tensor([gains]))

    def forward(self, obs: Tensor) -> tuple[Tensor]:
        return (obs * self.gains,)


class Linear(nn.Module):
    def __init__(self, weights: tuple[tuple[float, ...], ...]):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return ((self.weights @ x.mT).unsqueeze(-1),)


@pytest.fixture
def agent() -> Any:
    made: Any = TD3().build(Spec(1, 2), num_envs=1, total_updates=1, seed=0)
    made.actor.body, made.target_actor.body = Gain(GAINS), Gain(SLOW_GAINS)
    made.critic.body, made.target_critic.body = Linear(WEIGHTS), Linear(SLOW_WEIGHTS)
    return made


def values(weights: tuple[tuple[float, ...], ...], obs: float, action: list[float]) -> list[float]:
    return [w[0] * obs + w[1] * action[0] + w[2] * action[1] for w in weights]


def clip(x: float, bound: float) -> float:
    return min(max(x, -bound), bound)


def targets() -> list[float]:
    result = []
    for row in range(2):
        obs = float(BATCH.next_obs[row])
        action = [clip(math.tanh(g * obs) + clip(0.2 * z, 0.5), 1.0) for g, z in zip(SLOW_GAINS, NOISE[0][row], strict=True)]
        result.append(float(BATCH.reward[row]) + float(BATCH.discount[row]) * min(values(SLOW_WEIGHTS, obs, action)))
    return result


def test_target_smooths_the_slow_policys_action_within_both_bounds(agent: Any) -> None:
    target = agent.backup(agent.target_critic, BATCH, torch.tensor(NOISE))
    assert target.squeeze(-1).tolist() == pytest.approx(targets(), rel=1e-5)


def test_critic_sums_over_twins_the_weighted_mean_of_half_squared_errors(agent: Any) -> None:
    loss, _ = agent.critic_loss(BATCH, torch.tensor(NOISE), {})
    expected = 0.0
    for row, target in enumerate(targets()):
        for value in values(WEIGHTS, float(BATCH.obs[row]), BATCH.action[row].tolist()):
            expected += float(BATCH.weight[row]) * 0.5 * (value - target) ** 2 / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_actor_climbs_the_first_critic_alone(agent: Any) -> None:
    loss, _ = agent.actor_loss(BATCH, torch.tensor(NOISE), {})
    expected = 0.0
    for row in range(2):
        obs = float(BATCH.obs[row])
        expected -= values(WEIGHTS, obs, [math.tanh(g * obs) for g in GAINS])[0] / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_exploration_noise_has_its_deviation_and_stays_in_bounds(agent: Any) -> None:
    noise = torch.randn(4_000, 2, generator=torch.Generator().manual_seed(0))
    obs = torch.full((4_000, 1), 0.5)
    mode = torch.tensor([math.tanh(g * 0.5) for g in GAINS])
    torch.testing.assert_close(agent.choose(obs, noise), mode + 0.1 * noise)
    assert agent.choose(obs, 100 * noise).abs().max() == 1.0
    torch.testing.assert_close(agent.policy()(obs), mode.expand(4_000, 2))


def moved(before: dict[str, Tensor], agent: Any) -> set[str]:
    """The children of which some parameter changed."""
    return {
        name.split(".")[0]
        for name, p in agent.named_parameters()
        if not torch.equal(before[name], p) and "optimizers" not in name
    }


def test_policy_and_slow_targets_move_at_every_second_update(
    build: Callable[..., Any], draw_batch: Callable[..., Batch], configs: dict[str, Any]
) -> None:
    agent = build(configs["td3"])
    for count in range(1, 7):
        before = {name: p.detach().clone() for name, p in agent.named_parameters()}
        metrics = agent.update(draw_batch(count))
        if count % 2:
            assert moved(before, agent) == {"critic"}
            assert "actor_loss" not in metrics
        else:
            assert moved(before, agent) == {"critic", "actor", "target_critic", "target_actor"}
            assert "actor_loss" in metrics


def test_a_delay_of_three(build: Callable[..., Any], draw_batch: Callable[..., Batch], configs: dict[str, Any]) -> None:
    agent = build(configs["td3"], policy_delay=3)
    assert ["actor_loss" in agent.update(draw_batch(count)) for count in range(6)] == [False, False, True, False, False, True]


def test_smoothing_and_the_minimum_hold_for_a_categorical_critic(
    build: Callable[..., Any], configs: dict[str, Any], draw_batch: Any
) -> None:
    """The value of the projected target is the scalar target of the critic with the smaller mean, inside the support."""
    agent = build(configs["td3"], head=Categorical(2_001, -100.0, 100.0))
    batch, noise = draw_batch(0), agent.draw(8)
    smoothing = (noise[0] * 0.2).clamp(-0.5, 0.5)
    action = (agent.target_actor(batch.next_obs) + smoothing).clamp(-1, 1)
    value = agent.head.value(agent.target_critic(batch.next_obs, action)).amin(0)
    target = agent.backup(agent.target_critic, batch, noise)
    torch.testing.assert_close((target * agent.head.support).sum(-1), batch.reward + batch.discount * value, atol=1e-3, rtol=1e-3)
