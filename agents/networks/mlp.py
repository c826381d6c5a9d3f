"""Multi-layer perceptrons, with or without layer normalisation."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steelyard.agents.errors import SlotError, require
from steelyard.agents.networks.dropout import Dropout
from steelyard.agents.networks.hidden import HiddenLayer
from steelyard.agents.networks.linear import Linear, NormalizedLinear


class CReLU(nn.Module):
    """x -> [relu(x), relu(-x)] along the last axis (Shang et al. 2016): every unit passes a gradient for every input."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x.relu(), (-x).relu()), -1)


ActivationName = Literal["relu", "crelu", "tanh", "silu", "gelu", "mish"]
"""Names of activation functions."""
ACTIVATIONS: dict[ActivationName, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "crelu": CReLU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "mish": nn.Mish,
}
"""Activation functions by their names."""


@dataclass(frozen=True)
class MLP:
    """Perceptron with orthogonal initialisation, biases zero."""

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
    unit_features: bool = False
    """Scale the last hidden layer's activation to length one (Bjorck et al. 2022): its values, and with them gradients, stay bounded."""
    output_gain: float | None = None
    """Gain of the output layer; None for that of the others."""
    activation: ActivationName = "relu"
    """Function of each hidden layer. CReLU gives two features per linear unit, so a layer of 256 has 128 of them and the matrices behind the first
    half as many weights; the width is that of the features."""
    weight_norm: bool = False
    """Hidden layers learn a length and a direction for the weights of each unit (Salimans & Kingma 2016)."""

    def __post_init__(self) -> None:
        require(
            all(width >= 1 for width in self.hidden), f"hidden is {self.hidden}; give each layer one unit or more, or no layers."
        )
        if self.activation == "crelu" and any(width % 2 for width in self.hidden):
            raise SlotError(f"hidden is {self.hidden} and CReLU gives two features per unit; give even widths.")
        if self.fan_in and self.weight_norm:
            raise SlotError(
                "fan_in says how weights begin, and weight_norm how lengths and directions do; choose one of the two."
            )

    def build(self, inputs: int, outputs: tuple[int, ...], members: int | None = None, beside: int = 0) -> nn.Module:
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
        kind = NormalizedLinear if config.weight_norm else Linear
        halved = 2 if config.activation == "crelu" else 1
        self.layers = nn.ModuleList(kind(i, o // halved, members, config.gain) for i, o in pairwise(sizes))
        widths = config.hidden if config.norm_after else tuple(width // halved for width in config.hidden)
        self.norms = nn.ModuleList(LayerNorm(size, members) if config.layer_norm else nn.Identity() for size in widths)
        gain = config.gain if config.output_gain is None else config.output_gain
        self.output = Linear(sizes[-1], sum(outputs), members, gain)
        self.activation = ACTIVATIONS[config.activation]()
        self.outputs, self.norm_after, self.unit_features = outputs, config.norm_after, config.unit_features
        self.config, self.members = config, members

    def hidden_layers(self) -> tuple[HiddenLayer, ...]:
        """One per entry of `hidden`."""
        config = self.config
        after = config.layer_norm and config.norm_after
        return tuple(
            HiddenLayer(
                incoming,
                norm if config.layer_norm and not config.norm_after else None,
                outgoing,
                self.members or 1,
                config.activation,
                normalized=after or (config.unit_features and outgoing is self.output),
            )
            for (incoming, outgoing), norm in zip(pairwise([*self.layers, self.output]), self.norms, strict=True)
        )

    def entry(self) -> nn.Module:
        """The first hidden layer's map, or the output's where there is no hidden layer."""
        return next(iter(self.layers), self.output)

    def hidden(self) -> list[Linear]:
        """The hidden layers' maps."""
        return [cast(Linear, layer) for layer in self.layers]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        for layer, norm, dropout in zip(self.layers, self.norms, self.dropouts, strict=True):
            x = dropout(norm(self.activation(layer(x))) if self.norm_after else self.activation(norm(layer(x))))
        if self.unit_features:
            x = F.normalize(x.float(), dim=-1)
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
