"""Robust Bellman losses: hand values, gradients against finite differences, limits, refusals, and what they are for."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from steelyard.agents.agent import Execution
from steelyard.agents.dqn import DQN
from steelyard.agents.errors import SlotError
from steelyard.agents.networks import MLP
from steelyard.agents.networks.heads import Categorical
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import AbsoluteBellman, ClippedSemiGradient, HuberBellman, Squared
from steelyard.agents.types import Batch, Spec

Build = Callable[..., Any]
DrawBatch = Callable[..., Batch]
SECONDARY = MLP((16,))
"""A network for h that does not start at zero."""


def huber(threshold: float = 0.1, **changes: Any) -> HuberBellman:
    return HuberBellman(threshold, **{"network": SECONDARY, **changes})


def pieces(agent: Any, batch: Batch, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Q, y and h [critics, batch] by the agent's own functions; Q and y with their graphs."""
    value = agent.head.value(agent.critic(batch.obs, batch.action))
    target = agent.head.expectation(agent.backup(agent.critic, batch, noise)).expand_as(value)
    h = agent.objective.secondary(batch.obs, batch.action)[..., 0].detach()
    return value, target, h


def gradient(agent: Any, scalar: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(scalar, list(agent.critic.parameters()), retain_graph=True))


def clip(x: Tensor, t: float) -> Tensor:
    return torch.minimum(torch.maximum(x, torch.full_like(x, -t)), torch.full_like(x, t))


@pytest.mark.parametrize("name", ["sac", "td3", "awac", "cql", "td3-simba-v2"])
@pytest.mark.parametrize("update", ["saddle-point", "corrected", "gated"])
@pytest.mark.parametrize("bound", ["clip", "tanh"])
def test_the_critics_gradient_is_that_of_the_update_it_names(
    name: str, update: Any, bound: Any, build: Build, draw_batch: DrawBatch, configs: Any
) -> None:
    agent = build(configs[name], objective=huber(0.1, update=update, bound=bound))
    batch, noise = draw_batch(0), agent.draw(8)
    regression = agent.regression(batch, noise)
    actual = gradient(agent, agent.objective(regression).sum())
    value, target, h = pieces(agent, batch, noise)
    bounded = clip(h, 0.1) if bound == "clip" else 0.1 * torch.tanh(h / 0.1)
    delta = (target - value).detach()
    main = {"saddle-point": bounded, "corrected": delta, "gated": torch.where(h.abs() <= 0.1, delta, bounded)}[update]
    assert bool((h.abs() > 0.1).any())
    assert bool((h.abs() <= 0.1).any())
    expected = gradient(agent, (bounded * target - main * value).sum())
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "objective", [huber(update="saddle-point", bound="clip"), huber(update="saddle-point"), AbsoluteBellman(SECONDARY)]
)
def test_the_saddle_points_gradient_equals_finite_differences(
    objective: Any, build: Build, draw_batch: DrawBatch, configs: Any
) -> None:
    agent = build(configs["td3"], objective=objective)
    batch, noise = draw_batch(0), agent.draw(8)

    def saddle_point() -> Tensor:
        """The objective itself, written down again: E[2 delta c - c^2] / 2, for the absolute error E[delta c]."""
        value, target, h = pieces(agent, batch, noise)
        if isinstance(objective, AbsoluteBellman):
            return ((target - value) * h.sign()).sum()
        c = clip(h, 0.1) if objective.bound == "clip" else 0.1 * torch.tanh(h / 0.1)
        return 0.5 * (2 * (target - value) * c - c.square()).sum()

    total = agent.objective(agent.regression(batch, noise)).sum()
    torch.testing.assert_close(total, saddle_point())
    generator, step = torch.Generator().manual_seed(1), 5e-4
    for p, analytic in zip(agent.critic.parameters(), gradient(agent, total), strict=True):
        direction = torch.randn(p.shape, generator=generator)
        with torch.no_grad():
            p.add_(step * direction)
            above = saddle_point()
            p.sub_(2 * step * direction)
            below = saddle_point()
            p.add_(step * direction)
        torch.testing.assert_close((analytic * direction).sum(), (above - below) / (2 * step), rtol=0.02, atol=5e-3)


@pytest.mark.parametrize("update", ["saddle-point", "corrected", "gated"])
def test_an_infinite_threshold_is_gradient_td_exactly(update: Any, build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agent = build(configs["sac"], objective=huber(math.inf, update=update))
    batch, noise = draw_batch(0), agent.draw(8)
    actual = gradient(agent, agent.objective(agent.regression(batch, noise)).sum())
    value, target, h = pieces(agent, batch, noise)
    main = h if update == "saddle-point" else (target - value).detach()
    for a, e in zip(actual, gradient(agent, (h * target - main * value).sum()), strict=True):
        torch.testing.assert_close(a, e, rtol=1e-5, atol=1e-7)
    # A clip that never bites leaves every bit as it is.
    agents = [build(configs["sac"], objective=huber(t, update=update, bound="clip")) for t in (math.inf, 1e9)]
    for count in range(3):
        for one in agents:
            one.update(draw_batch(count))
    for p, q in zip(*(one.parameters() for one in agents), strict=True):
        assert torch.equal(p, q)


def test_the_bound_is_on_the_expected_error_and_never_on_the_sample(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    batch = draw_batch(0)
    surprising = batch._replace(reward=batch.reward + 1000)
    cases: Any = (("corrected", True), ("gated", True), ("saddle-point", False))
    for update, follows in cases:
        agent = build(configs["td3"], objective=HuberBellman(1.0, update, network=MLP((16,), output_gain=0.0)))
        noise = agent.draw(8)
        pull = [
            sum(float(g.norm()) for g in gradient(agent, agent.objective(agent.regression(b, noise)).sum()))
            for b in (batch, surprising)
        ]
        assert (pull[1] > 100 * pull[0]) == follows, update
        assert follows or pull[1] == 0


def test_h_regresses_on_the_error_that_is_not_bounded(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agent = build(configs["td3"], objective=huber(0.1), critics=2)
    batch, noise = draw_batch(0)._replace(reward=torch.full((8,), 50.0)), agent.draw(8)
    value, target, h = pieces(agent, batch, noise)
    error = (target - value).detach()
    loss, metrics = agent.objective.loss(agent, batch, noise)
    assert float(loss) == pytest.approx(float((0.5 * batch.weight * (error - h) ** 2).mean(-1).sum()), rel=1e-5)
    assert float(metrics["bounded_share"]) == pytest.approx(float((h.abs() > 0.1).float().mean()))
    assert float(metrics["explained_error"]) == pytest.approx(float(h.square().mean() / error.square().mean()), rel=1e-5)
    trained = {name: p for name, p in agent.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    reached = {name for name, g in zip(trained, gradients, strict=True) if g is not None}
    assert reached == {f"objective.secondary.{name}" for name, _ in agent.objective.secondary.named_parameters()}


def test_weight_decay_regularises_h_beside_adam(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    plain, decayed = (build(configs["td3"], objective=huber(optimizer=Adam(0.01, weight_decay=beta))) for beta in (0.0, 1.0))
    before = [p.detach().clone() for p in plain.objective.parameters()]
    for agent in (plain, decayed):
        agent.update(draw_batch(0))
    for old, p, q in zip(before, plain.objective.parameters(), decayed.objective.parameters(), strict=True):
        torch.testing.assert_close(q, p - 0.01 * old, rtol=1e-4, atol=1e-6)


def test_clipped_semi_gradient_is_smooth_l1_of_the_sampled_error(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    for name in ("sac", "sac-simba-v2"):
        agent = build(configs[name], objective=ClippedSemiGradient(0.5))
        batch, noise = draw_batch(0), agent.draw(8)
        regression = agent.regression(batch, noise)
        delta = (agent.head.expectation(regression.target()) - agent.head.value(regression.output)).abs()
        expected = torch.where(delta <= 0.5, 0.5 * delta**2, 0.5 * (delta - 0.25))
        torch.testing.assert_close(agent.objective(regression), expected)
        assert bool((delta > 0.5).any())


def test_a_large_threshold_makes_the_clipped_objective_the_squared_one(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    clipped, squared = build(configs["td3"], objective=ClippedSemiGradient(1e6)), build(configs["td3"], objective=Squared())
    batch, noise = draw_batch(0), squared.draw(8)
    torch.testing.assert_close(clipped.critic_loss(batch, noise, {})[0], squared.critic_loss(batch, noise, {})[0])


def rewarded(rows: int = 50) -> Batch:
    """One state and action, whose reward is 50 once in fifty times, and then the same state: mean reward 1."""
    reward = 50.0 * (torch.arange(rows) == 7).float()
    obs, action = torch.zeros(rows, 1), torch.ones(rows, 1)
    return Batch(obs, action, reward, obs, torch.full((rows,), 0.5), torch.ones(rows), torch.arange(rows))


@pytest.mark.parametrize(
    ("objective", "value"),
    [
        (Squared(), 2.0),
        (ClippedSemiGradient(1.0), 0.04),
        (HuberBellman(1.0, "saddle-point", network=MLP(()), optimizer=Adam(0.06)), 2.0),
        (HuberBellman(1.0, "corrected", network=MLP(()), optimizer=Adam(0.06)), 2.0),
        (HuberBellman(1.0, "gated", network=MLP(()), optimizer=Adam(0.06)), 2.0),
    ],
)
def test_rare_large_rewards_are_averaged_by_all_but_the_clipped_sample(objective: Any, value: float) -> None:
    config = DQN(critic=MLP(()), objective=objective, optimizer=Adam(3e-2), target_period=5)
    spec, execution = Spec(1, 1, discrete=True), Execution(compile=False)
    agent = config.build(spec, num_envs=1, total_updates=1, seed=0, execution=execution)
    batch, values = rewarded(), []
    for count in range(300):
        metrics = agent.update(batch)
        values += [float(metrics["value"])] if count >= 200 else []
    found = sum(values) / len(values)
    assert found == pytest.approx(value, rel=0.12, abs=0.03)


@pytest.mark.parametrize("threshold", [0.0, -1.0, math.nan])
@pytest.mark.parametrize("kind", [HuberBellman, ClippedSemiGradient])
def test_thresholds_that_bound_nothing_are_refused(kind: Any, threshold: float) -> None:
    with pytest.raises(SlotError, match=f"threshold of {kind.__name__} is .*give a positive number"):
        kind(threshold)


@pytest.mark.parametrize("objective", [HuberBellman(), AbsoluteBellman()])
def test_iql_refuses_with_the_reason(objective: Any, build: Build, configs: Any) -> None:
    with pytest.raises(
        SlotError, match=r"targets that move with the critic, and those of IQL come from another network; use .* Squared"
    ):
        build(configs["iql"], objective=objective)


def test_a_categorical_critic_is_pulled_through_its_mean(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agent = build(configs["sac-simba-v2"], objective=huber(1.0), head=Categorical(21, -5.0, 5.0))
    assert all(agent.check(agent.update(draw_batch(count))) is None for count in range(3))
