"""A perceptron behind a bottleneck, for the many features that an encoder gives."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steelyard.agents.errors import require
from steelyard.agents.networks.linear import Linear
from steelyard.agents.networks.mlp import MLP, ActivationName, LayerNorm


@dataclass(frozen=True)
class Bottleneck:
    """Linear map to a few features, layer normalisation and tanh, then ReLU layers unless named (DrQ-v2, Yarats et al. 2021; its trunk)."""

    features: int = 50
    """Width of the bottleneck; all members share it."""
    hidden: tuple[int, ...] = (1024, 1024)
    """Width of each hidden layer behind it."""
    gain: float = 1.0
    """Gain of the initial, orthogonal weights; biases start at zero."""
    layer_norm: bool = False
    """Normalise each hidden layer before its activation."""
    activation: ActivationName = "relu"
    """Function of each hidden layer; what `MLP` says of CReLU holds here."""
    weight_norm: bool = False
    """Hidden layers learn a length and a direction for the weights of each unit."""

    def behind(self) -> MLP:
        """The perceptron behind the bottleneck. Raises `SlotError` for what `MLP` refuses."""
        return MLP(
            self.hidden, gain=self.gain, layer_norm=self.layer_norm, activation=self.activation, weight_norm=self.weight_norm
        )

    def __post_init__(self) -> None:
        require(self.features >= 1, f"features of Bottleneck is {self.features}; give one or more.")
        self.behind()

    def build(self, inputs: int, outputs: tuple[int, ...], members: int | None = None, beside: int = 0) -> nn.Module:
        """Module from [batch, inputs] to one tensor [batch, k] per k in `outputs`; a leading [members] axis if `members` is given.

        The last `beside` inputs, an action, pass by the bottleneck.
        """
        return BottleneckNetwork(self, inputs, outputs, members, beside)


class BottleneckNetwork(nn.Module):
    """The module that `Bottleneck` describes."""

    def __init__(self, config: Bottleneck, inputs: int, outputs: tuple[int, ...], members: int | None, beside: int):
        super().__init__()
        self.beside = beside
        self.trunk = Linear(inputs - beside, config.features, None, config.gain)
        self.norm = LayerNorm(config.features, None)
        self.body = config.behind().build(config.features + beside, outputs, members)

    def entry(self) -> nn.Module:
        """The trunk."""
        return self.trunk

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        size = x.shape[-1] - self.beside
        features, beside = x[..., :size], x[..., size:]
        compressed = self.norm(self.trunk(features)).tanh()
        return self.body(torch.cat((compressed, beside), -1))
