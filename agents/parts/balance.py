"""Slot `balance`: improvement of the policy against closeness to the data."""

from dataclasses import dataclass

from torch import Tensor

from steelyard.agents.parts.part import Part
from steelyard.agents.types import Spec


@dataclass(frozen=True)
class Fixed:
    """One constant for all states. At zero the policy improves freely, as online agents do."""

    cloning: float = 0.0
    """Weight of the squared distance between the policy's action and the data's."""

    def build(self, spec: Spec) -> "FixedBalance":
        """The part; it learns nothing."""
        del spec
        return FixedBalance(self.cloning)


class FixedBalance(Part):
    """The part that `Fixed` describes."""

    inputs = 0
    """How many numbers `condition` appends to an observation."""

    def __init__(self, cloning: float):
        super().__init__()
        self.cloning = cloning

    def condition(self, obs: Tensor) -> Tensor:
        """What the actor sees for normalised observations [batch, obs_size]: [batch, obs_size + inputs]."""
        return obs

    def forward(self, improvement: Tensor, action: Tensor, data_action: Tensor) -> Tensor:
        """Actor loss per sample [batch]: improvement + cloning |a - a_data|^2 / action_size."""
        if self.cloning == 0:
            return improvement
        return improvement + self.cloning * (action - data_action).square().mean(-1)


Balance = Fixed
