"""The affine map that every network is made of, alone or as an ensemble evaluated in one batched product."""

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

    The batched product is (W x^T)^T: the gradient of its first factor comes laid out as W is, that of `x @ W.mT` comes transposed, and what the
    optimiser makes of it then jumps through memory. A network's layers pass the transposed features on as they are.
    """
    if weight.ndim == 2:
        return F.linear(x, weight)
    if weight.shape[0] == 1:
        return F.linear(x, weight[0]).view(1, x.shape[-2], -1)
    return torch.bmm(weight, x.mT.expand(weight.shape[0], -1, -1)).mT


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
