"""The affine map that every network is made of, alone or as an ensemble evaluated in one batched product."""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def orthogonal(members: int | None, outputs: int, inputs: int, gain: float = 1.0) -> Tensor:
    """Orthogonal weights [outputs, inputs], or [members, outputs, inputs] with independent members (Saxe et al. 2014)."""
    weight = torch.empty(members or 1, outputs, inputs)
    for member in weight:
        nn.init.orthogonal_(member, gain)
    return weight if members else weight[0]


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T for W [outputs, inputs]; for W [members, outputs, inputs] and x [batch, inputs] or [members, batch, inputs]: [members, batch, outputs].

    The batched product is spelt out because `x @ W.mT` folds members into rows and then copies its transposed result.
    """
    if weight.ndim == 2:
        return F.linear(x, weight)
    if weight.shape[0] == 1:
        return F.linear(x, weight[0]).view(1, x.shape[-2], -1)
    return batched_product(autocast(x).expand(weight.shape[0], -1, -1), autocast(weight))


def matrix_precision(device: torch.device, bf16: bool) -> torch.autocast:
    """A context in which matrix products are made in bfloat16 or, without it, in the precision of what is multiplied.

    Weights change with every update, so the casts of one are not kept for the next.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False)


def autocast(x: Tensor) -> Tensor:
    """The tensor in the precision of matrix products around it: autocast does not look into a function with a gradient of its own."""
    device = x.device.type
    # Of the devices that come here only "meta" has no autocast; torch 2.11 cannot trace the question which ones have.
    enabled = device != "meta" and torch.is_autocast_enabled(device)
    return x.to(torch.get_autocast_dtype(device)) if enabled else x


def batched_product(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T [members, batch, outputs] for x [members, batch, inputs] and W [members, outputs, inputs], through `BatchedProduct`."""
    apply = cast(Callable[[Tensor, Tensor], Tensor], BatchedProduct.apply)  # pyright: ignore[reportUnknownMemberType]
    return apply(x, weight)


class BatchedProduct(torch.autograd.Function):
    """x W^T for x [members, batch, inputs] and W [members, outputs, inputs], with the gradient of W laid out as W is.

    That of `torch.bmm` comes transposed, and what the optimiser makes of it then jumps through memory.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:  # pyright: ignore
        return torch.bmm(x, weight.mT)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore
        x, weight = ctx.saved_tensors
        return torch.bmm(gradient, weight), torch.bmm(gradient.mT, x)


class Linear(nn.Module):
    """y = x W^T + b. With `members`, one such map per member: x [batch, inputs] or [members, batch, inputs] gives [members, batch, outputs]."""

    def __init__(self, inputs: int, outputs: int, members: int | None = None, gain: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(orthogonal(members, outputs, inputs, gain))
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs) if members else torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight) + self.bias


class NormalizedLinear(nn.Module):
    """`Linear` whose rows are g v / |v|, length g and direction v learned apart (weight normalisation, Salimans & Kingma 2016).

    It begins as the same map: v orthogonal, g its rows' lengths.
    """

    def __init__(self, inputs: int, outputs: int, members: int | None = None, gain: float = 1.0):
        super().__init__()
        self.direction = nn.Parameter(orthogonal(members, outputs, inputs, gain))
        self.length = nn.Parameter(self.direction.detach().square().sum(-1, keepdim=True).sqrt())
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs) if members else torch.zeros(outputs))

    @property
    def weight(self) -> Tensor:
        """W, as in `Linear`."""
        return self.length * F.normalize(self.direction, dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight) + self.bias
