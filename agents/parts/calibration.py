"""Slot `calibration` of CQL: whether returns seen in the data bound the values that conservatism pushes down (Cal-QL)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from steelyard.agents.parts.part import Part


@dataclass(frozen=True)
class Uncalibrated:
    """Values of sampled actions are pushed down however low they are (CQL)."""

    def build(self) -> "Unbounded":
        """The part; it learns nothing."""
        return Unbounded()


class Unbounded(Part):
    """The part that `Uncalibrated` describes."""

    columns: frozenset[str] = frozenset()
    """Columns of replay that it reads beyond the usual ones."""

    def bound(self, values: Tensor, goal_return: Tensor | None) -> Tensor:
        """Values [critics, samples, batch] of the policy's actions, as conservatism sees them."""
        return values


@dataclass(frozen=True)
class ReturnBound:
    """Values count as no lower than the return that the data's policy reached from there: max(Q, G) (Cal-QL, Nakamoto et al. 2023)."""

    def build(self) -> "Bounded":
        """The part; it learns nothing."""
        return Bounded()


class Bounded(Unbounded):
    """The part that `ReturnBound` describes."""

    columns = frozenset({"goal_return"})

    def bound(self, values: Tensor, goal_return: Tensor | None) -> Tensor:
        """max(Q, G) [critics, samples, batch]; rows whose episode has not ended have the return -infinity, which bounds nothing."""
        assert goal_return is not None, "replay must keep returns for Cal-QL: ReplayBuffer.keep_returns"
        return torch.maximum(values, goal_return)


Calibration = Uncalibrated | ReturnBound
