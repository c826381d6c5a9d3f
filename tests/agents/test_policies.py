"""Squashed Gaussian and deterministic policies."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from steelyard.agents.networks.policies import DeterministicPolicy, Gaussian, GaussianPolicy


class Answer(nn.Module):
    """A network that answers what it was given."""

    def __init__(self, *outputs: Tensor):
        super().__init__()
        self.outputs = outputs

    def forward(self, obs: Tensor) -> tuple[Tensor, ...]:
        return self.outputs


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("bound", ["clamp", "tanh"])
def test_log_density_equals_that_of_torchs_transformed_normal(bound: str) -> None:
    config = Gaussian(-3.0, 1.0, bound)  # pyright: ignore[reportArgumentType]
    mean, raw, noise = normal(50, 3, seed=0), normal(50, 3, seed=1), normal(50, 3, seed=2)
    action, log_prob = GaussianPolicy(Answer(mean, raw), config)(torch.zeros(50, 1), noise)
    std = config.log_std(raw).exp()
    x = mean + std * noise
    reference = Independent(TransformedDistribution(Normal(mean, std), TanhTransform(cache_size=1)), 1)
    torch.testing.assert_close(action, x.tanh())
    inside = x.abs().amax(-1) < 6  # beyond, the reference loses digits by inverting the tanh
    assert inside.sum() > 40
    torch.testing.assert_close(log_prob[inside], reference.log_prob(action)[inside], rtol=1e-7, atol=1e-7)


def test_log_density_stays_finite_where_the_action_is_saturated() -> None:
    """At |x| = 40 the tanh is one in float32; log(1 - tanh^2) = 2 (log 2 - |x|) there."""
    mean = torch.tensor([[40.0], [-40.0]], requires_grad=True)
    _, log_prob = GaussianPolicy(Answer(mean, torch.zeros(2, 1)), Gaussian())(torch.zeros(2, 1), torch.zeros(2, 1))
    assert log_prob.tolist() == pytest.approx([-0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - 40)] * 2, rel=1e-6)
    (gradient,) = torch.autograd.grad(log_prob.sum(), mean)
    assert gradient.flatten().tolist() == pytest.approx([2.0, -2.0], rel=1e-5)


def test_clamped_deviation_is_cut_off_at_its_bounds() -> None:
    raw = torch.tensor([-50.0, -20.0, -1.5, 0.0, 2.0, 9.0])
    assert Gaussian().log_std(raw).tolist() == [-20.0, -20.0, -1.5, 0.0, 2.0, 2.0]


def test_squashed_deviation_fills_its_range_and_starts_in_the_middle() -> None:
    config = Gaussian(-10.0, 2.0, "tanh")
    assert config.log_std(torch.tensor([-50.0, 0.0, 50.0])).tolist() == [-10.0, -4.0, 2.0]
    assert config.log_std(torch.tensor(0.5)).item() == pytest.approx(-10 + 6 * (1 + math.tanh(0.5)), rel=1e-6)


def test_modes_are_the_squashed_means() -> None:
    mean = torch.tensor([[0.3, -2.0]])
    expected = [[math.tanh(0.3), math.tanh(-2.0)]]
    for policy in (GaussianPolicy(Answer(mean, torch.ones(1, 2)), Gaussian()), DeterministicPolicy(Answer(mean), 0.1)):
        assert policy.mode(torch.zeros(1, 1)).tolist()[0] == pytest.approx(expected[0], rel=1e-6)
    assert DeterministicPolicy(Answer(mean), 0.1)(torch.zeros(1, 1)).tolist()[0] == pytest.approx(expected[0], rel=1e-6)


def test_samples_add_the_noise_where_each_policy_adds_it() -> None:
    mean, noise = torch.tensor([[0.3, -2.0]]), torch.tensor([[1.5, -0.5]])
    gaussian = GaussianPolicy(Answer(mean, torch.tensor([[-1.0, 0.5]])), Gaussian())
    expected = [math.tanh(0.3 + math.exp(-1.0) * 1.5), math.tanh(-2.0 - math.exp(0.5) * 0.5)]
    assert gaussian.sample(torch.zeros(1, 1), noise).tolist()[0] == pytest.approx(expected, rel=1e-6)
    deterministic = DeterministicPolicy(Answer(mean), 0.2)
    expected = [math.tanh(0.3) + 0.2 * 1.5, -1.0]
    assert deterministic.sample(torch.zeros(1, 1), noise).tolist()[0] == pytest.approx(expected, rel=1e-6)
