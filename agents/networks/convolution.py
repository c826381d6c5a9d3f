"""Convolutional networks for small pictures, such as MinAtar's."""

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from steelyard.agents.errors import SlotError
from steelyard.agents.networks.hidden import HiddenLayer
from steelyard.agents.networks.linear import Linear, orthogonal


@dataclass(frozen=True)
class Convolution:
    """Convolutions with ReLU over a flattened picture, then a perceptron (MinAtar's network, Young & Tian 2019)."""

    channels: tuple[int, ...] = (16,)
    """Output channels of each convolution."""
    kernel: int = 3
    """Height and width of each kernel; the stride is one and nothing is padded."""
    hidden: tuple[int, ...] = (128,)
    """Width of each hidden layer after the convolutions."""
    size: int = 10
    """Height and width of the picture."""
    gain: float = 3**-0.5
    """Gain of the initial weights; this one gives them the spread of PyTorch's own initialisation."""

    def build(self, inputs: int, outputs: tuple[int, ...], members: int | None = None, beside: int = 0) -> nn.Module:
        """Module from [batch, inputs] to one tensor [batch, k] per k in `outputs`; a leading [members] axis if `members` is given.

        Inputs are channels, height and width, flattened. Raises `SlotError` if `inputs` is no picture of this size, or too small for the kernels.
        """
        if inputs % self.size**2:
            raise SlotError(
                f"an observation of {inputs} numbers is no picture of {self.size} x {self.size}; give another size, or use an MLP."
            )
        if self.size - len(self.channels) * (self.kernel - 1) < 1:
            raise SlotError(
                f"{len(self.channels)} kernels of {self.kernel} leave nothing of {self.size} x {self.size}; give fewer channels."
            )
        return ConvolutionalNetwork(self, inputs, outputs, members)


class ConvolutionalNetwork(nn.Module):
    """The module that `Convolution` describes."""

    def __init__(self, config: Convolution, inputs: int, outputs: tuple[int, ...], members: int | None):
        super().__init__()
        self.config, self.outputs, self.members = config, outputs, members
        sizes = (inputs // config.size**2, *config.channels)
        self.convolutions = nn.ModuleList(Filter(i, o, config.kernel, members, config.gain) for i, o in pairwise(sizes))
        side = config.size - len(config.channels) * (config.kernel - 1)
        widths = (sizes[-1] * side**2, *config.hidden)
        self.layers = nn.ModuleList(Linear(i, o, members, config.gain) for i, o in pairwise(widths))
        self.activation = nn.ReLU()
        self.output = Linear(widths[-1], sum(outputs), members, config.gain)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        side, members = self.config.size, self.members or 1
        x = x.view(x.shape[0], -1, side, side).repeat(1, members, 1, 1)
        for convolution in self.convolutions:
            x = self.activation(convolution(x))
        x = x.view(x.shape[0], members, -1).transpose(0, 1) if self.members else x.flatten(1)
        for layer in self.layers:
            x = self.activation(layer(x))
        return self.output(x).float().split(self.outputs, -1)

    def entry(self) -> nn.Module:
        """The first convolution, or what comes first where there is none."""
        return [*self.convolutions, *self.layers, self.output][0]

    def hidden_layers(self) -> tuple[HiddenLayer, ...]:
        """The convolutions, then the perceptron's."""
        maps = [*self.convolutions, *self.layers, self.output]
        return tuple(
            HiddenLayer(incoming, None, outgoing, self.members or 1, convolution=number < len(self.convolutions))
            for number, (incoming, outgoing) in enumerate(pairwise(maps))
        )


class Filter(nn.Module):
    """A convolution; with `members`, each member's own, side by side in the channels."""

    def __init__(self, inputs: int, outputs: int, kernel: int, members: int | None, gain: float, stride: int = 1):
        super().__init__()
        self.groups, self.stride = members or 1, stride
        weight = orthogonal(self.groups, outputs, inputs * kernel**2, gain)
        self.weight = nn.Parameter(weight.view(-1, inputs, kernel, kernel))
        self.bias = nn.Parameter(weight.new_zeros(self.groups * outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)
