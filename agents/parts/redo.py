"""ReDo: recycling dormant units (Sokar et al. 2023, arXiv 2302.12902, and its released code)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from steelyard.agents.errors import SlotError
from steelyard.agents.meters import TAU, activities_of, dormant_units
from steelyard.agents.networks.convolution import Filter
from steelyard.agents.networks.hidden import HiddenLayer, entries, hidden_layers, layered, watched
from steelyard.agents.networks.linear import Linear
from steelyard.agents.parts.fresh import followers, moments_of, networks_of, twin
from steelyard.agents.parts.part import Part
from steelyard.agents.parts.plasticity import require
from steelyard.agents.types import Batch, Spec

if TYPE_CHECKING:
    from steelyard.agents.value_learner import ValueLearningAgent

MAPS = (Linear, Filter, nn.Linear, nn.Conv2d)
"""Affine maps whose rows and columns belong to one unit each."""
ENCODER = "encoder"
"""Name of the child whose last layer other networks read."""
APART = (ENCODER, "optimizers", "normalizer", "model", "plasticity")
"""Children that read no features."""


@dataclass(frozen=True)
class ReDo:
    """Recycle dormant units: fresh incoming weights, bias and outgoing weights zero, no moments of the optimiser for either.

    A unit without output can be recycled without a change of what the network says, unless its layer is normalised. A unit of a convolution is
    a channel: its score is the mean size of its outputs over batch and places, and all places of it are silenced. In the source one network reads the
    features of the last convolution. Behind an encoder several do (policy, critics, targets, learned parts and their frozen copies), and a channel
    that is fresh is silenced in all of them: else the policy or a target would jump because of a unit that nobody used.
    """

    period: int = 1_000
    """Updates between two looks. Scores are those of the batch of the update before."""
    threshold: float = TAU
    """tau: score up to which a unit is dormant; 0 recycles units without any output, 0.1 was used at high ratios."""
    networks: tuple[str, ...] = ()
    """Which of the agent's own networks, with their targets; none for all. The output layer is never touched."""

    def __post_init__(self) -> None:
        require("ReDo", period=self.period)
        if not 0 <= self.threshold < 1:
            raise SlotError(
                f"threshold of ReDo is {self.threshold}; give a score from 0 to below 1, which is the average unit's."
            )

    def build(self, spec: Spec) -> "Recycling":
        """The part; it learns nothing."""
        del spec
        return Recycling(self)


class Found(NamedTuple):
    """Dormant units of one layer."""

    child: str
    """The agent's child that the layer belongs to."""
    network: str
    """Name of the network in it."""
    layer: int
    """Number of the layer in the network."""
    units: Tensor
    """[members, units] bool."""


class Recycling(Part):
    """The part that `ReDo` describes."""

    def __init__(self, config: ReDo):
        super().__init__()
        self.config = config
        self.found: list[Found] = []

    def begin(self, agent: "ValueLearningAgent") -> None:
        """Raises `SlotError` for a network whose units cannot be recycled."""
        self.names = networks_of(agent, self.config.networks, "ReDo")
        for name in self.names:
            layers = [layer for _, network in layered(agent.get_submodule(name)) for layer in hidden_layers(network)]
            if not layers or not all(recyclable(layer) for layer in layers):
                raise SlotError(
                    f"ReDo recycles units whose ReLU goes straight into the next layer of the same network, and {name} has others; give it a "
                    "plain perceptron or convolutions, or name the networks to recycle with agent.plasticity.networks."
                )
        for reader, entry in readers(agent) if ENCODER in self.names else ():
            if not isinstance(entry, MAPS):
                raise SlotError(
                    f"ReDo recycles units whose ReLU goes straight into the next layer, and what {reader} does first with the encoder's features is "
                    "another thing; give it a plain perceptron, or name the networks to recycle with agent.plasticity.networks."
                )

    def watches(self, update: int) -> bool:
        """Every `period`-th update."""
        return update % self.config.period == 0

    def watch(self, agent: "ValueLearningAgent", batch: Batch, noise: Tensor) -> None:
        """Find the dormant units."""
        self.found = []
        with watched(agent.encoder) as recorders:
            batch = agent.perceived(batch)
        of_encoder = [activity for recorder in recorders for activity in recorder.activities()]
        for child in self.names:
            activities = iter(of_encoder if child == ENCODER else activities_of(agent, child, batch, noise, {})[0])
            for name, network in layered(agent.get_submodule(child)):
                for number, activity in zip(range(len(hidden_layers(network))), activities, strict=False):
                    self.found.append(Found(child, name, number, dormant_units(activity.values, self.config.threshold)))

    def intervene(self, agent: "ValueLearningAgent", update_count: int) -> None:
        """Recycle what was found before this update."""
        if not self.found:
            return
        fresh = twin(agent, update_count // self.config.period)
        # Outgoing weights last: they may be incoming ones of another recycled unit.
        for outgoing in (False, True):
            for found in self.found:
                for child in (found.child, *followers(agent, (found.child,))):
                    layer, source = (place(owner, child, found) for owner in (agent, fresh))
                    moments = moments_of(agent, child) if child in agent.trained else {}
                    if not outgoing:
                        renew(layer, source, found.units, moments)
                    elif layer.outgoing is not None:
                        silence(layer.outgoing, found.units, moments)
                    else:
                        silence_features(agent, found.units)
        self.found = []


def place(agent: "ValueLearningAgent", child: str, found: Found) -> HiddenLayer:
    """The layer in the child, or in the target that follows it."""
    return hidden_layers(agent.get_submodule(f"{child}.{found.network}".rstrip(".")))[found.layer]


def recyclable(layer: HiddenLayer) -> bool:
    """Whether a unit of the layer has rows and columns of its own, and nothing else sees it."""
    return layer.counted and isinstance(layer.incoming, MAPS) and (layer.outgoing is None or isinstance(layer.outgoing, MAPS))


def readers(agent: "ValueLearningAgent") -> Iterator[tuple[str, nn.Module | None]]:
    """What reads the encoder's features first, as (name of the agent's child, map in it); None for what is no network that knows its entry."""
    for name, child in agent.named_children():
        if name not in APART:
            yield from ((name, entry) for entry in entries(child))


Moments = dict[Tensor, tuple[Tensor, Tensor]]


def renew(layer: HiddenLayer, fresh: HiddenLayer, units: Tensor, moments: Moments) -> None:
    """Fresh incoming weights [members, units, ...] for the units, bias zero, the normalisation's gain one and offset zero."""
    bias: Tensor = layer.incoming.bias  # pyright: ignore
    overwrite(layer.incoming.weight, fresh.incoming.weight, units, moments)  # pyright: ignore
    overwrite(bias, torch.zeros_like(bias), units, moments)
    if layer.norm is not None and fresh.norm is not None:
        for parameter, source in zip(layer.norm.parameters(), fresh.norm.parameters(), strict=True):
            overwrite(parameter, source, units, moments)


def overwrite(parameter: Tensor, source: Tensor, units: Tensor, moments: Moments) -> None:
    """The source's rows of these units, and no moments of them."""
    rows = (*units.shape, -1)
    mask = units.unsqueeze(-1)
    parameter.copy_(torch.where(mask, source.view(rows), parameter.view(rows)).view_as(parameter))
    for moment in moments.get(parameter, ()):
        moment.view(rows).mul_(~mask)


def silence(outgoing: nn.Module, units: Tensor, moments: Moments, features: int | None = None) -> None:
    """Outgoing weights of units [members, units] become zero, and so do their moments.

    A unit may have several inputs of the map, one per place. The first `features` inputs are those of the layer, if not all are.
    """
    weight: Tensor = outgoing.weight  # pyright: ignore
    members, count = units.shape
    inputs = weight[0].numel() if weight.ndim == 4 else weight.shape[-1]
    for tensor in (weight, *moments.get(weight, ())):
        columns = tensor.view(members, -1, inputs)[..., :features]
        columns.view(*columns.shape[:-1], count, -1).mul_(~units[:, None, :, None])


def silence_features(agent: "ValueLearningAgent", units: Tensor) -> None:
    """Channels [1, channels] of the encoder's last convolution become silent in everything that reads its features.

    Features are the flattened maps of the channels, one after the other; what else a network reads comes behind them.
    """
    moments = {weight: pair for name in agent.trained for weight, pair in moments_of(agent, name).items()}
    for _, entry in readers(agent):
        if entry is not None:
            silence(entry, units, moments, None if isinstance(entry, (Filter, nn.Conv2d)) else agent.seen.obs_size)
