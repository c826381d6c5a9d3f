"""Perceptrons against torch's own layers, member by member."""

import pytest
import torch
from torch import Tensor, nn

from steelyard.agents.networks import MLP
from steelyard.agents.networks.linear import orthogonal


def perturb(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def reference(network: nn.Module, x: Tensor, hidden: tuple[int, ...], layer_norm: bool, member: int | None) -> Tensor:
    """The same weights in torch's functions: linear, layer norm, ReLU, ..., linear."""

    def weight(name: str) -> Tensor:
        found = network.get_parameter(name)
        return found if member is None else found[member].squeeze(0) if "weight" not in name else found[member]

    for i, size in enumerate(hidden):
        x = nn.functional.linear(x, weight(f"layers.{i}.weight"), weight(f"layers.{i}.bias"))
        if layer_norm:
            x = nn.functional.layer_norm(x, (size,), weight(f"norms.{i}.gain"), weight(f"norms.{i}.offset"))
        x = x.relu()
    return nn.functional.linear(x, weight("output.weight"), weight("output.bias"))


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("members", [None, 1, 3])
@pytest.mark.parametrize("hidden", [(), (7,), (6, 5)], ids=str)
def test_forward_equals_torchs_layers(hidden: tuple[int, ...], members: int | None, layer_norm: bool) -> None:
    network = MLP(hidden, layer_norm).build(4, (2, 3), members)
    perturb(network)
    x = 2 * torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    first, second = network(x)
    assert first.shape == ((9, 2) if members is None else (members, 9, 2))
    for member in range(members or 1):
        got = torch.cat([first, second], -1)
        expected = reference(network, x, hidden, layer_norm, None if members is None else member)
        torch.testing.assert_close(got if members is None else got[member], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "hidden", "output"),
    [
        (MLP((16,)), 3**-0.5, 3**-0.5),
        (MLP((16,), gain=2**0.5), 2**0.5, 2**0.5),
        (MLP((16,), gain=2**0.5, output_gain=0.01), 2**0.5, 0.01),
    ],
)
def test_layers_start_orthogonal_with_their_gains(config: MLP, hidden: float, output: float) -> None:
    network = config.build(4, (3,), 2)
    for name, gain in (("layers.0.weight", hidden), ("output.weight", output)):
        for member in network.get_parameter(name).detach():
            smaller = member if member.shape[0] < member.shape[1] else member.T
            torch.testing.assert_close(smaller @ smaller.T, gain**2 * torch.eye(len(smaller)), atol=1e-5, rtol=0)
    assert not network.get_parameter("layers.0.bias").any()
    assert not network.get_parameter("output.bias").any()


def test_rebracs_initial_values() -> None:
    """Hidden weights uniform within 1 / sqrt(inputs) with biases of 0.1; the output layer within its own range."""
    network = MLP((64, 100), fan_in=True, hidden_bias=0.1, output_range=0.003).build(16, (5,), 2)
    for name, bound in (("layers.0.weight", 0.25), ("layers.1.weight", 0.125), ("output.weight", 0.003), ("output.bias", 0.003)):
        values = network.get_parameter(name).detach()
        assert 0.8 * bound < values.abs().max() <= bound, name
        if values.numel() > 100:
            assert float(values.std()) == pytest.approx(bound / 3**0.5, rel=0.1), name
        assert not torch.equal(values[0], values[1])
    for name in ("layers.0.bias", "layers.1.bias"):
        assert torch.equal(network.get_parameter(name), torch.full_like(network.get_parameter(name), 0.1))


def test_members_are_drawn_independently() -> None:
    one, two = orthogonal(2, 5, 5)
    assert not torch.allclose(one, two)
    assert orthogonal(None, 5, 3).shape == (5, 3)


def test_unit_features_have_length_one_and_bound_the_output() -> None:
    torch.manual_seed(0)
    network = MLP((16, 12), unit_features=True).build(3, (2,), 4)
    seen: list[torch.Tensor] = []
    network.output.register_forward_pre_hook(lambda module, given: seen.append(given[0]))  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    (small,) = network(torch.randn(5, 3))
    (large,) = network(1e6 * torch.randn(5, 3))
    for features in seen:
        torch.testing.assert_close(features.square().sum(-1), torch.ones(4, 5))
    assert float(large.detach().abs().max()) < 10 * float(small.detach().abs().max()) + 1
