"""Encoders: from what a task shows to what the networks behind see. Pictures become features; everything else stays as it is."""

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from steelyard.agents.errors import SlotError
from steelyard.agents.networks.convolution import Filter
from steelyard.agents.networks.hidden import HiddenLayer
from steelyard.agents.types import Spec


@dataclass(frozen=True)
class Unencoded:
    """Networks see observations themselves."""

    def build(self, spec: Spec) -> "Window":
        """A module that changes nothing and learns nothing."""
        return Window(spec)


class Window(nn.Module):
    """The module that `Unencoded` describes."""

    def __init__(self, spec: Spec):
        super().__init__()
        self.spec = spec

    def forward(self, obs: Tensor) -> Tensor:
        return obs


@dataclass(frozen=True)
class PictureEncoder:
    """Convolutions with ReLU over pictures of bytes, without padding; the default is DrQ-v2's (Yarats et al. 2021)."""

    channels: tuple[int, ...] = (32, 32, 32, 32)
    """Output channels of each convolution."""
    kernels: tuple[int, ...] = (3, 3, 3, 3)
    """Height and width of each kernel."""
    strides: tuple[int, ...] = (2, 1, 1, 1)
    """Stride of each convolution."""
    gain: float = 2**0.5
    """Gain of the initial, orthogonal weights; biases start at zero."""
    offset: float = -0.5
    """Added to bytes / 255."""

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.kernels) == len(self.strides) > 0:
            raise SlotError(
                f"PictureEncoder has {len(self.channels)} channels, {len(self.kernels)} kernels and {len(self.strides)} strides; "
                "give one of each for every convolution."
            )
        if min(self.channels + self.kernels + self.strides) < 1:
            raise SlotError("channels, kernels and strides of PictureEncoder must be positive; give one or more for each.")

    def build(self, spec: Spec) -> "ConvolutionalEncoder":
        """The encoder for a task. Raises `SlotError` if its observations are no pictures, or are too small for the kernels."""
        if spec.picture is None:
            raise SlotError("the encoder PictureEncoder needs pictures, and this task shows numbers; use the encoder Unencoded.")
        sides = self.sides(spec.picture[1:])
        if min(min(side) for side in sides) < 1:
            raise SlotError(
                f"pictures of {spec.picture[1]} x {spec.picture[2]} are too small for kernels {self.kernels} with strides {self.strides}; "
                "give larger pictures or fewer convolutions."
            )
        return ConvolutionalEncoder(self, spec, sides[-1])

    def sides(self, picture: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Height and width after each convolution."""
        found = [picture]
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            found.append(tuple((side - kernel) // stride + 1 for side in found[-1]))
        return found


class ConvolutionalEncoder(nn.Module):
    """The module that `PictureEncoder` describes."""

    def __init__(self, config: PictureEncoder, spec: Spec, side: tuple[int, ...]):
        super().__init__()
        assert spec.picture is not None
        self.config, self.picture = config, spec.picture
        sizes = pairwise((spec.picture[0], *config.channels))
        layers = zip(sizes, config.kernels, config.strides, strict=True)
        self.convolutions = nn.ModuleList(Filter(i, o, kernel, None, config.gain, stride) for (i, o), kernel, stride in layers)
        self.activation = nn.ReLU()
        features = config.channels[-1] * side[0] * side[1]
        self.spec = dataclasses.replace(spec, obs_size=features, picture=(config.channels[-1], *side), frames=None)
        """What the networks behind the encoder see of the task."""

    def hidden_layers(self) -> tuple[HiddenLayer, ...]:
        """The convolutions. What the last one leads to is not the encoder's."""
        maps = [*self.convolutions, None]
        return tuple(
            HiddenLayer(cast(Filter, incoming), None, outgoing, 1, convolution=True) for incoming, outgoing in pairwise(maps)
        )

    def forward(self, obs: Tensor) -> Tensor:
        """Features [batch, size] of pictures [batch, channels * height * width], bytes or floats between 0 and 255."""
        x = (obs.float() / 255 + self.config.offset).view(obs.shape[0], *self.picture)
        x = x.contiguous(memory_format=torch.channels_last)  # a third faster for narrow layers on a CPU
        for convolution in self.convolutions:
            x = self.activation(convolution(x))
        return x.flatten(1).float()


Encoder = Unencoded | PictureEncoder

ATARI = PictureEncoder((32, 64, 64), (8, 4, 3), (4, 2, 1), offset=0.0)
"""The convolutions of DQN on Atari (Mnih et al. 2015)."""
