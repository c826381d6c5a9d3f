"""Running statistics against loops in numpy's float64, and which observations and rewards enter them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from steelyard.agents.networks.normalizers import RawObservations, ReturnScale, RunningNorm, RunningStatistics, UnscaledRewards
from steelyard.agents.types import Batch, Step


class Reference:
    """Chan's parallel mean and variance as SimbaV2's code has it: mean 0, variance 1, pseudo-count 1e-4, ddof 0."""

    def __init__(self, size: int):
        self.mean, self.variance, self.count = np.zeros(size), np.ones(size), 1e-4

    def observe(self, x: Any) -> None:
        rows = np.asarray(x, dtype=np.float64)
        if not len(rows):
            return
        n, delta = len(rows), rows.mean(0) - self.mean
        total = self.count + n
        self.mean = self.mean + delta * n / total
        self.variance = (self.variance * self.count + rows.var(0) * n + delta**2 * self.count * n / total) / total
        self.count = total

    def assert_equals(self, statistics: RunningStatistics, tolerance: float = 1e-12) -> None:
        np.testing.assert_allclose(statistics.mean.numpy(), self.mean, rtol=tolerance)
        np.testing.assert_allclose(statistics.variance.numpy(), self.variance, rtol=tolerance)
        assert statistics.count.item() == pytest.approx(self.count, rel=1e-12)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize(("offset", "tolerance"), [(0.0, 1e-9), (1e5, 1e-7)])
def test_statistics_equal_the_reference_in_float64(rows: int, offset: float, tolerance: float) -> None:
    """With an offset of 1e5, sums of squares or float32 would leave nothing of a variance of one."""
    statistics, reference = RunningNorm().build(4).statistics, Reference(4)
    assert isinstance(statistics, RunningStatistics)
    for count in range(200):
        x = (normal(rows, 4, seed=count) * torch.tensor([1.0, 0.01, 30.0, 1.0])).double() + offset
        statistics.observe(x, torch.ones(rows, dtype=torch.bool))
        reference.observe(x.numpy())
    reference.assert_equals(statistics, tolerance)


def test_statistics_approach_those_of_all_data() -> None:
    data = 3 * normal(20_000, 2) + 5
    statistics = RunningStatistics((2,))
    for chunk in data.double().split(50):
        statistics.observe(chunk, torch.ones(50, dtype=torch.bool))
    np.testing.assert_allclose(statistics.mean.numpy(), data.double().mean(0).numpy(), rtol=1e-6)
    np.testing.assert_allclose(statistics.variance.numpy(), data.double().numpy().var(0), rtol=1e-5)


def test_excluded_rows_leave_no_trace() -> None:
    statistics, reference = RunningStatistics((2,)), Reference(2)
    for count in range(20):
        x = normal(5, 2, seed=count).double()
        included = torch.rand(5, generator=torch.Generator().manual_seed(count)) < 0.5
        included = included & (count % 4 != 0)  # now and then nothing is included
        statistics.observe(torch.where(included[:, None], x, 1e9), included)
        reference.observe(x[included].numpy())
    reference.assert_equals(statistics)


def test_normalised_observations_are_centred_scaled_unclipped_and_float32() -> None:
    module: Any = RunningNorm(epsilon=1e-8).build(2)
    module.statistics.mean.copy_(torch.tensor([1e6, 0.0]))
    module.statistics.variance.copy_(torch.tensor([4.0, 0.0]))
    got = module(torch.tensor([[1e6 + 3.0, 0.0], [1e6 + 1000.0, 1e-3]]))
    assert got.dtype == torch.float32
    assert got[0].tolist() == pytest.approx([1.5, 0.0])
    assert got[1].tolist() == pytest.approx([500.0, 10.0], rel=1e-6)


def test_neutral_normalisers_hand_over_the_same_tensor_and_hold_nothing() -> None:
    for module, x in ((RawObservations().build(2), normal(3, 2)), (UnscaledRewards().build(3, 0.9), normal(3))):
        assert module(x) is x
        assert not module.state_dict()


def step(
    obs: list[float], next_obs: list[float], reward: list[float], ended: list[bool], cut: list[bool], valid: list[bool]
) -> Step:
    return Step(
        obs=torch.tensor(obs)[:, None].expand(-1, 3).contiguous(),
        next_obs=torch.tensor(next_obs)[:, None].expand(-1, 3).contiguous(),
        reward=torch.tensor(reward),
        terminated=torch.tensor(ended),
        truncated=torch.tensor(cut),
        valid=torch.tensor(valid),
        info={},
    )


SAME_STEP = [
    step([1.0, 2.0], [1.0, 2.0], [1.0, 1.0], [False, False], [False, False], [True, True]),
    step([10.0, 20.0], [-99.0, -99.0], [1.0, 1.0], [True, False], [False, True], [True, True]),
    step([11.0, 21.0], [11.0, 21.0], [1.0, 1.0], [False, False], [False, False], [True, True]),
]
"""Worlds that are reset within the call that ends their episode: `next_obs` is terminal, `obs` belongs to the new episode."""
NEXT_STEP = [
    step([1.0, 2.0], [1.0, 2.0], [1.0, 1.0], [False, False], [False, False], [True, True]),
    step([-99.0, -99.0], [-99.0, -99.0], [1.0, 1.0], [True, False], [False, True], [True, True]),
    step([10.0, 20.0], [10.0, 20.0], [0.0, 0.0], [False, False], [False, False], [False, False]),
    step([11.0, 21.0], [11.0, 21.0], [1.0, 1.0], [False, False], [False, False], [True, True]),
]
"""Worlds whose reset takes a call of its own."""


@pytest.mark.parametrize("steps", [SAME_STEP, NEXT_STEP], ids=["same-step", "next-step"])
def test_what_enters_is_the_observation_acted_on_next_and_never_a_terminal_one(
    steps: list[Step], build: Callable[..., Any], configs: Any
) -> None:
    agent, reference = build(configs["sac-simba-v2"]), Reference(3)
    for taken in steps:
        agent.observe(taken)
    for acted_on in ([1.0, 2.0], [10.0, 20.0], [11.0, 21.0]):
        reference.observe(np.repeat(np.array(acted_on)[:, None], 3, axis=1))
    reference.assert_equals(agent.normalizer.statistics)


@pytest.mark.parametrize("steps", [SAME_STEP, NEXT_STEP], ids=["same-step", "next-step"])
def test_both_ways_of_resetting_give_the_same_return_statistics(
    steps: list[Step], build: Callable[..., Any], configs: Any
) -> None:
    """G = 1, then the ended step's reward alone, which is carried into the next episode with a discount."""
    agent, reference = build(configs["sac-simba-v2"]), Reference(1)
    for taken in steps:
        agent.observe(taken)
    for g in (1.0, 1.0, 1.0 + 0.995):
        reference.observe([[g], [g]])
    statistics = agent.reward_scale.statistics
    assert statistics.variance.item() == pytest.approx(reference.variance[0], rel=1e-10)
    assert statistics.count.item() == pytest.approx(reference.count, rel=1e-10)
    assert agent.reward_scale.largest.item() == pytest.approx(1.995, rel=1e-12)


def test_observing_learns_and_acting_or_updating_does_not(
    build: Callable[..., Any], draw_batch: Callable[..., Batch], configs: Any
) -> None:
    agent = build(configs["sac-simba-v2"])
    state = {name: value.clone() for name, value in agent.normalizer.state_dict().items()}
    scale = {name: value.clone() for name, value in agent.reward_scale.state_dict().items()}
    agent.update(draw_batch(0))
    agent.act(torch.zeros(4, 3), explore=False)
    assert all(torch.equal(state[name], value) for name, value in agent.normalizer.state_dict().items())
    assert all(torch.equal(scale[name], value) for name, value in agent.reward_scale.state_dict().items())
    agent.observe(SAME_STEP[0])
    assert agent.normalizer.state_dict()["statistics.count"] > 1.9


def test_batches_are_normalised_with_the_statistics_of_the_moment(
    build: Callable[..., Any], draw_batch: Callable[..., Batch], configs: Any
) -> None:
    agent, batch = build(configs["sac-simba-v2"]), draw_batch(0)
    for taken in SAME_STEP:
        agent.observe(taken)
    seen, statistics = agent.prepare(batch, agent.draw(len(batch.obs))), agent.normalizer.statistics
    deviation = (statistics.variance + 1e-8).sqrt()
    torch.testing.assert_close(seen.obs, ((batch.obs - statistics.mean) / deviation).float())
    torch.testing.assert_close(seen.next_obs, ((batch.next_obs - statistics.mean) / deviation).float())
    scale = max(math.sqrt(agent.reward_scale.statistics.variance.item() + 1e-8), agent.reward_scale.largest.item() / 5)
    torch.testing.assert_close(seen.reward, batch.reward / scale)
    for name in ("action", "discount", "weight", "index"):
        assert getattr(seen, name) is getattr(batch, name)


def test_return_scale_equals_a_plain_loop() -> None:
    """Three worlds, 300 steps of rewards with both signs, random episode ends and random resets that are no transitions."""
    gamma, worlds = 0.97, 3
    module: Any = ReturnScale(max_return=5.0).build(worlds, gamma)
    reference, g, largest = Reference(1), [0.0] * worlds, 0.0
    random = np.random.default_rng(0)
    for _ in range(300):
        reward, done, valid = random.normal(-1, 3, worlds), random.random(worlds) < 0.05, random.random(worlds) < 0.9
        reward[~valid] = 0
        entering = []
        for i in range(worlds):
            if valid[i]:
                g[i] = gamma * (0.0 if done[i] else g[i]) + float(np.float32(reward[i]))
                largest = max(largest, abs(g[i]))
                entering.append([g[i]])
        reference.observe(np.array(entering).reshape(-1, 1))
        module.observe(torch.tensor(reward, dtype=torch.float32), torch.tensor(done), torch.tensor(valid))
        expected = max(math.sqrt(reference.variance[0] + 1e-8), largest / 5)
        assert (1 / module(torch.ones(1, dtype=torch.float64))).item() == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(module.discounted.numpy(), g, rtol=1e-12)
    assert module.largest.item() == pytest.approx(largest, rel=1e-12)
    assert module.statistics.variance.item() == pytest.approx(reference.variance[0], rel=1e-10)


def test_the_largest_return_counts_without_its_sign_and_bounds_the_scaled_one() -> None:
    """A constant reward has almost no variance; dividing by it alone would leave the critic's support."""
    for sign in (1.0, -1.0):
        module: Any = ReturnScale(max_return=5.0).build(1, 0.99)
        for _ in range(1_000):
            module.observe(torch.tensor([sign]), torch.tensor([False]), torch.tensor([True]))
        final = sign * (1 - 0.99**1_000) / 0.01
        assert module.largest.item() == pytest.approx(abs(final), rel=1e-9)
        module.statistics.variance.fill_(1.0)
        assert module(torch.tensor([sign])).item() * abs(final) == pytest.approx(sign * 5.0, rel=1e-5)
    doubled: Any = ReturnScale(max_return=10.0).build(1, 0.99)
    doubled.largest.fill_(200.0)
    assert doubled(torch.tensor([1.0])).item() == pytest.approx(1 / 20)


def test_scaled_rewards_are_not_centred() -> None:
    module: Any = ReturnScale().build(1, 0.9)
    module.statistics.mean.fill_(17.0)
    module.statistics.variance.fill_(4.0)
    assert module(torch.tensor([0.0, 2.0])).tolist() == [0.0, 1.0]


def test_statistics_stay_float64_through_saving_moving_and_loading(build: Callable[..., Any], configs: Any) -> None:
    agent, other = build(configs["sac-simba-v2"]), build(configs["sac-simba-v2"], seed=1)
    for taken in SAME_STEP:
        agent.observe(taken)
    agent.normalizer.statistics.mean.fill_(1 / 3)  # no float32 number
    other.load_state_dict(agent.state_dict())
    other.to("cpu")
    state = {name: value for name, value in other.state_dict().items() if name.startswith(("normalizer", "reward_scale"))}
    assert len(state) == 3 + 5
    for name, value in state.items():
        assert value.dtype == torch.float64, name
        assert torch.equal(value, agent.state_dict()[name]), name
