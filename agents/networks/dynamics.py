"""The network of a dynamics ensemble: all members as one batched module."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DynamicsNetwork(nn.Module):
    """Perceptrons with SiLU layers, one per member, evaluated as batched products.

    The last layer's products are float32 whatever their precision around them: it predicts states, and bfloat16 has but three digits.

    Weights are drawn from a normal distribution with deviation 1 / (2 sqrt(inputs)), cut off at two deviations; biases are zero (PETS, Chua et al.
    2018, and MBPO, Janner et al. 2019).

    Args:
        inputs: Length of the input vector.
        outputs: Length of the output vector.
        hidden: Width of each hidden layer.
        members: Number of members.
    """

    def __init__(self, inputs: int, outputs: int, hidden: tuple[int, ...], members: int):
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise((inputs, *hidden, outputs)):
            deviation = 0.5 * fan_in**-0.5
            weight = torch.empty(members, fan_in, fan_out)
            self.weights.append(nn.init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation))
            self.biases.append(torch.zeros(members, 1, fan_out))

    def forward(self, x: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Outputs [members, batch, outputs] for x [members, batch, inputs]; `chosen` [n] int64 evaluates these members alone."""
        layers = list(zip(self.weights, self.biases, strict=True))
        if chosen is not None:
            layers = [(weight.index_select(0, chosen), bias.index_select(0, chosen)) for weight, bias in layers]
        *hidden, (weight, bias) = layers
        for inner_weight, inner_bias in hidden:
            x = F.silu(torch.baddbmm(inner_bias, x, inner_weight))
        with torch.autocast(x.device.type, enabled=False):
            return torch.baddbmm(bias, x.to(weight.dtype), weight)
