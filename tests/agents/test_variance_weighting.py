"""Deep Variance Weighting: hand values, generations, what the weights become, where they count, and refusals."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from steelyard.agents.agent import Execution
from steelyard.agents.dqn import DQN
from steelyard.agents.errors import SlotError
from steelyard.agents.networks import MLP
from steelyard.agents.networks.policies import Gaussian
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import HuberBellman, InverseVariance, Uniform
from steelyard.agents.td3 import TD3
from steelyard.agents.types import Batch, Spec

Build = Callable[..., Any]
DrawBatch = Callable[..., Batch]
TINY = MLP((16,))


def weighting(**changes: Any) -> InverseVariance:
    return InverseVariance(**{"network": TINY, "period": 3, **changes})


@pytest.mark.parametrize("name", ["sac", "td3", "awac", "cql", "sac-simba-v2"])
def test_the_loss_by_hand(name: str, build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agent = build(configs[name], weighting=weighting())
    for count in range(5):
        agent.update(draw_batch(count))
    part, batch, noise = agent.weighting, draw_batch(9), agent.draw(8)
    loss, metrics = part.loss(agent, batch, noise)
    with torch.no_grad():
        y = agent.head.expectation(agent.backup(part.older, batch, noise))
        z = (y - agent.head.value(part.newer(batch.obs, batch.action)).amin(0)) ** 2
        variance = part.variance_network(batch.obs, batch.action)[0, :, 0].exp() + 0.1
        error = (variance - z).abs()
        regression = (batch.weight * torch.where(error < 1, 0.5 * error**2, error - 0.5)).mean()
        frozen = part.frozen_network(batch.obs, batch.action)[0, :, 0].exp() + 0.1
        eta = (4 * part.slow_log_scale).exp()
        expected = regression + ((batch.weight * eta / frozen).mean() / batch.weight.mean() - 1) ** 2
        factors = torch.maximum(eta / frozen, torch.tensor(0.1))
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)
    assert float(metrics["variance_loss"]) == pytest.approx(float(regression), rel=1e-4)
    for key, value in (("lowest", factors.min()), ("mean", factors.mean()), ("highest", factors.max())):
        assert float(metrics[f"{key}_weight"]) == pytest.approx(float(value), rel=1e-4)
    regressed = agent.regression(batch, noise)
    torch.testing.assert_close(part(batch.weight, regressed), batch.weight * factors)
    alone = agent.objective(regressed) * batch.weight * factors
    if name != "cql":  # its critic has a second term
        torch.testing.assert_close(agent.critic_loss(batch, noise, {})[0], alone.mean(-1).sum())


def test_the_learned_floor_by_hand(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    """b joins the frozen variance in the weights' denominator and follows the root of the batch's largest variance."""
    agent, without = (build(configs["sac"], weighting=weighting(**options)) for options in ({"learned_floor": 2.0}, {}))
    part, batch, noise = agent.weighting, draw_batch(9), agent.draw(8)
    assert float(part.floor()) == pytest.approx(2.0)
    loss, metrics = part.loss(agent, batch, noise)
    frozen = part.frozen_network(batch.obs, batch.action)[0, :, 0].exp()
    largest, eta = float(frozen.max()) ** 0.5, torch.tensor(2.718281828)
    mean_weight = (batch.weight * eta / (frozen + 0.1 + 2)).mean() / batch.weight.mean()
    expected = metrics["variance_loss"] + (mean_weight - 1) ** 2 + (2 - largest) ** 2
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    factors = torch.maximum(eta / (frozen + 0.1 + 2), torch.tensor(0.1))
    assert torch.allclose(part.factors(batch.obs, batch.action), factors)
    assert float(metrics["learned_floor"]) == pytest.approx(2.0)
    # The floor's gradient comes from its own term alone, and the variance does not feel that term.
    gradients = [
        torch.autograd.grad(each.weighting.loss(each, batch, noise)[0], list(each.weighting.variance_network.parameters()))
        for each in (agent, without)
    ]
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))
    (of_floor,) = torch.autograd.grad(part.loss(agent, batch, noise)[0], part.slow_log_floor)
    assert float(of_floor) == pytest.approx(2 * (2 - largest) * 4 * 2, rel=1e-4)
    for _ in range(100):
        agent.apply_update(("weighting",), batch, noise)
    assert largest < float(part.floor()) < 1.9


def test_the_gradient_reaches_the_variance_and_the_scale_alone(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agent = build(configs["sac"], weighting=weighting())
    before = {name: p.detach().clone() for name, p in agent.named_parameters()}
    agent.apply_update(("weighting",), draw_batch(0), agent.draw(8))
    moved = {
        name.split(".")[1] for name, p in agent.named_parameters() if not torch.equal(p, before[name]) and "optim" not in name
    }
    assert moved == {"variance_network", "slow_log_scale"}


def weights_of(module: Any) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_generations_follow_one_another(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agent = build(configs["td3"], weighting=weighting(period=3))
    part, critics, variances = agent.weighting, [weights_of(agent.critic)], [weights_of(agent.weighting.variance_network)]
    for count in range(9):
        agent.update(draw_batch(count))
        critics.append(weights_of(agent.critic))
        variances.append(weights_of(part.variance_network))
        last = 3 * ((count + 1) // 3)
        assert same(weights_of(part.newer), critics[last])
        assert same(weights_of(part.older), critics[max(last - 3, 0)])
        assert same(weights_of(part.frozen_network), variances[last])
    assert not same(critics[6], critics[9])


def test_a_generation_missed_by_a_launch_of_many_updates_is_made_up_for(
    build: Build, draw_batch: DrawBatch, configs: Any
) -> None:
    agent = build(configs["td3"], weighting=weighting(period=3))
    agent.run_update(agent.advance(), draw_batch(0), agent.draw(8))
    agent.update_count = 7
    agent.intervene()
    assert same(weights_of(agent.weighting.newer), weights_of(agent.critic))


def test_a_copy_continues_bit_for_bit(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agent, other = (build(configs["sac"], weighting=weighting(period=4), seed=seed) for seed in (0, 1))
    for count in range(6):
        agent.update(draw_batch(count))
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    for count in range(6, 10):
        one, two = agent.update(draw_batch(count)), other.update(draw_batch(count))
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_samples_own_error_does_not_decide_its_weight(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agent = build(configs["sac"], weighting=weighting())
    batch, noise = draw_batch(0), agent.draw(8)
    regressions = [agent.regression(b, noise) for b in (batch, batch._replace(reward=batch.reward + 100))]
    one, two = (agent.weighting(batch.weight, regression) for regression in regressions)
    assert torch.equal(one, two)
    assert not one.requires_grad


def noisy(generator: torch.Generator, deviations: tuple[float, float], discrete: bool) -> Batch:
    """Two states, each with its own noise in the reward; every row is terminal."""
    rows = 64
    where = torch.arange(rows) % 2
    reward = torch.tensor(deviations)[where] * torch.randn(rows, generator=generator)
    obs = (2.0 * where - 1)[:, None]
    action = torch.tensor([[1.0, 0.0]]).expand(rows, 2) if discrete else torch.zeros(rows, 1)
    return Batch(obs, action, reward, obs, torch.zeros(rows), torch.ones(rows), torch.arange(rows))


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize(
    ("deviations", "expected"),
    # Variances 1.1 and 1.1; and 0.1 beside 1.0 + 0.1, of which a Huber loss on squared errors finds about 0.66 + 0.1.
    [((1.0, 1.0), (1.0, 1.0)), ((0.0, 1.0), (1.75, 0.25))],
)
def test_weights_fall_with_the_variance_and_their_mean_is_one(
    deviations: tuple[float, float], expected: tuple[float, float], discrete: bool
) -> None:
    part = weighting(period=30, optimizer=Adam(1e-2), scale_speed=5.0)
    spec = Spec(1, 2, discrete=True) if discrete else Spec(1, 1)
    kind: Any = DQN(critic=TINY, weighting=part) if discrete else TD3(actor=TINY, critic=TINY, weighting=part)
    agent = kind.build(spec, num_envs=1, total_updates=1, seed=0, execution=Execution(compile=False))
    generator = torch.Generator().manual_seed(0)
    for _ in range(445):
        agent.update(noisy(generator, deviations, discrete))
    batch = noisy(generator, deviations, discrete)
    factors = agent.weighting.factors(batch.obs, batch.action)
    assert factors[:2].tolist() == pytest.approx(expected, abs=0.12)
    assert float(factors.mean()) == pytest.approx(1.0, abs=0.05)


def test_iql_weighs_its_critic_alone(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    weighted, plain = build(configs["iql"], weighting=weighting()), build(configs["iql"])
    batch, noise = draw_batch(0), plain.draw(8)
    for loss in ("value", "actor"):
        assert torch.equal(
            getattr(weighted, f"{loss}_loss")(batch, noise, {})[0], getattr(plain, f"{loss}_loss")(batch, noise, {})[0]
        )
    assert not torch.equal(weighted.critic_loss(batch, noise, {})[0], plain.critic_loss(batch, noise, {})[0])


@pytest.mark.parametrize("name", ["sac-simba-v2", "td3-simba-v2", "sac", "td3", "awac", "cql", "rlpd"])
def test_it_composes_with_robust_losses_and_with_every_network(
    name: str, build: Build, draw_batch: DrawBatch, configs: Any
) -> None:
    agent = build(configs[name], weighting=weighting(), objective=HuberBellman(1.0, network=TINY))
    for count in range(7):
        assert agent.check(agent.update(draw_batch(count))) is None
    batch, noise = draw_batch(9), agent.draw(8)
    regression = agent.regression(batch, noise)
    factors = agent.weighting.factors(batch.obs, batch.action)
    value, target = agent.objective.errors(regression)
    h = agent.objective.estimate(regression)
    expected = (0.5 * batch.weight * factors * (target - value - h).square()).mean(-1).sum()
    torch.testing.assert_close(agent.objective.loss(agent, batch, noise)[0], expected)  # the weights count in h's regression too


def test_uniform_weights_learn_nothing(build: Build, configs: Any) -> None:
    assert build(configs["sac"], weighting=Uniform()).trained == build(configs["sac"]).trained


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"lowest": 1.5}, "lowest of InverseVariance is 1.5; the mean weight is one"),
        ({"lowest": -0.1}, "give a floor from 0 to 1"),
        ({"smallest_variance": 0.0}, "smallest_variance of InverseVariance is 0.0; give a positive number"),
        ({"initial_scale": -1.0}, "give a positive number"),
        ({"scale_speed": 0.0}, "give a positive number"),
        ({"period": 0}, "period of InverseVariance is 0; give one update or more"),
    ],
)
def test_impossible_numbers_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SlotError, match=sentence):
        InverseVariance(**changes)


def test_a_policy_of_another_kind_still_composes(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agent = build(configs["iql"], weighting=weighting(), policy=Gaussian())
    assert agent.check(agent.update(draw_batch(0))) is None
