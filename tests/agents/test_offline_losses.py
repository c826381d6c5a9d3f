"""Every loss of the offline agents against numbers worked out by hand, or against the published formula spelt out in numpy."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from steelyard.agents.agent import Execution
from steelyard.agents.awac import AWAC
from steelyard.agents.bc import BC
from steelyard.agents.cql import CQL
from steelyard.agents.iql import IQL
from steelyard.agents.networks import MLP
from steelyard.agents.networks.policies import Deterministic, Gaussian, UnsquashedGaussian
from steelyard.agents.parts import ActionDistance, Family, Fixed, ReturnBound
from steelyard.agents.parts.cloning import CloningError
from steelyard.agents.sac import SAC, SoftActorCritic
from steelyard.agents.td3 import TD3
from steelyard.agents.types import Batch, Spec

SPEC = Spec(1, 2)
EAGER = Execution(compile=False)
TINY: dict[str, Any] = {"actor": MLP((4,)), "critic": MLP((4,))}


class Sum(nn.Module):
    """Q_i(s, a) = s + sum(a) + offset_i."""

    def __init__(self, offsets: tuple[float, ...]):
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(offsets)[:, None, None])

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return (obs.sum(-1) + action.sum(-1))[None, :, None] + self.offset


class Constant(nn.Module):
    def __init__(self, value: float):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, obs: Tensor) -> Tensor:
        return self.value.expand(len(obs))


class Answer(nn.Module):
    """A network with the same answer everywhere."""

    def __init__(self, *answers: list[float]):
        super().__init__()
        self.answers = nn.ParameterList(nn.Parameter(torch.tensor(answer)) for answer in answers)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(answer.expand(*x.shape[:-1], -1) for answer in self.answers)


def batch(**changes: Tensor) -> Batch:
    made = Batch(
        obs=torch.tensor([[1.0], [2.0]]),
        action=torch.tensor([[0.5, -0.5], [0.25, 0.5]]),
        reward=torch.tensor([1.0, 2.0]),
        next_obs=torch.tensor([[2.0], [0.0]]),
        discount=torch.tensor([0.9, 0.0]),
        weight=torch.ones(2),
        index=torch.arange(2),
    )
    return made._replace(**changes)


def agent_of(config: Any, critics: tuple[float, ...] = (0.0, 1.0)) -> Any:
    agent = config.build(SPEC, num_envs=1, total_updates=10, seed=0, execution=EAGER)
    if hasattr(agent, "critic"):
        agent.critic, agent.target_critic = Sum(critics), Sum(critics)
    return agent


def normal_log_prob(action: list[float], mean: list[float], std: list[float]) -> float:
    return sum(
        -0.5 * ((a - m) / s) ** 2 - math.log(s) - 0.5 * math.log(2 * math.pi) for a, m, s in zip(action, mean, std, strict=True)
    )


def test_iql_regresses_the_expectile_of_the_target_critics_minimum() -> None:
    agent = agent_of(IQL(**TINY, expectile=0.8))
    agent.value = Constant(1.5)
    # min Q' = s + sum(a) = 1 and 2.75: u = -0.5 and 1.25
    loss, _ = agent.value_loss(batch(), agent.draw(2), {})
    assert loss.item() == pytest.approx((0.2 * 0.25 + 0.8 * 1.5625) / 2)


def test_iql_bootstraps_from_the_state_value_and_halves_the_squared_error() -> None:
    agent = agent_of(IQL(**TINY))
    agent.value = Constant(1.5)
    # y = 1 + 0.9 1.5 = 2.35 and 2; Q_1 = 1, 2.75; Q_2 = 2, 3.75
    loss, _ = agent.critic_loss(batch(), agent.draw(2), {})
    errors = [[1 - 2.35, 2.75 - 2.0], [2 - 2.35, 3.75 - 2.0]]
    assert loss.item() == pytest.approx(sum(np.mean(np.square(e)) for e in errors) / 2, rel=1e-5)


@pytest.mark.parametrize("beta", [3.0, 10.0])
def test_iql_weights_data_actions_by_bounded_exponential_advantages(beta: float) -> None:
    agent = agent_of(IQL(**TINY, balance=Fixed(beta)))
    agent.value = Constant(1.5)
    agent.actor.body = Answer([0.2, -0.3])
    with torch.no_grad():
        agent.actor.raw_log_std.copy_(torch.tensor([-1.0, 0.5]))
    mean, std = [math.tanh(0.2), math.tanh(-0.3)], [math.exp(-1), math.exp(0.5)]
    weights = [math.exp(beta * -0.5), min(math.exp(beta * 1.25), 100.0)]
    expected = -np.mean([w * normal_log_prob(a, mean, std) for w, a in zip(weights, batch().action.tolist(), strict=True)])
    assert agent.actor_loss(batch(), agent.draw(2), {})[0].item() == pytest.approx(expected, rel=1e-5)


def test_a_huge_advantage_leaves_the_policys_gradient_finite() -> None:
    agent = agent_of(IQL(**TINY, balance=Fixed(14.0)))
    agent.value = Constant(-1000.0)
    loss, metrics = agent.actor_loss(batch(), agent.draw(2), {})
    loss.backward()
    assert metrics["actor_weight"].item() == pytest.approx(100.0, rel=1e-4)
    assert all(p.grad.isfinite().all() for p in agent.actor.parameters() if p.grad is not None)


def test_iql_with_a_deterministic_policy_regresses_by_weighted_squares() -> None:
    agent = agent_of(IQL(**TINY, policy=Deterministic(), balance=Fixed(1.0)))
    agent.value = Constant(1.0)
    agent.actor.body = Answer([0.0, 0.0])
    # advantages 0 and 1.75, squared distances 0.5 and 0.3125
    expected = (1.0 * 0.5 + math.exp(1.75) * 0.3125) / 2
    assert agent.actor_loss(batch(), agent.draw(2), {})[0].item() == pytest.approx(expected, rel=1e-5)


def test_awac_weights_by_the_advantage_over_one_action_of_its_own() -> None:
    agent = agent_of(AWAC(**TINY, balance=Fixed(2.0)))
    agent.actor.body = Answer([0.1, 0.2])
    noise = torch.zeros(2, 2, 2)
    noise[0] = torch.tensor([[0.5, -0.1], [0.0, 5.0]])  # the last action is clipped to 1
    own = [0.1 + 0.5 + 0.2 - 0.1, 0.1 + 1.0]
    advantages = [0.0 - own[0], 0.75 - own[1]]
    densities = [normal_log_prob(a, [0.1, 0.2], [1.0, 1.0]) for a in batch().action.tolist()]
    expected = -np.mean([math.exp(2 * a) * d for a, d in zip(advantages, densities, strict=True)])
    assert agent.actor_loss(batch(), noise, {})[0].item() == pytest.approx(expected, rel=1e-5)


def test_awacs_target_takes_the_smallest_value_of_a_clipped_action_without_entropy() -> None:
    agent = agent_of(AWAC(**TINY))
    agent.actor.body = Answer([0.9, 0.2])
    noise = torch.zeros(2, 2, 2)
    noise[1, 0] = torch.tensor([1.0, 0.1])
    target = agent.regression(batch(), noise).target()
    assert target.flatten().tolist() == pytest.approx([1 + 0.9 * (2 + 1 + 0.3), 2.0])


def test_bc_is_the_squared_distance_or_the_likelihood() -> None:
    agent = agent_of(BC(actor=MLP((4,))))
    agent.actor.body = Answer([0.0, 0.0])
    assert agent.actor_loss(batch(), agent.draw(2), {})[0].item() == pytest.approx((0.5 + 0.3125) / 2)
    agent = agent_of(BC(actor=MLP((4,)), policy=UnsquashedGaussian("linear")))
    agent.actor.body = Answer([0.1, 0.2])
    expected = -np.mean([normal_log_prob(a, [0.1, 0.2], [1.0, 1.0]) for a in batch().action.tolist()])
    assert agent.actor_loss(batch(), agent.draw(2), {})[0].item() == pytest.approx(expected, rel=1e-5)


def test_td3_bc_divides_the_first_critics_value_by_its_mean_size_and_adds_the_mean_square() -> None:
    agent = agent_of(TD3(**TINY, balance=Fixed(2.5), cloning=ActionDistance()), critics=(0.0, -1.0))
    agent.actor.body = Answer([math.atanh(0.5), 0.0])
    # Q_1(s, pi) = 1.5, 2.5: mean size 2; squared distances (0, .25) and (.0625, .25)
    expected = -2.5 * (1.5 + 2.5) / 2 / 2 + (0.25 + 0.3125) / 4
    assert agent.actor_loss(batch(), agent.draw(2), {})[0].item() == pytest.approx(expected, rel=1e-5)


def test_rebrac_climbs_the_minimum_sums_over_components_and_penalises_the_target() -> None:
    cloning = ActionDistance(actor=0.1, critic=0.5, per_component=False)
    agent = agent_of(TD3(**TINY, policy_value="lowest", cloning=cloning), critics=(0.0, -1.0))
    agent.actor.body = agent.target_actor.body = Answer([math.atanh(0.5), 0.0])
    # min Q(s, pi) = .5, 1.5: mean size 1
    assert agent.actor_loss(batch(), agent.draw(2), {})[0].item() == pytest.approx(-1.0 + 0.1 * (0.25 + 0.3125) / 2, rel=1e-5)
    data = batch(next_action=torch.tensor([[0.0, 0.5], [0.0, 0.0]]))
    target = agent.regression(data, torch.zeros(1, 2, 2)).target()
    assert target.flatten().tolist() == pytest.approx([1 + 0.9 * (2 + 0.5 - 1 - 0.5 * 0.5), 2.0])
    assert agent.columns == {"next_action"}
    agent.begin_online()
    target = agent.regression(data, torch.zeros(1, 2, 2)).target()
    assert target.flatten().tolist() == pytest.approx([1 + 0.9 * 1.5, 2.0])


def test_rebracs_cloning_falls_online_to_its_floor_and_not_before() -> None:
    cloning = ActionDistance(actor=2.0, critic=0.0, online_decay=4, online_floor=0.5)
    agent = TD3(**TINY, cloning=cloning).build(SPEC, num_envs=1, total_updates=10, seed=0, execution=EAGER)
    action, data = torch.zeros(1, 2), torch.ones(1, 2)
    seen = []
    for online in (False, True):
        if online:
            agent.begin_online()
            assert agent.cloning.penalty(action, data).item() == pytest.approx(2.0)
        for _ in range(4):  # without `intervene`, as several updates in one launch
            agent.apply_update(agent.advance(), batch(), agent.draw(2))
            seen.append(agent.cloning.penalty(action, data).item())
    assert seen == pytest.approx([2.0, 2.0, 2.0, 2.0, 2.0, 1.5, 1.0, 1.0])


def test_open_weights_of_rebrac_are_refused() -> None:
    with pytest.raises(CloningError, match=r"agent\.cloning\.actor"):
        agent_of(TD3(**TINY, cloning=ActionDistance(actor=None)))


def squashed(policy: Any, noise: Tensor) -> tuple[Tensor, Tensor]:
    return policy(torch.zeros(noise.shape[-2], 1), noise)


def cql_gap(agent: Any, data: Batch, noise: Tensor, importance: bool, bound: Tensor | None = None) -> np.ndarray:
    """Equation of CQL(H), in numpy, for two samples of each kind."""
    uniform = torch.erf(noise[2:4] / math.sqrt(2))
    here, here_density = squashed(agent.actor, noise[4:6])
    there, there_density = squashed(agent.actor, noise[6:8])
    gaps = []
    for offset in (0.0, 1.0):
        q = data.obs.sum(-1) + data.action.sum(-1) + offset

        def value(actions: Tensor, offset: float = offset) -> Tensor:
            return data.obs.sum(-1) + actions.sum(-1) + offset

        values = [value(uniform), value(here), value(there)]
        if bound is not None:
            values[1:] = [torch.maximum(v, bound) for v in values[1:]]
        if importance:
            densities = (torch.full((2, 2), 2 * math.log(0.5)), here_density, there_density)
            z = torch.cat([v - d for v, d in zip(values, densities, strict=True)])
        else:
            z = torch.cat([*values, q[None]])
        gaps.append(np.log(np.exp(z.detach().numpy().astype(float)).sum(0)) - q.numpy())
    return np.array(gaps)


@pytest.mark.parametrize("importance", [True, False])
@pytest.mark.parametrize("calibrated", [True, False])
def test_cql_adds_half_alpha_times_the_soft_maximum_over_three_kinds_of_actions(importance: bool, calibrated: bool) -> None:
    calibration: dict[str, Any] = {"calibration": ReturnBound()} if calibrated else {}
    config = CQL(**TINY, samples=2, conservatism=4.0, importance_sampling=importance, **calibration)
    agent = agent_of(config)
    agent.actor.body = Answer([0.1, -0.2], [0.3, 0.4])
    returns = torch.tensor([3.0, -math.inf])
    data, noise = batch(goal_return=returns), agent.draw(2)
    expected = cql_gap(agent, data, noise, importance, returns if calibrated else None)
    loss, metrics = agent.critic_loss(data, noise, {})
    plain, _ = SoftActorCritic.critic_loss(agent, data, noise, {})
    assert metrics["gap"].item() == pytest.approx(expected.mean(), rel=1e-5)
    assert (loss - plain).item() == pytest.approx(0.5 * 4.0 * expected.mean(1).sum(), rel=1e-4)
    assert agent.columns == ({"goal_return"} if calibrated else frozenset())


def test_cqls_log_deviation_is_scaled_and_shifted_by_learned_numbers() -> None:
    agent = agent_of(CQL(**TINY))
    agent.actor.body = Answer([0.0, 0.0], [0.5, -0.5])
    assert agent.actor.moments(torch.zeros(1, 1))[1].tolist()[0] == pytest.approx([-0.5, -1.5])
    assert "actor.affine" in dict(agent.named_parameters())


def test_cqls_target_has_no_entropy_and_may_take_the_best_of_several_actions() -> None:
    agent = agent_of(CQL(**TINY, samples=2))
    agent.actor.body = Answer([0.1, -0.2], [0.3, 0.4])
    noise = agent.draw(2)
    action, _ = squashed(agent.actor, noise[1])
    expected = [1 + 0.9 * (2 + float(action[0].detach().sum())), 2.0]
    assert agent.regression(batch(), noise).target().flatten().tolist() == pytest.approx(expected, rel=1e-5)
    agent = agent_of(CQL(**TINY, samples=3, max_target=True))
    agent.actor.body = Answer([0.1, -0.2], [0.3, 0.4])
    noise = agent.draw(2)
    assert noise.shape[0] == 2 + 4 * 3
    actions, _ = squashed(agent.actor, noise[11:14])
    best = float(actions[:, 0].detach().sum(-1).max())
    assert agent.regression(batch(), noise).target().flatten().tolist() == pytest.approx([1 + 0.9 * (2 + best), 2.0], rel=1e-5)


def test_cqls_gap_is_cut_from_below_and_a_multiplier_holds_it_at_its_value() -> None:
    agent = agent_of(CQL(**TINY, samples=2, smallest_gap=100.0, lagrange_gap=5.0, conservatism=3.0))
    noise = agent.draw(2)
    loss, metrics = agent.critic_loss(batch(), noise, {})
    plain, _ = SoftActorCritic.critic_loss(agent, batch(), noise, {})
    assert metrics["gap"].item() == pytest.approx(100.0)
    assert (loss - plain).item() == pytest.approx(0.5 * 3.0 * math.e * 2 * 95.0, rel=1e-5)
    multiplier, _ = agent.multiplier_loss(batch(), noise, metrics)
    assert multiplier.item() == pytest.approx(-math.e * 3.0 * 95.0, rel=1e-5)
    learner: Any = CQL(**TINY, samples=2, lagrange_gap=-50.0).build(SPEC, num_envs=1, total_updates=10, seed=0, execution=EAGER)
    assert learner.trained == ("actor", "temperature", "critic", "multiplier")
    before = learner.multiplier.log.item()
    learner.update(batch())
    assert learner.multiplier.log.item() > before  # the gap is above -50


def test_wsrl_leaves_conservatism_behind_online() -> None:
    agent = agent_of(CQL(**TINY, samples=2, online_conservatism=0.0))
    noise = agent.draw(2)
    before, _ = agent.critic_loss(batch(), noise, {})
    plain, _ = SoftActorCritic.critic_loss(agent, batch(), noise, {})
    assert not torch.equal(before, plain)
    agent.begin_online()
    assert torch.equal(agent.critic_loss(batch(), noise, {})[0], plain)


def test_conservatism_moves_the_critic_alone() -> None:
    agent = CQL(**TINY, samples=2).build(SPEC, num_envs=1, total_updates=10, seed=0, execution=EAGER)
    noise = agent.draw(2)
    loss, _ = agent.critic_loss(batch(), noise, {})
    trained = {name: p for name, p in agent.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    moved = {name.split(".")[0] for name, gradient in zip(trained, gradients, strict=True) if gradient is not None}
    assert moved == {"critic"}


def test_rlpd_targets_the_minimum_of_a_drawn_subset_and_climbs_the_mean() -> None:
    offsets = tuple(float(i) for i in range(10))
    config = SAC(**TINY, critics=10, target_subset=2, policy_value="mean", entropy_backup=False, policy_delay=20)
    agent = agent_of(config, offsets)
    assert agent.climbed_value(torch.zeros(1, 1), torch.zeros(1, 2)).item() == pytest.approx(4.5)
    zeros, ones = torch.zeros(8), torch.ones(8)
    rows = Batch(zeros[:, None], torch.zeros(8, 2), zeros, zeros[:, None], ones, ones, torch.arange(8))
    agent.actor.body = Answer([0.0, 0.0], [-50.0, -50.0])
    seen = set()
    for _ in range(200):
        noise = agent.draw(8)
        (value,) = set(agent.regression(rows, noise).target().flatten().round().tolist())
        seen.add(value)
    assert seen == set(range(9))  # the smaller of two different ones of 0..9
    wsrl = agent_of(replace(config, target_draw="independent"), offsets)
    wsrl.actor.body = Answer([0.0, 0.0], [-50.0, -50.0])
    targets = [wsrl.regression(rows, wsrl.draw(8)).target().flatten().round() for _ in range(3_000)]
    assert all(bool((target == target[0]).all()) for target in targets)  # one draw for the whole batch
    counts = torch.bincount(torch.stack(targets)[:, 0].long(), minlength=10)
    expected = torch.tensor([(2 * (10 - k) - 1) / 100 for k in range(10)])  # the smaller of two that may be one, so 9 as well
    torch.testing.assert_close(counts / 3_000, expected, rtol=0, atol=0.03)
    assert int(counts[9]) > 0
    assert agent.due(19) == ("critic", "slow")
    assert agent.due(20) == ("actor", "temperature", "critic", "slow")


class TestFamily:
    def test_one_coefficient_is_fixed(self) -> None:
        one, two = IQL(**TINY, balance=Family(3.0, 3.0)), IQL(**TINY, balance=Fixed(3.0))
        agents = [config.build(SPEC, num_envs=1, total_updates=10, seed=0, execution=EAGER) for config in (one, two)]
        for _ in range(3):
            for agent in agents:
                agent.update(batch())
        states = [agent.state_dict() for agent in agents]
        assert states[0].keys() == states[1].keys()
        for key, value in states[0].items():
            if isinstance(value, Tensor):
                assert torch.equal(value, states[1][key]), key

    def test_encoding(self) -> None:
        agent = IQL(**TINY, balance=Family(8.0, 14.0)).build(SPEC, num_envs=1, total_updates=10, seed=0, execution=EAGER)
        seen = agent.balance.condition(torch.zeros(1, 1), torch.tensor([9.5]))[0].tolist()
        angles = [9.5, 9.5 / 10_000 ** (1 / 3), 9.5 / 10_000 ** (2 / 3)]
        assert seen == pytest.approx([0.0, *[f(a) for a in angles for f in (math.sin, math.cos)]], rel=1e-5)

    def test_the_same_coefficient_weighs_and_conditions(self) -> None:
        agent = agent_of(IQL(**TINY, balance=Family(1.0, 5.0)))
        agent.value = Constant(1.5)
        noise = agent.draw(2)
        coefficient = agent.balance.sample(batch().obs, noise)
        uniform = [1 + 4 * 0.5 * (1 + math.erf(z / math.sqrt(2))) for z in noise[-3, :, 0].tolist()]
        assert coefficient.tolist() == pytest.approx(uniform, rel=1e-5)
        seen = agent.balance.condition(batch().obs, coefficient)
        weight = (coefficient * torch.tensor([-0.5, 1.25])).exp().clamp(max=100)
        expected = -(weight * agent.actor.log_prob(seen, batch().action)).mean()
        assert agent.actor_loss(batch(), noise, {})[0].item() == pytest.approx(expected.item(), rel=1e-5)

    def test_online_the_balance_policy_picks(self) -> None:
        agent = agent_of(IQL(**TINY, balance=Family(1.0, 5.0)))
        noise = agent.draw(2)
        offline = agent.balance.sample(batch().obs, noise)
        agent.begin_online()
        online = agent.balance.sample(batch().obs, noise)
        assert not torch.allclose(offline, online)
        torch.testing.assert_close(online, agent.balance.pick(batch().obs, noise[-3, :, :1])[0])
        assert not online.requires_grad
        restored = agent_of(IQL(**TINY, balance=Family(1.0, 5.0)))
        restored.balance.load_state_dict(agent.balance.state_dict())
        torch.testing.assert_close(restored.balance.sample(batch().obs, noise), online)

    @pytest.mark.parametrize("online", [False, True])
    @pytest.mark.parametrize("best", [False, True])
    def test_cqls_next_actions_have_a_coefficient_drawn_for_the_present_state(self, best: bool, online: bool) -> None:
        config = CQL(**TINY, samples=2, max_target=best, balance=Family(0.5, 1.5, values="current", entropy=False))
        agent = agent_of(config)
        if online:
            agent.begin_online()
        noise = agent.draw(2)
        drawn = agent.balance.pick(batch().obs, noise[-2, :, :1])[0]
        assert not torch.allclose(drawn, agent.balance.choose(batch().obs))
        seen = agent.balance.condition(batch().next_obs, drawn)
        action = agent.actor(seen, noise[1])[0]
        if best:
            actions = agent.actor(seen, noise[8:10])[0]
            action = actions[actions.sum(-1).argmax(0), torch.arange(2)]
        value = batch().next_obs.sum(-1) + action.sum(-1)
        target = agent.backup(agent.target_critic, batch(), noise).squeeze(-1)
        torch.testing.assert_close(target, batch().reward + batch().discount * value)
        sampled, density = agent.sampled_actions(batch(), noise)
        there = agent.actor(seen, noise[6:8])
        torch.testing.assert_close(sampled[4:], there[0])
        torch.testing.assert_close(density[4:], there[1])

    @pytest.mark.parametrize("entropy", [True, False])
    def test_the_balances_loss(self, entropy: bool) -> None:
        agent = agent_of(IQL(**TINY, balance=Family(1.0, 5.0, entropy=entropy)))
        agent.balance.body = Answer([0.3])
        noise = agent.draw(2)
        x = 0.3 + noise[-2, :, 0]
        density = [normal_log_prob([v], [0.3], [1.0]) - math.log(1 - math.tanh(v) ** 2) for v in x.tolist()]
        coefficient = 1 + 2 * (x.tanh() + 1)
        action = agent.actor.propose(agent.balance.condition(batch().obs, coefficient), noise[-1])
        values = (batch().obs.sum(-1) + action.sum(-1)).tolist()
        expected = -np.mean(values)
        if entropy:
            expected += np.mean(density) + (-np.mean(density) + 0.5)
        loss, _ = agent.balance.loss(agent, batch(), noise)
        assert loss.item() == pytest.approx(expected, rel=1e-4)

    def test_the_balances_gradient_goes_through_policy_and_critic_to_the_balance_alone(self) -> None:
        agent = IQL(**TINY, balance=Family(1.0, 5.0)).build(SPEC, num_envs=1, total_updates=10, seed=0, execution=EAGER)
        before = {key: p.detach().clone() for key, p in agent.named_parameters()}
        agent.run_update(("balance",), batch(), agent.draw(2))
        moved = {key.split(".")[0] for key, p in agent.named_parameters() if not torch.equal(before[key], p)}
        assert moved == {"balance", "optimizers"}
        body = [key for key in before if key.startswith("balance.body")]
        assert any(not torch.equal(before[key], agent.get_parameter(key)) for key in body)

    def test_interval(self) -> None:
        agent = IQL(**TINY, balance=Family(1.0, 5.0, interval=5)).build(
            SPEC, num_envs=1, total_updates=10, seed=0, execution=EAGER
        )
        assert "balance" not in agent.due(4)
        assert "balance" in agent.due(5)

    @pytest.mark.parametrize(
        "config",
        [
            IQL(**TINY, balance=Family(1.0, 5.0)),
            AWAC(**TINY, balance=Family(1.0, 5.0)),
            CQL(**TINY, samples=2, balance=Family(0.5, 1.5, values="current", entropy=False)),
            TD3(**TINY, balance=Family(1.0, 5.0), cloning=ActionDistance()),
            SAC(**TINY, balance=Family(0.5, 1.5)),
        ],
        ids=lambda config: type(config).__name__,
    )
    def test_on_every_agent(self, config: Any) -> None:
        agent = config.build(SPEC, num_envs=1, total_updates=10, seed=0, execution=EAGER)
        for _ in range(3):
            assert agent.check(agent.update(batch())) is None
        assert agent.act(torch.zeros(2, 1), explore=False).shape == (2, 2)
        assert agent.policy()(torch.zeros(2, 1)).shape == (2, 2)


class TestPolicies:
    def test_squashed_density_of_given_actions_is_that_of_drawn_ones(self) -> None:
        agent = SAC(**TINY).build(Spec(3, 2), num_envs=1, total_updates=1, seed=0, execution=EAGER)
        generator = torch.Generator().manual_seed(0)
        obs, noise = torch.randn(50, 3, generator=generator), 0.5 * torch.randn(50, 2, generator=generator)
        action, log_prob = agent.actor(obs, noise)
        inside = action.abs().amax(-1) < 0.999  # beyond, single precision has forgotten where in front of tanh an action was
        assert inside.sum() > 25
        torch.testing.assert_close(agent.actor.log_prob(obs, action)[inside], log_prob[inside], rtol=1e-3, atol=1e-3)
        assert agent.actor.log_prob(obs, torch.ones(50, 2)).isfinite().all()

    @pytest.mark.parametrize("policy", [Gaussian(), UnsquashedGaussian(), UnsquashedGaussian("linear"), Deterministic()])
    def test_actions_lie_inside_and_zero_noise_is_the_mode(self, policy: Any) -> None:
        def body(outputs: tuple[int, ...]) -> nn.Module:
            return Answer([3.0, -3.0], [0.1, 0.1]) if len(outputs) == 2 else Answer([3.0, -3.0])

        built = policy.build(body, 2)
        obs = torch.zeros(1, 1)
        assert built.sample(obs, torch.full((1, 2), 4.0)).abs().max() <= 1
        torch.testing.assert_close(built.sample(obs, torch.zeros(1, 2)), built.mode(obs))
        assert built.log_prob(obs, torch.zeros(1, 2)).shape == (1,)


def test_density_ratio_weights(draw_batch: Callable[..., Batch]) -> None:
    from steelyard.agents.parts import DensityRatio
    from steelyard.agents.types import Records

    part: Any = DensityRatio(flow=2.0, closeness=0.5, network=MLP((4,))).build(SPEC, 2)
    part.of_action, part.of_state = AnswerRows([0.5, -3.0]), AnswerRows([0.2, 0.4], [1.0, 0.0])
    part.fit(Records(torch.zeros(2, 1), torch.tensor([-1.0, 3.0]), torch.zeros(2), torch.zeros(2)))
    logits = np.array([0.5 + 0.2, -1.2 + 0.4])
    w = np.exp(logits) / np.exp(logits).sum()
    out = np.exp([0.5 + 0.2, -3.0 + 0.4]) - np.exp([1.0, 0.0])
    expected = -np.sum(w * (np.array([1.0, 2.0]) + 1) / 4) + 2.0 * np.mean(out**2) + 0.5 * np.sum(w * np.log(w))
    loss, metrics = part.loss(None, batch(), torch.zeros(0))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert metrics["density_effective_batch"].item() == pytest.approx(1 / np.sum(w**2), rel=1e-5)
    part.of_state = AnswerRows([0.2, 0.4])
    assert part.mean(batch(), torch.tensor([1.0, 2.0])).item() == pytest.approx(np.sum(w * [1.0, 2.0]), rel=1e-5)
    part.of_state = AnswerRows([0.2, 0.4])
    agent = agent_of(IQL(**TINY))
    assert part(torch.ones(2), agent.regression(batch(), agent.draw(2))).tolist() == pytest.approx((2 * w).tolist(), rel=1e-5)


@pytest.mark.parametrize("clip", ["each", "sum"])
@pytest.mark.parametrize("divergence", ["pairs", "states"])
def test_density_ratios_as_td3_bc_has_them(clip: Any, divergence: Any) -> None:
    from steelyard.agents.parts import DensityRatio

    config = DensityRatio(flow=0.0, closeness=0.5, temperature=2.0, clip=clip, divergence=divergence, network=MLP((4,)))
    part: Any = config.build(SPEC, 2)
    part.of_action, part.of_state = AnswerRows([0.9, -3.0]), AnswerRows([0.8, 2.0])
    bounded = [1.2, -1.0] if clip == "sum" else [0.9 + 0.8, -1.2 + 1.2]
    w, states = (np.exp(np.array(x) / 2) / np.exp(np.array(x) / 2).sum() for x in (bounded, [0.8, 1.2]))
    compared = w if divergence == "pairs" else states
    expected = -np.sum(w * [1.0, 2.0]) + 0.5 * np.sum(compared * np.log(compared))
    loss, _ = part.loss(None, batch(), torch.zeros(0))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert part.mean(batch(), torch.tensor([1.0, 2.0])).item() == pytest.approx(np.sum(w * [1.0, 2.0]), rel=1e-5)
    assert part.state_mean(batch(), torch.tensor([1.0, 2.0])).item() == pytest.approx(np.sum(states * [1.0, 2.0]), rel=1e-5)


class AnswerRows(nn.Module):
    """Answers of successive calls, one number per row; the last one again and again."""

    def __init__(self, *answers: list[float]):
        super().__init__()
        self.answers = [torch.tensor(answer)[:, None] for answer in answers]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0],)


@pytest.mark.parametrize("name", ["iql", "awac", "cql", "td3-bc"])
def test_density_ratio_trains_beside_every_agent(name: str) -> None:
    from steelyard.agents.parts import DensityRatio

    weighting = DensityRatio(network=MLP((16,)))  # so wide that not all of its units are dead on these rows
    configs: dict[str, Any] = {
        "iql": IQL(**TINY, weighting=weighting),
        "awac": AWAC(**TINY, weighting=weighting),
        "cql": CQL(**TINY, samples=2, weighting=weighting),
        "td3-bc": TD3(**TINY, cloning=ActionDistance(), weighting=weighting),
    }
    agent = configs[name].build(SPEC, num_envs=1, total_updates=10, seed=0, execution=EAGER)
    before = {key: p.detach().clone() for key, p in agent.named_parameters() if key.startswith("weighting")}
    for _ in range(2):
        assert agent.check(agent.update(batch())) is None
    assert all(not torch.equal(value, agent.get_parameter(key)) for key, value in before.items())
    assert agent.optimizers["weighting"].config.learning_rate == 1e-4
