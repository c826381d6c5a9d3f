"""The shapes of reward that the dm-control suite is made of."""

import math
from typing import Literal

import torch
from torch import Tensor

Sigmoid = Literal["gaussian", "linear", "quadratic", "cosine", "long_tail"]


def tolerance(
    value: Tensor,
    low: float = 0.0,
    high: float = 0.0,
    margin: float = 0.0,
    sigmoid: Sigmoid = "gaussian",
    at_margin: float = 0.1,
) -> Tensor:
    """1 between `low` and `high`, falling to `at_margin` at a distance of `margin` from them; without a margin it is 0 there.

    After `tolerance` of dm_control/utils/rewards.py (Tassa et al. 2018, section 4.2).
    """
    inside = (value >= low) & (value <= high)
    if margin == 0:
        return inside.to(value.dtype)
    distance = torch.where(value < low, low - value, value - high) / margin
    return torch.where(inside, 1.0, _fall(distance, sigmoid, at_margin))


def _fall(distance: Tensor, sigmoid: Sigmoid, at_margin: float) -> Tensor:
    """1 at a distance of 0 and `at_margin` at 1."""
    if sigmoid == "gaussian":
        return torch.exp(math.log(at_margin) * distance.square())
    if sigmoid == "linear":
        return (1 - (1 - at_margin) * distance).clamp(min=0)
    if sigmoid == "quadratic":
        return (1 - (1 - at_margin) * distance.square()).clamp(min=0)
    if sigmoid == "long_tail":
        return 1 / ((1 / at_margin - 1) * distance.square() + 1)
    angle = math.acos(2 * at_margin - 1) * distance
    return torch.where(angle < math.pi, (1 + torch.cos(angle)) / 2, 0.0)
