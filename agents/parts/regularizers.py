"""Slot `plasticity`: what pulls weights, inside the graph, towards where networks are trainable."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from steelyard.agents.errors import SlotError
from steelyard.agents.networks.matrices import NORMS, Matrix, matrices, trained
from steelyard.agents.parts.fresh import networks_of, projected
from steelyard.agents.parts.part import Part
from steelyard.agents.parts.plasticity import require
from steelyard.agents.types import Spec

if TYPE_CHECKING:
    from steelyard.agents.value_learner import ValueLearningAgent

WARM_UP = 20
"""Power iterations before the first update."""


@dataclass(frozen=True)
class L2Init:
    """Pull weights towards where they began: strength |theta - theta_0|^2 (Kumar et al. 2023, arXiv 2308.11958)."""

    strength: float = 1e-2
    """Its weight in the loss; 1e-2 on the critic in Ma et al. (2024)."""
    norm: Literal["squared", "plain"] = "squared"
    """|theta - theta_0|^2, or the norm itself (Plasticine)."""
    networks: tuple[str, ...] = ("critic",)
    """Which of the agent's own networks; none for all. theta_0 are the weights of the run's start, also after a reset."""

    def __post_init__(self) -> None:
        require("L2Init", strength=self.strength)

    def build(self, spec: Spec) -> "Anchored":
        """The part; it learns nothing."""
        del spec
        return Anchored(self)


class Anchored(Part):
    """The part that `L2Init` describes; theta_0 are buffers."""

    def __init__(self, config: L2Init):
        super().__init__()
        self.config = config
        self.places: dict[str, list[tuple[str, str]]] = {}

    def begin(self, agent: "ValueLearningAgent") -> None:
        """Keep the initial weights."""
        for name in networks_of(agent, self.config.networks, "L2Init"):
            own = list(agent.own(name).items())
            self.places[name] = [(key.rpartition(".")[0], key.rpartition(".")[2]) for key, _ in own]
            for number, (_, parameter) in enumerate(own):
                self.register_buffer(f"{name}_{number}", parameter.clone())

    def regularizer(self, agent: "ValueLearningAgent", name: str) -> Tensor | None:
        """strength |theta - theta_0|^2, or strength |theta - theta_0|, over the parameters of the child `name`."""
        if name not in self.places:
            return None
        pairs = ((getattr(agent.get_submodule(at), key), n) for n, (at, key) in enumerate(self.places[name]))
        squared = torch.stack([(parameter - getattr(self, f"{name}_{n}")).square().sum() for parameter, n in pairs]).sum()
        if self.config.norm == "squared":
            return self.config.strength * squared
        return self.config.strength * (squared + 1e-12).sqrt()  # at the start the norm itself has no gradient


@dataclass(frozen=True)
class SpectralRegularization:
    """Pull the largest singular value of each matrix towards one (Lewandowski et al. 2025, arXiv 2406.06811).

    strength times the sum over layers of (sigma_1(W)^k - 1)^2 + |b|^(2k), gains of normalisations pulled to one in the same way and offsets to
    zero. Parameters have no weights of samples, so neither has this. Not together with networks that keep their weights on a sphere.
    """

    strength: float = 1e-3
    """Its weight in the loss: 1e-5 to 1e-2. Adam rescales it, so strengths compare within one optimiser."""
    power: int = 2
    """k."""
    output: bool = False
    """Count the output layer as well. A largest singular value of one on a scalar head bounds the values it can say, unless rewards or returns are
    normalised."""
    networks: tuple[str, ...] = ()
    """Which of the agent's own networks; none for all."""

    def __post_init__(self) -> None:
        require("SpectralRegularization", strength=self.strength, power=self.power)

    def build(self, spec: Spec) -> "SpectrallyRegularized":
        """The part; it learns nothing."""
        del spec
        return SpectrallyRegularized(self)


class SpectrallyRegularized(Part):
    """The part that `SpectralRegularization` describes. The singular vectors are buffers, moved by one power iteration per update."""

    def __init__(self, config: SpectralRegularization):
        super().__init__()
        self.config = config
        self.maps: dict[str, list[str]] = {}
        self.gains: dict[str, list[str]] = {}

    @torch.no_grad()
    def begin(self, agent: "ValueLearningAgent") -> None:
        """Take the matrices and begin their singular vectors. Raises `SlotError` for a network whose weights are projected."""
        for name in networks_of(agent, self.config.networks, "SpectralRegularization"):
            child = agent.get_submodule(name)
            if projected(child):
                raise SlotError(
                    f"{name} puts its weights back on a sphere after every update, which fixes their size already; leave the spectral "
                    "regularisation out, or use an MLP."
                )
            chosen = [matrix for matrix in matrices(child) if self.config.output or not matrix.output]
            self.maps[name] = [f"{name}.{matrix.name}" for matrix in chosen]
            self.gains[name] = [f"{name}.{at}" for at, module in trained(child) if isinstance(module, NORMS)]
            for number, matrix in enumerate(chosen):
                weight = matrix.weight()
                # Any vector that is not orthogonal to the first singular one will do; sums of rows draw no random numbers.
                u = F.normalize(torch.linspace(1, 2, weight.shape[1], device=weight.device).expand(weight.shape[:2]), dim=-1)
                v = weight.new_zeros(weight.shape[0], weight.shape[2])
                for _ in range(WARM_UP):
                    u, v = iterate(weight, u)
                self.register_buffer(f"{name}_u{number}", u)
                self.register_buffer(f"{name}_v{number}", v)

    def vectors(self, name: str, number: int) -> tuple[Tensor, Tensor]:
        """Left [members, outputs] and right [members, inputs] singular vector of a matrix."""
        return getattr(self, f"{name}_u{number}"), getattr(self, f"{name}_v{number}")

    def refresh(self, agent: "ValueLearningAgent") -> None:
        """One power iteration of every matrix."""
        for name, maps in self.maps.items():
            for number, at in enumerate(maps):
                left, right = self.vectors(name, number)
                u, v = iterate(Matrix(at, agent.get_submodule(at)).weight(), left)
                left.copy_(u)
                right.copy_(v)

    def regularizer(self, agent: "ValueLearningAgent", name: str) -> Tensor | None:
        """strength sum of (sigma^k - 1)^2 + |b|^(2 k), sigma = u^T W v with u and v constant."""
        if not self.maps.get(name):
            return None
        k = self.config.power
        terms: list[Tensor] = []
        for number, at in enumerate(self.maps[name]):
            matrix = Matrix(at, agent.get_submodule(at))
            left, right = self.vectors(name, number)
            # Products of numbers and not of matrices: those would be taken in bfloat16 where that is the update's precision.
            sigma = (left.unsqueeze(-1) * right.unsqueeze(-2) * matrix.weight()).sum((-1, -2))
            terms.append((sigma**k - 1).square().sum())
            bias = matrix.bias()
            if bias is not None:
                terms.append((bias.square().sum(-1) ** k).sum())
        for at in self.gains[name]:
            norm: Any = agent.get_submodule(at)
            gain, offset = (norm.gain, norm.offset) if hasattr(norm, "gain") else (norm.weight, norm.bias)
            members = gain.shape[0] if gain.ndim == 3 else 1
            terms.append((gain**k - 1).square().sum())
            terms.append((offset.reshape(members, -1).square().sum(-1) ** k).sum())
        return self.config.strength * torch.stack(terms).sum()


def iterate(weight: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the power iteration: v ~ W^T u, then u ~ W v, for W [members, outputs, inputs]."""
    right = F.normalize((left.unsqueeze(-2) @ weight).squeeze(-2), dim=-1)
    return F.normalize((weight @ right.unsqueeze(-1)).squeeze(-1), dim=-1), right
