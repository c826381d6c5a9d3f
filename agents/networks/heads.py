"""What a critic's output means: scalar and categorical values that nothing else needs to tell apart."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steelyard.agents.errors import require

SMALLEST = 1e-30
"""Probabilities below this one are taken for it before their logarithm."""


@dataclass(frozen=True)
class Scalar:
    """The critic's output is the value."""

    def build(self) -> "ScalarValue":
        """The module with the operations on outputs [..., 1]."""
        return ScalarValue()


class ScalarValue(nn.Module):
    """Operations on scalar outputs [..., batch, 1]."""

    size = 1

    def value(self, output: Tensor) -> Tensor:
        """Q [..., batch] of outputs [..., batch, 1]."""
        return output.squeeze(-1)

    def backup(self, output: Tensor, reward: Tensor, discount: Tensor, bonus: Tensor) -> Tensor:
        """r + discount (Q' - bonus) as an output [batch, 1]; `bonus` [batch] is the entropy term alpha log pi, or zero."""
        return (reward + discount * (output.squeeze(-1) - bonus)).unsqueeze(-1)

    def point(self, value: Tensor) -> Tensor:
        """A target [batch, 1] that says `value` [batch]."""
        return value.unsqueeze(-1)

    def mixture(self, outputs: Tensor, probabilities: Tensor) -> Tensor:
        """The output [..., batch, 1] that stands for drawing one of `outputs` [..., batch, n, 1] with probabilities [batch, n]: their mean."""
        return (outputs * probabilities.unsqueeze(-1)).sum(-2)

    def expectation(self, target: Tensor) -> Tensor:
        """The value [...] that a target [..., 1] says."""
        return target.squeeze(-1)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """(Q - y)^2 / 2 per sample [..., batch]."""
        return 0.5 * (output - target).square().squeeze(-1)


@dataclass(frozen=True)
class Categorical:
    """The critic's output is a distribution over evenly spaced values (C51, Bellemare et al. 2017), as in SimbaV2."""

    atoms: int = 101
    """Number of support points."""
    low: float = -5.0
    """Smallest value of the support."""
    high: float = 5.0
    """Largest value of the support; choose it together with the reward scaling's `max_return`."""

    def __post_init__(self) -> None:
        require(self.atoms >= 2, f"atoms of Categorical is {self.atoms}; give two or more.")
        require(self.low < self.high, f"Categorical goes from low {self.low} to high {self.high}; give the smaller one first.")

    def build(self) -> "CategoricalValue":
        """The module with the operations on logits [..., atoms]."""
        return CategoricalValue(self)


class CategoricalValue(nn.Module):
    """Operations on categorical outputs: logits [..., batch, atoms]; targets are probabilities [batch, atoms]."""

    support: Tensor

    def __init__(self, config: Categorical):
        super().__init__()
        self.config = config
        self.size = config.atoms
        self.register_buffer("support", torch.linspace(config.low, config.high, config.atoms), persistent=False)

    def value(self, output: Tensor) -> Tensor:
        """Q = sum_i p_i z_i [..., batch] of logits [..., batch, atoms]."""
        return (output.softmax(-1) * self.support).sum(-1)

    def backup(self, output: Tensor, reward: Tensor, discount: Tensor, bonus: Tensor) -> Tensor:
        """Project the distribution of r + discount (Z' - bonus), clipped to the support, onto the atoms: probabilities [batch, atoms].

        Each moved atom shares its mass between its two neighbours by distance: y_k = sum_i p_i max(0, 1 - |b_i - k|), b_i its position in
        units of atoms. The sum is dense because a scatter would add in an order that threads decide.
        """
        moved = (reward - discount * bonus).unsqueeze(-1) + discount.unsqueeze(-1) * self.support
        return (output.softmax(-1).unsqueeze(-2) * self.shares(moved)).sum(-1)

    def point(self, value: Tensor) -> Tensor:
        """A target [batch, atoms] that says `value` [batch], clipped to the support: all mass on its two neighbours (two-hot)."""
        return self.shares(value.unsqueeze(-1)).squeeze(-1)

    def shares(self, moved: Tensor) -> Tensor:
        """Share [batch, atoms, n] of each atom in the mass that lies at `moved` [batch, n]."""
        low, high, last = self.config.low, self.config.high, self.config.atoms - 1
        position = (moved.clamp(low, high) - low) * (last / (high - low))
        slot = torch.arange(self.config.atoms, device=moved.device)
        return (1 - (position.unsqueeze(-2) - slot.unsqueeze(-1)).abs()).clamp(min=0)

    def mixture(self, outputs: Tensor, probabilities: Tensor) -> Tensor:
        """The output [..., batch, atoms] that stands for drawing one of `outputs` [..., batch, n, atoms] with probabilities [batch, n]."""
        return (outputs.softmax(-1) * probabilities.unsqueeze(-1)).sum(-2).clamp(min=SMALLEST).log()

    def expectation(self, target: Tensor) -> Tensor:
        """The value [...] that a target [..., atoms] says: its mean."""
        return (target * self.support).sum(-1)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy -sum_i y_i log p_i per sample [..., batch]."""
        return -(target * output.log_softmax(-1)).sum(-1)


ValueHead = Scalar | Categorical


def pessimistic(head: ScalarValue | CategoricalValue, output: Tensor) -> Tensor:
    """Of outputs [critics, batch, size], each sample's whole output from the critic that values it least: [batch, size] (clipped double Q)."""
    lowest = head.value(output).argmin(0)
    return output.gather(0, lowest[None, :, None].expand(1, -1, output.shape[-1])).squeeze(0)
