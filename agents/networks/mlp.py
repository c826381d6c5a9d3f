"""Multi-layer perceptrons, with or without layer normalisation."""

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steelyard.agents.networks.dropout import Dropout
from steelyard.agents.networks.linear import Linear


@dataclass(frozen=True)
class MLP:
    """Perceptron with ReLU layers and orthogonal initialisation, biases zero."""

    hidden: tuple[int, ...] = (256, 256)
    """Width of each hidden layer."""
    layer_norm: bool = False
    """Normalise each hidden layer before its ReLU (Ba et al. 2016)."""
    norm_after: bool = False
    """Normalise after the ReLU instead (ReBRAC)."""
    dropout: float = 0.0
    """Probability with which each feature of a hidden layer is set to zero in the loss that trains the network, and only there (IQL)."""
    hidden_bias: float = 0.0
    """Initial biases of the hidden layers (ReBRAC: 0.1)."""
    fan_in: bool = False
    """Hidden weights begin uniform within one over the square root of the layer's inputs, in place of orthogonal (ReBRAC)."""
    output_range: float | None = None
    """Weights and biases of the output layer begin uniform in [-range, range]; None: as the other options say (ReBRAC: 0.001 and 0.003)."""
    gain: float = 3**-0.5
    """Gain of the initial weights. This one gives them the spread of PyTorch's own initialisation, with which SAC and TD3 were published, and SAC
    learns HalfCheetah sooner than with sqrt 2, which IQL's and CQL's released codes have."""
    output_gain: float | None = None
    """Gain of the output layer; None for that of the others."""

    def build(self, inputs: int, outputs: tuple[int, ...], members: int | None = None) -> nn.Module:
        """Module from [batch, inputs] to one tensor [batch, k] per k in `outputs`; a leading [members] axis if `members` is given."""
        network = Perceptron(self, inputs, outputs, members)
        self.initialize(network)
        return network

    @torch.no_grad()
    def initialize(self, network: "Perceptron") -> None:
        """Initial values other than orthogonal weights and zero biases."""
        for layer in network.hidden():
            layer.bias.fill_(self.hidden_bias)
            if self.fan_in:
                bound = layer.weight.shape[-1] ** -0.5
                layer.weight.uniform_(-bound, bound)
        if self.output_range is not None:
            for parameter in network.output.parameters():
                parameter.uniform_(-self.output_range, self.output_range)


class Perceptron(nn.Module):
    """The module that `MLP` describes."""

    def __init__(self, config: MLP, inputs: int, outputs: tuple[int, ...], members: int | None):
        super().__init__()
        self.dropouts = nn.ModuleList(Dropout(config.dropout) if config.dropout else nn.Identity() for _ in config.hidden)
        sizes = (inputs, *config.hidden)
        self.layers = nn.ModuleList(Linear(i, o, members, config.gain) for i, o in pairwise(sizes))
        self.norms = nn.ModuleList(LayerNorm(size, members) if config.layer_norm else nn.Identity() for size in config.hidden)
        gain = config.gain if config.output_gain is None else config.output_gain
        self.output = Linear(sizes[-1], sum(outputs), members, gain)
        self.activation = nn.ReLU()
        self.outputs, self.norm_after = outputs, config.norm_after

    def hidden(self) -> list[Linear]:
        """The hidden layers' maps."""
        return [cast(Linear, layer) for layer in self.layers]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        for layer, norm, dropout in zip(self.layers, self.norms, self.dropouts, strict=True):
            x = dropout(norm(self.activation(layer(x))) if self.norm_after else self.activation(norm(layer(x))))
        return self.output(x).float().split(self.outputs, -1)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis, with each member's own gain and offset; computed in float32."""

    def __init__(self, size: int, members: int | None):
        super().__init__()
        like = Linear(1, size, members).bias
        self.gain = nn.Parameter(like.detach().clone() + 1)
        self.offset = nn.Parameter(like.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), x.shape[-1:]) * self.gain + self.offset
