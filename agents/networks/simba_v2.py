"""SimbaV2: networks whose weights and features live on unit hyperspheres (Lee et al. 2025, arXiv 2502.15280)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steelyard.agents.errors import require
from steelyard.agents.networks.hidden import HiddenLayer
from steelyard.agents.networks.linear import orthogonal, product


@dataclass(frozen=True)
class SimbaV2:
    """Hyperspherical residual network. Published sizes: actor 128 x 1 block, critic 512 x 2 blocks."""

    width: int = 512
    """Feature width d."""
    blocks: int = 2
    """Number of LERP residual blocks L."""
    expansion: int = 4
    """Hidden width of a block's perceptron in units of d."""
    shift: float = 3.0
    """Constant c_shift appended to the input before its projection, so that the input's magnitude survives."""

    def __post_init__(self) -> None:
        for name in ("width", "blocks", "expansion"):
            require(getattr(self, name) >= 1, f"{name} of SimbaV2 is {getattr(self, name)}; give one or more.")

    def build(self, inputs: int, outputs: tuple[int, ...], members: int | None = None, beside: int = 0) -> nn.Module:
        """Module from [batch, inputs] to one tensor [batch, k] per k in `outputs`; a leading [members] axis if `members` is given."""
        return HypersphericalNetwork(self, inputs, outputs, members)


def unit(x: Tensor) -> Tensor:
    """x / max(||x||, 1e-8) along the last axis, in float32: 1e-8 vanishes in half precision."""
    return F.normalize(x.float(), dim=-1, eps=1e-8)


class HypersphericalLinear(nn.Module):
    """y = W x without a bias, each row of W (an output unit's incoming weights) of norm one (section 4.2)."""

    def __init__(self, inputs: int, outputs: int, members: int | None):
        super().__init__()
        self.weight = nn.Parameter(unit(orthogonal(members, outputs, inputs)))

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight)

    def project(self) -> None:
        """Put every row back on the unit sphere, after an optimiser step."""
        self.weight.copy_(unit(self.weight))


class Scaler(nn.Module):
    """Learned gain per feature, s x (section 4.1).

    Its parameter starts at `scale` and is multiplied by `initial / scale`, so that s starts at `initial` while Adam changes it at the
    relative speed learning_rate / scale.
    """

    def __init__(self, size: int, initial: float, scale: float, members: int | None):
        super().__init__()
        self.weight = nn.Parameter(torch.full((members, 1, size) if members else (size,), scale))
        self.ratio = initial / scale

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * self.ratio * x


class Embedding(nn.Module):
    """x -> unit(s * W unit([x, c_shift])) (equations 6 to 8)."""

    def __init__(self, config: SimbaV2, inputs: int, members: int | None):
        super().__init__()
        self.shift = config.shift
        self.linear = HypersphericalLinear(inputs + 1, config.width, members)
        scale = math.sqrt(2 / config.width)
        self.scaler = Scaler(config.width, scale, scale, members)

    def forward(self, x: Tensor) -> Tensor:
        x = unit(F.pad(x, (0, 1), value=self.shift))
        return unit(self.scaler(self.linear(x).float()))


class LerpBlock(nn.Module):
    """h -> unit(h + a (unit(W2 relu(s W1 h)) - h)), a the learned interpolation vector alpha (equations 9 to 11)."""

    def __init__(self, config: SimbaV2, members: int | None):
        super().__init__()
        width, hidden = config.width, config.expansion * config.width
        self.expand = HypersphericalLinear(width, hidden, members)
        scale = math.sqrt(2 / hidden)
        self.scaler = Scaler(hidden, scale, scale, members)
        self.activation = nn.ReLU()
        self.contract = HypersphericalLinear(hidden, width, members)
        self.interpolation = Scaler(width, 1 / (config.blocks + 1), 1 / math.sqrt(width), members)
        self.members = members

    def forward(self, h: Tensor) -> Tensor:
        hidden = self.activation(self.scaler(self.expand(h).float())) + 1e-8  # a dead layer must not give a zero vector
        return unit(h + self.interpolation(unit(self.contract(hidden)) - h))

    def hidden_layers(self) -> tuple[HiddenLayer, ...]:
        """The one layer inside. What it gives is put back on the sphere, so how many units are positive says little."""
        return (HiddenLayer(self.expand, self.scaler, self.contract, self.members or 1, normalized=True),)


class Output(nn.Module):
    """h -> W2 (s W1 h) + b, linear throughout; the released code starts s at one."""

    def __init__(self, width: int, outputs: int, members: int | None):
        super().__init__()
        self.hidden = HypersphericalLinear(width, width, members)
        self.scaler = Scaler(width, 1.0, 1.0, members)
        self.linear = HypersphericalLinear(width, outputs, members)
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs) if members else torch.zeros(outputs))

    def forward(self, h: Tensor) -> Tensor:
        return self.linear(self.scaler(self.hidden(h).float())).float() + self.bias


class HypersphericalNetwork(nn.Module):
    """The module that `SimbaV2` describes: embedding, blocks, and one output head per requested tensor."""

    def __init__(self, config: SimbaV2, inputs: int, outputs: tuple[int, ...], members: int | None):
        super().__init__()
        self.embedding = Embedding(config, inputs, members)
        self.blocks = nn.ModuleList(LerpBlock(config, members) for _ in range(config.blocks))
        self.heads = nn.ModuleList(Output(config.width, size, members) for size in outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h = self.embedding(x)
        for block in self.blocks:
            h = block(h)
        return tuple(head(h) for head in self.heads)
