"""Policies over actions in [-1, 1]: distributions and deterministic maps, each with a density for data actions."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steelyard.agents.errors import require

BodyBuilder = Callable[[tuple[int, ...]], nn.Module]
"""Builds the policy's network from the sizes of its outputs."""

INSIDE = 1 - 1e-5
"""Data actions are kept this far inside [-1, 1] before a squashed density is taken of them, as in IQL's released code."""


def require_order(name: str, low: float, high: float) -> None:
    """Raises `SlotError` for bounds of a log standard deviation between which there is nothing."""
    require(low <= high, f"log deviations of {name} go from low {low} to high {high}; give the smaller one first.")


@dataclass(frozen=True)
class Gaussian:
    """Tanh-squashed Gaussian policy with a state-dependent deviation."""

    low: float = -20.0
    """Smallest log standard deviation."""
    high: float = 2.0
    """Largest log standard deviation."""
    bound: Literal["clamp", "tanh"] = "clamp"
    """How the network's output is kept in [low, high]: cut off, or squashed by low + (high - low) (1 + tanh x) / 2."""
    offset: float | None = None
    """If given, the network's output is scaled and shifted by two learned numbers that start at 1 and at this (CQL: -1)."""

    def __post_init__(self) -> None:
        require_order("Gaussian", self.low, self.high)

    def log_std(self, raw: Tensor) -> Tensor:
        """Bounded log standard deviation of the shape of `raw`."""
        if self.bound == "clamp":
            return raw.clamp(self.low, self.high)
        return self.low + 0.5 * (self.high - self.low) * (1 + raw.tanh())

    def build(self, body: BodyBuilder, action_size: int) -> "GaussianPolicy":
        """The policy on a network with the outputs (mean, raw log standard deviation)."""
        return GaussianPolicy(body((action_size, action_size)), self)


class GaussianPolicy(nn.Module):
    """a = tanh(mean + std noise), with log pi(a|s) from the change of variables (Haarnoja et al. 2018, appendix C).

    Args:
        body: Network from observations to (mean, raw log standard deviation), each [batch, action_size].
        config: Bounds of the deviation.
    """

    def __init__(self, body: nn.Module, config: Gaussian):
        super().__init__()
        self.body, self.config = body, config
        self.affine = None if config.offset is None else nn.Parameter(torch.tensor([1.0, config.offset]))

    def moments(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation [batch, action_size] before squashing."""
        mean, raw = self.body(obs)
        return mean, self.config.log_std(raw if self.affine is None else self.affine[0] * raw + self.affine[1])

    def forward(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [batch, action_size] for standard normal `noise` of that shape, and their log densities [batch].

        `noise` may have further axes in front, for several actions per observation; so have then the results.
        """
        mean, log_std = self.moments(obs)
        x = mean + log_std.exp() * noise
        return x.tanh(), squashed_density(x, noise, log_std)

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """log pi(a|s) [batch] of given actions, moved inside (-1, 1) by 1e-5."""
        mean, log_std = self.moments(obs)
        x = action.clamp(-INSIDE, INSIDE).atanh()
        return squashed_density(x, (x - mean) * (-log_std).exp(), log_std)

    def propose(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Actions for standard normal noise, differentiable in the policy and in the observation."""
        return self(obs, noise)[0]

    sample = propose

    def mode(self, obs: Tensor) -> Tensor:
        """Deterministic actions tanh(mean) [batch, action_size]."""
        return self.body(obs)[0].tanh()


def squashed_density(x: Tensor, noise: Tensor, log_std: Tensor) -> Tensor:
    """log density [batch] of tanh(x), x = mean + std noise."""
    density = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    jacobian = 2 * (math.log(2) - x - F.softplus(-2 * x))  # log(1 - tanh(x)^2), stable for large |x|
    return (density - jacobian).sum(-1)


@dataclass(frozen=True)
class UnsquashedGaussian:
    """Gaussian policy with one learned deviation per action component, the same in all states; sampled actions are clipped.

    With the mean inside tanh it is IQL's policy (Kostrikov et al. 2021), with a linear mean CORL's AWAC policy.
    """

    mean: Literal["tanh", "linear"] = "tanh"
    """Whether the mean is squashed. The distribution is not: its density is that of a plain Gaussian."""
    low: float = -5.0
    """Smallest log standard deviation."""
    high: float = 2.0
    """Largest log standard deviation."""

    def __post_init__(self) -> None:
        require_order("UnsquashedGaussian", self.low, self.high)

    def build(self, body: BodyBuilder, action_size: int) -> "UnsquashedGaussianPolicy":
        """The policy on a network with one output, the mean."""
        return UnsquashedGaussianPolicy(body((action_size,)), self, action_size)


class UnsquashedGaussianPolicy(nn.Module):
    """The policy that `UnsquashedGaussian` describes; the log standard deviation starts at zero."""

    def __init__(self, body: nn.Module, config: UnsquashedGaussian, action_size: int):
        super().__init__()
        self.body, self.config = body, config
        self.raw_log_std = nn.Parameter(torch.zeros(action_size))

    def moments(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean [batch, action_size] and log standard deviation [action_size]."""
        (mean,) = self.body(obs)
        return mean.tanh() if self.config.mean == "tanh" else mean, self.raw_log_std.clamp(self.config.low, self.config.high)

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """log pi(a|s) [batch] of given actions."""
        mean, log_std = self.moments(obs)
        standard = (action - mean) * (-log_std).exp()
        return (-0.5 * standard.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def propose(self, obs: Tensor, noise: Tensor) -> Tensor:
        """mean + std noise, not clipped, differentiable in the policy and in the observation."""
        mean, log_std = self.moments(obs)
        return mean + log_std.exp() * noise

    def sample(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Exploratory actions [batch, action_size], clipped to [-1, 1]; zero noise gives the mode."""
        return self.propose(obs, noise).clamp(-1, 1)

    def mode(self, obs: Tensor) -> Tensor:
        """The mean, clipped to [-1, 1]."""
        return self.moments(obs)[0].clamp(-1, 1)


@dataclass(frozen=True)
class Deterministic:
    """a = tanh(f(s)), explored with Gaussian noise."""

    exploration_noise: float = 0.1
    """Standard deviation of the Gaussian noise on collected actions."""

    def build(self, body: BodyBuilder, action_size: int) -> "DeterministicPolicy":
        """The policy on a network with one output."""
        return DeterministicPolicy(body((action_size,)), self.exploration_noise)


class DeterministicPolicy(nn.Module):
    """a = tanh(f(s)).

    Args:
        body: Network from observations to one tensor [batch, action_size].
        exploration_noise: Standard deviation of the Gaussian noise on exploratory actions.
    """

    def __init__(self, body: nn.Module, exploration_noise: float):
        super().__init__()
        self.body, self.exploration_noise = body, exploration_noise

    def forward(self, obs: Tensor) -> Tensor:
        """Actions [batch, action_size]."""
        return self.body(obs)[0].tanh()

    mode = forward

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """-|a - pi(s)|^2 [batch], which stands for the density it has not: regression in place of likelihood (CORL's IQL, BC)."""
        return -(action - self(obs)).square().sum(-1)

    def propose(self, obs: Tensor, noise: Tensor) -> Tensor:
        """pi(s), whatever the noise."""
        return self(obs)

    def sample(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Exploratory actions [batch, action_size], kept in [-1, 1]."""
        return (self(obs) + self.exploration_noise * noise).clamp(-1, 1)


PolicyHead = Gaussian | UnsquashedGaussian | Deterministic
Policy = GaussianPolicy | UnsquashedGaussianPolicy | DeterministicPolicy
