"""What a network says of its hidden layers, so that their units can be counted, recycled and bounded from outside.

A network defines `hidden_layers()`, one entry per call of its child `activation` in a pass, in that order. One that does not define it has no
hidden units that anybody counts. Convolutions say that they are: what looks at value layers alone leaves them out. `entry()` is the map that reads
the network's inputs: those of a network behind an encoder are the outgoing maps of the encoder's last layer.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

from torch import Tensor, nn


class HiddenLayer(NamedTuple):
    """One hidden layer and what stands around it."""

    incoming: nn.Module
    """The affine map into it, with `weight` and `bias`."""
    norm: nn.Module | None
    """The normalisation between the map and the activation, if it has parameters of its own."""
    outgoing: nn.Module | None
    """The affine map out of it; None for the last layer of an encoder, which other networks read."""
    members: int
    """Members of the ensemble that share the module; one for a single network."""
    activation: str = "relu"
    """Name of the activation function."""
    normalized: bool = False
    """Whether what follows the activation is normalised before the next map sees it."""
    convolution: bool = False
    """Whether its units are channels."""

    @property
    def counted(self) -> bool:
        """Whether the share of positive outputs says how alive the layer is.

        Not for CReLU (half of them by construction), not for smooth or saturating functions, and not where normalisation follows.
        """
        return self.activation == "relu" and not self.normalized

    @property
    def scored(self) -> bool:
        """Whether a unit with small outputs is a dormant one. A half of CReLU is not: its twin carries the signal."""
        return self.activation != "crelu"


class Activity(NamedTuple):
    """Outputs of one hidden layer."""

    layer: HiddenLayer
    values: Tensor
    """[members, samples, units]; samples are rows of the batch, times places of the picture for convolutions."""


def layered(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The networks inside a module that know their hidden layers, with their names; not those that are frozen, wholly or in part."""
    for name, child in descendants(module):
        if hasattr(child, "hidden_layers") and all(parameter.requires_grad for parameter in child.parameters()):
            yield name, child


def descendants(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The module and all modules inside it, with their names."""
    return list(cast(Any, module).named_modules())


def hidden_layers(network: nn.Module) -> tuple[HiddenLayer, ...]:
    """The hidden layers of one of `layered`."""
    return network.hidden_layers()  # pyright: ignore


def entries(module: nn.Module) -> Iterator[nn.Module | None]:
    """The maps in a module that read what is given to it: `entry()` of each outermost network; None for matrices that belong to no such network."""
    if hasattr(module, "entry"):
        yield module.entry()  # pyright: ignore
        return
    if any(parameter.ndim > 1 for parameter in module.parameters(recurse=False)):
        yield None
    for child in module.children():
        yield from entries(child)


class Recorder:
    """Outputs of the hidden layers of one network in its first pass."""

    def __init__(self, network: nn.Module):
        self.layers = hidden_layers(network)
        self.passes = 0
        self.outputs: list[Tensor] = []
        activation: nn.Module = network.activation  # pyright: ignore
        self.handles = [network.register_forward_pre_hook(self.enter), activation.register_forward_hook(self.keep)]

    def enter(self, *_: object) -> None:
        """The network begins a pass."""
        self.passes += 1

    def keep(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        """The activation was called."""
        if self.passes == 1:
            self.outputs.append(output.detach())

    def activities(self) -> list[Activity]:
        """What was seen; nothing if the network made no pass."""
        return [Activity(layer, arranged(layer, output)) for layer, output in zip(self.layers, self.outputs, strict=False)]


def arranged(layer: HiddenLayer, output: Tensor) -> Tensor:
    """Outputs of a layer as [members, samples, units] float32."""
    if layer.convolution:
        split = output.reshape(
            len(output), layer.members, -1, output.shape[-2] * output.shape[-1]
        )  # batch, members, channels, places
        return split.permute(1, 0, 3, 2).flatten(1, 2).float()
    return output.float().reshape(layer.members, -1, output.shape[-1])


@contextmanager
def watched(module: nn.Module) -> Generator[list[Recorder], None, None]:
    """Records the hidden layers of everything in `module` during the first pass that each network makes within."""
    recorders = [Recorder(network) for _, network in layered(module)]
    try:
        yield recorders
    finally:
        for recorder in recorders:
            for handle in recorder.handles:
                handle.remove()
