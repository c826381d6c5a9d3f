"""Multi-layer perceptrons, with or without layer normalisation."""

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

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
    gain: float = 3**-0.5
    """Gain of the initial weights. This one gives them the spread of PyTorch's own initialisation, with which SAC and TD3 were published, and SAC
    learns HalfCheetah sooner than with sqrt 2, which IQL's and CQL's released codes have."""
    unit_features: bool = False
    """Scale the last hidden layer's activation to length one (Bjorck et al. 2022): its values, and with them gradients, stay bounded."""
    output_gain: float | None = None
    """Gain of the output layer; None for that of the others."""

    def build(self, inputs: int, outputs: tuple[int, ...], members: int | None = None) -> nn.Module:
        """Module from [batch, inputs] to one tensor [batch, k] per k in `outputs`; a leading [members] axis if `members` is given."""
        return Perceptron(self, inputs, outputs, members)


class Perceptron(nn.Module):
    """The module that `MLP` describes."""

    def __init__(self, config: MLP, inputs: int, outputs: tuple[int, ...], members: int | None):
        super().__init__()
        sizes = (inputs, *config.hidden)
        self.layers = nn.ModuleList(Linear(i, o, members, config.gain) for i, o in pairwise(sizes))
        self.norms = nn.ModuleList(LayerNorm(size, members) if config.layer_norm else nn.Identity() for size in config.hidden)
        gain = config.gain if config.output_gain is None else config.output_gain
        self.output = Linear(sizes[-1], sum(outputs), members, gain)
        self.activation = nn.ReLU()
        self.outputs, self.norm_after, self.unit_features = outputs, config.norm_after, config.unit_features

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(self.activation(layer(x))) if self.norm_after else self.activation(norm(layer(x)))
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
