"""The batched product that every ensemble is made of, against PyTorch's own."""

import pytest
import torch
from torch.func import grad, vmap

from steelyard.agents.networks.linear import product

MEMBERS, BATCH, INPUTS, OUTPUTS = 3, 5, 7, 4


@pytest.fixture
def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(MEMBERS, BATCH, INPUTS, dtype=torch.float64), torch.randn(MEMBERS, OUTPUTS, INPUTS, dtype=torch.float64)


def plain(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.einsum("mbi,moi->mbo", x, weight)


def test_value_and_both_gradients_are_those_of_the_plain_product(tensors):
    def loss(function):
        return lambda x, weight: function(x, weight).sin().sum()

    assert torch.allclose(product(*tensors), plain(*tensors))
    for position in (0, 1):
        found, expected = (grad(loss(function), position)(*tensors) for function in (product, plain))
        assert torch.allclose(found, expected)


def test_rows_that_all_members_share_get_the_sum_of_their_gradients(tensors):
    x, weight = tensors
    found, expected = (
        grad(lambda rows, f=function: f(rows, weight).sin().sum())(x[0]) for function in (product, plain_of_shared)
    )
    assert torch.allclose(found, expected)


def plain_of_shared(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.einsum("bi,moi->mbo", x, weight)


def test_second_derivatives_pass(tensors):
    x, weight = (tensor.requires_grad_() for tensor in tensors)
    assert torch.autograd.gradgradcheck(lambda x, weight: product(x, weight).sin(), (x, weight))


def test_it_maps_over_a_further_axis(tensors):
    x, weight = (torch.stack([tensor, 2 * tensor]) for tensor in tensors)
    assert torch.allclose(vmap(product)(x, weight), torch.stack([plain(*pair) for pair in zip(x, weight, strict=True)]))


def test_the_gradient_of_the_weights_is_laid_out_as_the_weights_are(tensors):
    x, weight = tensors
    assert grad(lambda weight: product(x, weight).sum())(weight).stride() == weight.stride()
