"""What normalisers learn from a data set, and what changes when the offline phase ends."""

from typing import Any

import numpy as np
import pytest
import torch

from steelyard.agents.networks import MLP
from steelyard.agents.networks.normalizers import (
    AffineRewards,
    DatasetNorm,
    NormalizerError,
    ReturnRange,
    ReturnScale,
    RunningNorm,
)
from steelyard.agents.optimizer import Adam
from steelyard.agents.types import Records

OBS = torch.tensor([[0.0, 2.0], [4.0, 2.0], [2.0, 8.0]])
RECORDS = Records(OBS, torch.tensor([1.0, 2.0, 4.0]), torch.tensor([False, True, True]), torch.tensor([3.0, 4.0]))


def test_dataset_norm_takes_the_population_deviation_adds_epsilon_and_freezes() -> None:
    norm = DatasetNorm().build(2)
    torch.testing.assert_close(norm(OBS), OBS)
    norm.fit(RECORDS)
    expected = (OBS.numpy() - [2, 4]) / (np.array([np.sqrt(8 / 3), np.sqrt(8)]) + 1e-3)
    np.testing.assert_allclose(norm(OBS).numpy(), expected, rtol=1e-6)
    norm.observe(100 * OBS, torch.ones(3, dtype=torch.bool))
    np.testing.assert_allclose(norm(OBS).numpy(), expected, rtol=1e-6)


def test_running_norm_begins_with_the_data() -> None:
    norm = RunningNorm().build(2)
    norm.fit(RECORDS)
    np.testing.assert_allclose(norm.statistics.mean.numpy(), [2, 4], rtol=1e-3)
    np.testing.assert_allclose(norm.statistics.variance.numpy(), [8 / 3, 8], rtol=1e-3)


def test_affine_rewards() -> None:
    assert AffineRewards(10.0, -5.0).build(1, 0.99)(torch.tensor([0.0, 1.0])).tolist() == [-5.0, 5.0]


def test_return_range_scales_the_range_of_returns_to_a_thousand() -> None:
    scale = ReturnRange().build(1, 0.99)
    assert scale(torch.tensor([2.0])).item() == 2.0
    scale.fit(RECORDS)
    assert scale(torch.tensor([2.0])).item() == pytest.approx(2000.0)
    with pytest.raises(NormalizerError, match="same return"):
        scale.fit(RECORDS._replace(returns=torch.ones(4)))


def test_return_scale_fitted_equals_observed_step_by_step() -> None:
    generator = torch.Generator().manual_seed(0)
    reward, done = torch.randn(200, generator=generator), torch.rand(200, generator=generator) < 0.1
    fitted, observed = (ReturnScale().build(1, 0.9) for _ in range(2))
    fitted.fit(Records(torch.zeros(200, 1), reward, done, torch.zeros(1)))
    for r, d in zip(reward, done, strict=True):
        observed.observe(r[None].double(), d[None], torch.ones(1, dtype=torch.bool))
    assert fitted.largest.item() == pytest.approx(observed.largest.item(), rel=1e-6)
    assert fitted.statistics.variance.item() == pytest.approx(observed.statistics.variance.item(), rel=1e-6)


def rates(adam: Adam, steps: int, online_after: int | None = None) -> list[float]:
    state, found = adam.build({"p": torch.zeros(1)}, 4), []
    for step in range(steps):
        if step == online_after:
            state.begin_online()
        state.step({"p": torch.zeros(1)}, {"p": torch.zeros(1)})
        found.append(state.learning_rate().item())
    return found


def test_the_cosine_falls_to_its_end_and_stays() -> None:
    expected = [0.5 * (1 + np.cos(np.pi * min(k / 4, 1))) for k in range(6)]
    assert rates(Adam(1.0, 0.0, decay="cosine"), 6) == pytest.approx(expected, abs=1e-6)


def test_online_the_learning_rate_is_constant() -> None:
    assert rates(Adam(1.0, 0.0, decay="cosine"), 4, online_after=2) == pytest.approx(
        [1.0, 0.5 * (1 + np.cos(np.pi / 4)), 1.0, 1.0]
    )
    assert rates(Adam(1.0), 3, online_after=1) == [1.0, 1.0, 1.0]


def test_norm_after_the_relu() -> None:
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    network: Any = MLP((8,), layer_norm=True, norm_after=True).build(3, (1,))
    hidden = network.layers[0](x).relu()
    expected = network.output(torch.nn.functional.layer_norm(hidden, (8,)))
    torch.testing.assert_close(network(x)[0], expected)
    assert not torch.allclose(MLP((8,), layer_norm=True).build(3, (1,))(x)[0], expected)
