"""The weights of Deep Variance Weighting (Kitamura et al. 2023), for many runs at once; the runs are the leading axis."""

from torch import Tensor
from torch.nn import functional

EPSILON = 0.1
"""Added to every variance, in squared units of the return."""
SMALLEST = 0.1
"""Smallest weight."""


def weights(log_scale: Tensor, variance: Tensor) -> Tensor:
    """max(eta / Var, 0.1), [runs, points], from log eta [runs, 1] and floored variances [runs, points]; no gradient."""
    return (log_scale.exp() / variance).clamp_min(SMALLEST).detach()


def scale_loss(log_scale: Tensor, variance: Tensor) -> Tensor:
    """(mean(eta / Var) - 1)^2, summed over runs: smallest where the mean weight is one. Only eta has a gradient."""
    return ((log_scale.exp() / variance.detach()).mean(1) - 1).square().sum()


def variance_loss(log_variance: Tensor, sampled: Tensor) -> Tensor:
    """Huber loss between exp(log_variance) + 0.1 and squared residuals, [runs, points] each; mean over points, sum over runs."""
    return functional.huber_loss(log_variance.exp() + EPSILON, sampled, reduction="none").mean(1).sum()
