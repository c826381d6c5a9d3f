"""The weight matrices of a module, whatever it is made of: [members, outputs, inputs], convolutions with inputs x kernel in one axis."""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn

from steelyard.agents.networks.convolution import Filter
from steelyard.agents.networks.hidden import descendants
from steelyard.agents.networks.linear import Linear, NormalizedLinear
from steelyard.agents.networks.mlp import LayerNorm
from steelyard.agents.networks.simba_v2 import HypersphericalLinear

MAPS = (Linear, NormalizedLinear, Filter, HypersphericalLinear, nn.Linear, nn.Conv2d)
"""Modules with a `weight` that multiplies what comes in."""
NORMS = (LayerNorm, nn.LayerNorm)
"""Modules with a gain and an offset."""


class Matrix(NamedTuple):
    """One affine map."""

    name: str
    """Its dotted name in the module."""
    module: nn.Module
    """The map."""

    @property
    def output(self) -> bool:
        """Whether it gives the network's results: networks call that layer `output`."""
        return self.name.rpartition(".")[2] == "output"

    def weight(self) -> Tensor:
        """[members, outputs, inputs], one member for a single network; a gradient passes."""
        weight: Tensor = self.module.weight  # pyright: ignore
        groups: int = getattr(self.module, "groups", 1)
        if weight.ndim == 4:
            return weight.view(groups, -1, weight[0].numel())
        return weight if weight.ndim == 3 else weight.unsqueeze(0)

    def bias(self) -> Tensor | None:
        """[members, outputs], or None."""
        bias: Tensor | None = getattr(self.module, "bias", None)
        return None if bias is None else bias.reshape(getattr(self.module, "groups", 1) if bias.ndim == 1 else bias.shape[0], -1)


def matrices(module: nn.Module) -> list[Matrix]:
    """Every trained map in the module, in the order of its parameters."""
    return [Matrix(name, child) for name, child in trained(module) if isinstance(child, MAPS)]


def gains(module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Gain and offset of every trained normalisation in the module."""
    found: list[tuple[Tensor, Tensor]] = []
    for _, child in trained(module):
        if isinstance(child, LayerNorm):
            found.append((child.gain, child.offset))
        elif isinstance(child, nn.LayerNorm) and child.elementwise_affine:
            found.append((child.weight, child.bias))
    return found


def trained(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules whose own parameters require gradients; frozen copies do not."""
    for name, child in descendants(module):
        own = list(child.parameters(recurse=False))
        if own and all(parameter.requires_grad for parameter in own):
            yield name, child
