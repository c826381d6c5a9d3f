"""SimbaV2's networks against an independent implementation of the published definition in numpy, in float64."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from steelyard.agents.networks import SimbaV2
from steelyard.agents.networks.critic import Critic
from steelyard.agents.networks.policies import Gaussian, GaussianPolicy

Array = np.ndarray[Any, np.dtype[np.float64]]
Weights = dict[str, Array]


def unit(x: Array) -> Array:
    """n(x) = x / max(||x||, 1e-8) along the last axis."""
    return x / np.maximum(np.sqrt((x * x).sum(-1, keepdims=True)), 1e-8)


def published(weights: Weights, x: Array, width: int, blocks: int, expansion: int, heads: int) -> list[Array]:
    """Sections 4.1 to 4.4 of arXiv 2502.15280 as the authors' code runs them: one observation row after the other."""

    def dense(name: str, x: Array) -> Array:
        return np.array([[float(np.dot(row, v)) for row in weights[name]] for v in x])

    def scale(name: str, x: Array, initial: float, parameter_start: float) -> Array:
        return weights[name].reshape(-1) * (initial / parameter_start) * x

    hidden = expansion * width
    x = np.concatenate([x, np.full((len(x), 1), 3.0)], axis=-1)
    h = dense("embedding.linear.weight", unit(x))
    h = unit(scale("embedding.scaler.weight", h, math.sqrt(2 / width), math.sqrt(2 / width)))
    for i in range(blocks):
        u = dense(f"blocks.{i}.expand.weight", h)
        u = scale(f"blocks.{i}.scaler.weight", u, math.sqrt(2 / hidden), math.sqrt(2 / hidden))
        u = np.maximum(u, 0.0) + 1e-8
        mlp = unit(dense(f"blocks.{i}.contract.weight", u))
        h = unit(h + scale(f"blocks.{i}.interpolation.weight", mlp - h, 1 / (blocks + 1), 1 / math.sqrt(width)))
    outputs = []
    for i in range(heads):
        u = scale(f"heads.{i}.scaler.weight", dense(f"heads.{i}.hidden.weight", h), 1.0, 1.0)
        outputs.append(dense(f"heads.{i}.linear.weight", u) + weights[f"heads.{i}.bias"].reshape(-1))
    return outputs


def perturb(module: torch.nn.Module) -> None:
    """Weights as training leaves them: scalers and biases away from where they start, matrices with unit rows."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "scaler" in name or "interpolation" in name:
                parameter.mul_(0.5 + torch.rand(parameter.shape, generator=generator))
            elif "bias" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator))
            else:
                parameter.copy_(torch.nn.functional.normalize(torch.randn(parameter.shape, generator=generator), dim=-1))


def copied(module: torch.nn.Module, member: int | None = None) -> Weights:
    chosen = {name: p.detach() if member is None else p.detach()[member] for name, p in module.named_parameters()}
    return {name: value.double().numpy() for name, value in chosen.items()}


@pytest.mark.parametrize(("width", "blocks", "expansion"), [(16, 2, 4), (8, 1, 4), (12, 3, 2)])
@pytest.mark.parametrize("members", [None, 1, 2])
def test_forward_equals_the_published_definition(width: int, blocks: int, expansion: int, members: int | None) -> None:
    network = SimbaV2(width, blocks, expansion).build(5, (7, 3), members)
    perturb(network)
    x = 4 * torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    outputs = network(x)
    for member in range(members or 1):
        weights = copied(network, None if members is None else member)
        expected = published(weights, x.double().numpy(), width, blocks, expansion, 2)
        for output, reference in zip(outputs, expected, strict=True):
            got = output if members is None else output[member]
            np.testing.assert_allclose(got.detach().numpy(), reference, rtol=2e-5, atol=2e-6)


def test_untouched_network_equals_the_published_definition() -> None:
    """Straight from its constructor: rows are projected, and scalers start where the definition says."""
    network = SimbaV2(16, 2).build(5, (4,))
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    weights = copied(network)
    start = {
        "embedding.scaler": math.sqrt(2 / 16),
        "interpolation": 1 / 4,
        "heads.0.scaler": 1.0,
        "blocks.0.scaler": math.sqrt(2 / 64),
    }
    for part, value in start.items():
        matching = [w for name, w in weights.items() if part in name]
        assert matching
        for weight in matching:
            np.testing.assert_allclose(weight, value, rtol=1e-6)
    assert not weights["heads.0.bias"].any()
    expected = published(weights, x.double().numpy(), 16, 2, 4, 1)[0]
    np.testing.assert_allclose(network(x)[0].detach().numpy(), expected, rtol=2e-5, atol=2e-6)


def test_the_magnitude_of_the_input_survives_its_projection() -> None:
    network = SimbaV2(16, 1).build(2, (8,))
    one, ten = (network(scale * torch.tensor([[0.6, -0.8]]))[0] for scale in (1.0, 10.0))
    assert (one - ten).abs().max().item() > 1e-3


def test_twins_are_separate_networks_with_their_own_start() -> None:
    """Each member depends on its own weights alone, and all matrices differ between members."""
    critic = Critic(SimbaV2(8, 1).build(5, (3,), 2))
    obs, action = torch.randn(4, 3), torch.rand(4, 2)
    before = critic(obs, action)
    assert before.shape == (2, 4, 3)
    for name, parameter in critic.named_parameters():
        if "scaler" not in name and "interpolation" not in name and "bias" not in name:
            assert not torch.allclose(parameter[0], parameter[1]), name
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter[1] += 0.1
    after = critic(obs, action)
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


def test_actor_maps_its_two_heads_to_a_squashed_gaussian() -> None:
    body = SimbaV2(8, 1).build(5, (2, 2))
    perturb(body)
    policy = GaussianPolicy(body, Gaussian(-10.0, 2.0, "tanh"))
    obs, noise = torch.randn(6, 5), torch.randn(6, 2)
    mean, raw = published(copied(body), obs.double().numpy(), 8, 1, 4, 2)
    std = np.exp(-10 + 6 * (1 + np.tanh(raw)))
    action, log_prob = policy(obs, noise)
    x = mean + std * noise.double().numpy()
    np.testing.assert_allclose(action.detach().numpy(), np.tanh(x), rtol=1e-4, atol=1e-6)
    density = -0.5 * noise.double().numpy() ** 2 - np.log(std) - 0.5 * math.log(2 * math.pi) - np.log1p(-(np.tanh(x) ** 2))
    np.testing.assert_allclose(log_prob.detach().numpy(), density.sum(-1), rtol=1e-4, atol=1e-4)
