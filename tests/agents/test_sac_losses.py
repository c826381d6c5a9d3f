"""SAC's losses against numbers worked out with plain Python from networks that are simple enough to evaluate by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steelyard.agents.networks.heads import Categorical
from steelyard.agents.networks.policies import Gaussian
from steelyard.agents.sac import SAC
from steelyard.agents.types import Batch, Spec

MEAN, LOG_STD = (0.2, -0.4), (-0.5, 0.1)
"""What the policy's network answers to any observation."""
WEIGHTS = ((1.0, 0.5, -0.5), (-1.0, 0.2, 0.3))
"""Critic i values (s, a) at WEIGHTS[i] . (s, a_1, a_2): the first row of a batch prefers one critic, the second the other."""
SLOW_WEIGHTS = ((0.4, -0.2, 0.1), (0.1, 0.6, -0.3))
NOISE = (((0.3, -1.0), (1.2, 0.4)), ((-0.7, 0.5), (0.1, -0.2)))
TEMPERATURE = 0.3
BATCH = Batch(
    obs=torch.tensor([[0.5], [-0.8]]),
    action=torch.tensor([[0.1, -0.2], [0.7, 0.3]]),
    reward=torch.tensor([1.5, -0.5]),
    next_obs=torch.tensor([[0.9], [-0.3]]),
    discount=torch.tensor([0.9, 0.0]),
    weight=torch.tensor([1.0, 0.25]),
    index=torch.tensor([0, 1]),
)


class Constant(nn.Module):
    """A policy network that answers the same to every observation."""

    def __init__(self):
        super().__init__()
        self.mean, self.raw = nn.Parameter(torch.tensor(MEAN)), nn.Parameter(torch.tensor(LOG_STD))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean.expand(len(obs), -1), self.raw.expand(len(obs), -1)


class Linear(nn.Module):
    """Critics without a hidden layer."""

    def __init__(self, weights: tuple[tuple[float, ...], ...]):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return ((self.weights @ x.mT).unsqueeze(-1),)


@pytest.fixture
def agent() -> Any:
    made: Any = SAC(initial_temperature=TEMPERATURE, policy=Gaussian()).build(Spec(1, 2), num_envs=1, total_updates=1, seed=0)
    made.actor.body, made.critic.body, made.target_critic.body = Constant(), Linear(WEIGHTS), Linear(SLOW_WEIGHTS)
    return made


def sampled(noise: tuple[float, ...]) -> tuple[list[float], float]:
    """An action of the policy and its log density, from the definition: normal density over the tanh's derivative."""
    action, log_prob = [], 0.0
    for mean, log_std, z in zip(MEAN, LOG_STD, noise, strict=True):
        std = math.exp(log_std)
        x = mean + std * z
        density = math.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
        action.append(math.tanh(x))
        log_prob += math.log(density / (1 - math.tanh(x) ** 2))
    return action, log_prob


def values(weights: tuple[tuple[float, ...], ...], obs: float, action: list[float]) -> list[float]:
    return [w[0] * obs + w[1] * action[0] + w[2] * action[1] for w in weights]


def test_actor_minimises_scaled_log_density_minus_the_lower_value(agent: Any) -> None:
    loss, metrics = agent.actor_loss(BATCH, torch.tensor(NOISE), {})
    rows, log_probs, lower = [], [], []
    for row in range(2):
        action, log_prob = sampled(NOISE[0][row])
        both = values(WEIGHTS, float(BATCH.obs[row]), action)
        lower.append(both.index(min(both)))
        rows.append(TEMPERATURE * log_prob - min(both))
        log_probs.append(log_prob)
    assert sorted(lower) == [0, 1]  # each critic is the lower one somewhere
    assert loss.item() == pytest.approx(sum(rows) / 2, rel=1e-5)
    assert metrics["entropy"].item() == pytest.approx(-sum(log_probs) / 2, rel=1e-5)


def test_temperature_moves_towards_the_target_entropy(agent: Any) -> None:
    """alpha (H - target), target = -2 for two action components."""
    loss, metrics = agent.temperature_loss(BATCH, torch.tensor(NOISE), {"entropy": torch.tensor(0.75)})
    assert loss.item() == pytest.approx(TEMPERATURE * (0.75 + 2.0), rel=1e-6)
    assert metrics["temperature"].item() == pytest.approx(TEMPERATURE, rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, agent.temperature.log)
    assert gradient.item() == pytest.approx(TEMPERATURE * 2.75, rel=1e-6)  # more entropy than wanted lowers alpha


def test_target_entropy_counts_action_components() -> None:
    half: Any = SAC(entropy_per_action=-0.5).build(Spec(1, 6), num_envs=1, total_updates=1, seed=0)
    assert half.target_entropy == -3.0


def targets() -> list[float]:
    result = []
    for row in range(2):
        action, log_prob = sampled(NOISE[1][row])
        lower = min(values(SLOW_WEIGHTS, float(BATCH.next_obs[row]), action))
        result.append(float(BATCH.reward[row]) + float(BATCH.discount[row]) * (lower - TEMPERATURE * log_prob))
    return result


def test_target_is_the_reward_plus_the_discounted_lower_soft_value(agent: Any) -> None:
    target = agent.backup(agent.target_critic, BATCH, torch.tensor(NOISE))
    assert target.shape == (2, 1)
    assert target.squeeze(-1).tolist() == pytest.approx(targets(), rel=1e-5)
    assert target[1].item() == -0.5  # terminal: the reward alone


def test_critic_sums_over_twins_the_weighted_mean_of_half_squared_errors(agent: Any) -> None:
    loss, metrics = agent.critic_loss(BATCH, torch.tensor(NOISE), {})
    expected, predictions = 0.0, []
    for row, target in enumerate(targets()):
        for value in values(WEIGHTS, float(BATCH.obs[row]), BATCH.action[row].tolist()):
            expected += float(BATCH.weight[row]) * 0.5 * (value - target) ** 2 / 2
            predictions.append(value)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert metrics["value"].item() == pytest.approx(sum(predictions) / 4, rel=1e-5)


LOGITS = (((0.1, 0.7, -0.3), (0.5, 0.5, 0.0)), ((1.0, 0.0, 0.2), (-0.4, 0.0, 0.4)))
"""Of critic i, row j: logits over the values -1, 0, 1."""


class Table(nn.Module):
    """Critics that know the answer to each row of the batch."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(LOGITS))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.logits,)


def probabilities(logits: tuple[float, ...]) -> list[float]:
    total = sum(math.exp(x) for x in logits)
    return [math.exp(x) / total for x in logits]


def test_categorical_critic_sums_over_twins_the_cross_entropy_with_the_projected_target() -> None:
    agent: Any = SAC(initial_temperature=TEMPERATURE, head=Categorical(3, -1.0, 1.0)).build(
        Spec(1, 2), num_envs=1, total_updates=1, seed=0
    )
    agent.actor.body, agent.critic.body, agent.target_critic.body = Constant(), Table(), Table()
    loss, _ = agent.critic_loss(BATCH, torch.tensor(NOISE), {})
    expected = 0.0
    for row in range(2):
        _, log_prob = sampled(NOISE[1][row])
        both = [probabilities(LOGITS[critic][row]) for critic in range(2)]
        lower = min(both, key=lambda p: p[2] - p[0])
        target = [0.0, 0.0, 0.0]
        for mass, atom in zip(lower, (-1.0, 0.0, 1.0), strict=True):
            moved = float(BATCH.reward[row]) + float(BATCH.discount[row]) * (atom - TEMPERATURE * log_prob)
            position = min(max(moved, -1.0), 1.0) + 1.0
            below = min(math.floor(position), 1)
            target[below] += mass * (below + 1 - position)
            target[below + 1] += mass * (position - below)
        for critic in range(2):
            entropy = -sum(y * math.log(p) for y, p in zip(target, both[critic], strict=True))
            expected += float(BATCH.weight[row]) * entropy / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_single_critic_is_its_own_minimum() -> None:
    agent: Any = SAC(critics=1).build(Spec(1, 2), num_envs=1, total_updates=1, seed=0)
    agent.critic.body = Linear(WEIGHTS[:1])
    action = torch.tensor([[0.1, 0.2], [0.3, -0.4]])
    expected = [values(WEIGHTS[:1], float(obs), row)[0] for obs, row in zip(BATCH.obs, action.tolist(), strict=True)]
    assert agent.climbed_value(BATCH.obs, action).tolist() == pytest.approx(expected, rel=1e-6)


def test_exploration_samples_the_policy_and_evaluation_takes_its_mode(agent: Any) -> None:
    obs = torch.zeros(4_000, 1)
    sample = agent.choose(obs, torch.randn(4_000, 2, generator=torch.Generator().manual_seed(0)))
    mode = agent.choose(obs, torch.zeros(4_000, 2))
    assert mode[0].tolist() == pytest.approx([math.tanh(m) for m in MEAN], rel=1e-6)
    assert torch.equal(agent.policy()(obs), mode)
    assert sample.atanh().mean(0).tolist() == pytest.approx(MEAN, abs=0.06)
    assert sample.atanh().std(0).tolist() == pytest.approx([math.exp(x) for x in LOG_STD], rel=0.05)
