"""Plasticity injection (Nikishin et al. 2023, arXiv 2305.15555)."""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from steelyard.agents.errors import SlotError
from steelyard.agents.networks.hidden import hidden_layers, layered
from steelyard.agents.optimizer import AdamState
from steelyard.agents.parts.fresh import moments_of, networks_of, twin
from steelyard.agents.parts.plasticity import Periodic, require
from steelyard.agents.types import Spec

if TYPE_CHECKING:
    from steelyard.agents.value_learner import ValueLearningAgent


@dataclass(frozen=True)
class PlasticityInjection:
    """Once, freeze what a network has learned and let a fresh one learn beside it: h(z) + h1(z) - h2(z), h1 and h2 fresh and equal.

    Its outputs do not change at that moment. h is the whole perceptron, behind convolutions if there are any; these learn on. From the first
    update on the network costs three passes instead of one.
    """

    update: int = 500_000
    """The update after which it happens."""
    networks: tuple[str, ...] = ("critic",)
    """Which of the agent's own networks: the critic's injection helped, the actor's did not (Ma et al. 2024)."""

    def __post_init__(self) -> None:
        require("PlasticityInjection", update=self.update)

    def build(self, spec: Spec) -> "Injecting":
        """The part; it learns nothing."""
        del spec
        return Injecting(self)


class InjectedNetwork(nn.Module):
    """h1 - h2 + h. Before the injection h and h2 have nothing but zeros, and h1 is the network itself."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        layers = [layer for _, child in layered(network) for layer in hidden_layers(child)]
        # The same modules, not copies: what comes before the perceptron learns on, for all three.
        shared: dict[int, Any] = {id(layer.incoming): layer.incoming for layer in layers if layer.convolution}
        self.fresh, self.old = (copy.deepcopy(network, dict(shared)) for _ in range(2))
        self.own = {name for name, p in network.named_parameters() if not self.shares(name, p)}
        for copied in (self.fresh, self.old):
            for name, parameter in copied.named_parameters():
                if name in self.own:
                    parameter.requires_grad_(False).zero_()

    def shares(self, name: str, parameter: Tensor) -> bool:
        """Whether the copies have this very parameter."""
        return self.old.get_parameter(name) is parameter

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What the network gives, in this order so that equal fresh networks cancel exactly."""
        three = (module(*inputs) for module in (self.network, self.fresh, self.old))
        return tuple(one - two + old for one, two, old in zip(*three, strict=True))


class Injecting(Periodic):
    """The part that `PlasticityInjection` describes."""

    def __init__(self, config: PlasticityInjection):
        super().__init__(config.update)
        self.config = config

    @torch.no_grad()
    def begin(self, agent: "ValueLearningAgent") -> None:
        """Put the frozen networks beside the trained ones, here and in the targets. Raises `SlotError` for a network that has no body."""
        self.names = networks_of(agent, self.config.networks, "PlasticityInjection")
        for name in (*self.names, *(slow for slow, fast in agent.slow.items() if fast in self.names)):
            child: Any = agent.get_submodule(name)
            if not isinstance(getattr(child, "body", None), nn.Module):
                raise SlotError(
                    f"PlasticityInjection needs a network as the body of {name}, which has none; name another with networks."
                )
            target = name in agent.slow
            child.body = InjectedNetwork(child.body.requires_grad_(True) if target else child.body)
            if target:
                child.body.requires_grad_(False)

    def intervene(self, agent: "ValueLearningAgent", update_count: int) -> None:
        """Inject, once."""
        before = self.done
        if not self.passed(update_count) or before:
            return
        fresh = twin(agent, 1)
        for name in self.names:
            moments = moments_of(agent, name)
            start = dict(fresh.get_submodule(name).body.network.named_parameters())
            targets = [slow for slow, fast in agent.slow.items() if fast == name]
            for child in (name, *targets):
                inject(cast(Any, agent.get_submodule(child)).body, start)
            body: InjectedNetwork = cast(Any, agent.get_submodule(name)).body
            for key, parameter in body.network.named_parameters():
                if key in body.own:
                    for moment in moments[parameter]:
                        moment.zero_()
            if len(body.own) == len(start):
                cast(AdamState, agent.optimizers[name]).steps.zero_()


def inject(body: InjectedNetwork, start: dict[str, Tensor]) -> None:
    """What was learned goes into the frozen network, the fresh weights into the other two, in place."""
    for name in sorted(body.own):
        network, fresh, old = (module.get_parameter(name) for module in (body.network, body.fresh, body.old))
        old.copy_(network)
        network.copy_(start[name])
        fresh.copy_(start[name])
