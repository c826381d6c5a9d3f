"""Running statistics of observations and returns, as modules that are saved with the agent.

Statistics are float64: kept in float32 they do not reach SimbaV2's published scores. Replay keeps raw values; a batch is normalised when it is
used, with the statistics of that moment.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.signal import lfilter  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
from torch import Tensor, nn

from steelyard.agents.errors import SteelyardError, require
from steelyard.agents.types import Records


class NormalizerError(SteelyardError):
    """A normaliser that learns from a data set was given none, or one without spread."""


class RunningStatistics(nn.Module):
    """Mean and population variance of a stream, merged batch by batch (Chan et al. 1983): starts at mean 0, variance 1, count 1e-4."""

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.full((), 1e-4, dtype=torch.float64))

    def observe(self, x: Tensor, included: Tensor) -> None:
        """Merge the rows of x [rows, *shape] for which `included` [rows] is true."""
        weight = included.double().view(-1, *[1] * (x.ndim - 1))
        size = weight.sum()
        rows = size.clamp(min=1)
        mean = (x * weight).sum(0) / rows
        variance = ((x - mean).square() * weight).sum(0) / rows
        total = self.count + size
        delta = (mean - self.mean) * (size > 0)
        self.variance.copy_((self.variance * self.count + variance * size + delta.square() * self.count * size / total) / total)
        self.mean.add_(delta * size / total)
        self.count.copy_(total)


@dataclass(frozen=True)
class RawObservations:
    """Observations as they come."""

    def build(self, size: int) -> "UnchangedObservations":
        """A module that changes nothing and learns nothing."""
        del size
        return UnchangedObservations()


class UnchangedObservations(nn.Module):
    """The module that `RawObservations` describes."""

    def forward(self, obs: Tensor) -> Tensor:
        return obs

    def observe(self, obs: Tensor, included: Tensor) -> None:
        """Nothing to learn."""

    def fit(self, records: Records) -> None:
        """Nothing to learn."""


@dataclass(frozen=True)
class RunningNorm:
    """(obs - mean) / sqrt(variance + epsilon) with running statistics and no clipping (SimbaV2, section 4.1)."""

    epsilon: float = 1e-8
    """Added to the variance."""

    def __post_init__(self) -> None:
        if not self.epsilon >= 0:
            raise NormalizerError(f"epsilon of RunningNorm is {self.epsilon}; give zero or a positive number.")

    def build(self, size: int) -> "ObservationNorm":
        """The module for observations of length `size`."""
        return ObservationNorm(size, self.epsilon)


class ObservationNorm(nn.Module):
    """The module that `RunningNorm` describes."""

    def __init__(self, size: int, epsilon: float):
        super().__init__()
        self.statistics = RunningStatistics((size,))
        self.epsilon = epsilon

    def forward(self, obs: Tensor) -> Tensor:
        """Normalised observations [rows, size] in float32."""
        return ((obs - self.statistics.mean) / (self.statistics.variance + self.epsilon).sqrt()).float()

    def observe(self, obs: Tensor, included: Tensor) -> None:
        """Learn from the observations [rows, size] that the agent will act on, where `included` [rows]."""
        self.statistics.observe(obs.double(), included)

    def fit(self, records: Records) -> None:
        """Learn from the observations of a data set, as if they had been acted on one after the other."""
        obs = records.obs.to(self.statistics.mean.device).double()
        self.statistics.observe(obs, torch.ones(len(obs), dtype=torch.bool, device=obs.device))


@dataclass(frozen=True)
class DatasetNorm:
    """(obs - mean) / (std + epsilon) with the statistics of the data set, frozen from then on (TD3+BC, section 4)."""

    epsilon: float = 1e-3
    """Added to the deviation."""

    def build(self, size: int) -> "FrozenNorm":
        """The module for observations of length `size`."""
        return FrozenNorm(size, self.epsilon)


class FrozenNorm(nn.Module):
    """The module that `DatasetNorm` describes; until `fit` it changes nothing."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))

    def forward(self, obs: Tensor) -> Tensor:
        """Normalised observations [rows, size]."""
        return (obs - self.mean) / self.deviation

    def observe(self, obs: Tensor, included: Tensor) -> None:
        """Frozen: what is collected changes nothing."""

    def fit(self, records: Records) -> None:
        """Take mean and population deviation of a data set's observations."""
        obs = records.obs.double()
        self.mean.copy_(obs.mean(0))
        self.deviation.copy_(obs.std(0, correction=0) + self.epsilon)


@dataclass(frozen=True)
class UnscaledRewards:
    """Rewards as they come."""

    def build(self, num_envs: int, gamma: float) -> "UnchangedRewards":
        """A module that changes nothing and learns nothing."""
        del num_envs, gamma
        return UnchangedRewards()


class UnchangedRewards(nn.Module):
    """The module that `UnscaledRewards` describes."""

    def forward(self, reward: Tensor) -> Tensor:
        return reward

    def observe(self, reward: Tensor, done: Tensor, valid: Tensor) -> None:
        """Nothing to learn."""

    def fit(self, records: Records) -> None:
        """Nothing to learn."""


@dataclass(frozen=True)
class AffineRewards:
    """scale r + shift: the shifts and scales of sparse tasks, such as r - 1 or 10 r - 5 on AntMaze."""

    scale: float = 1.0
    """Factor."""
    shift: float = 0.0
    """Added after scaling."""

    def build(self, num_envs: int, gamma: float) -> "AffineScaling":
        """A module without statistics."""
        del num_envs, gamma
        return AffineScaling(self.scale, self.shift)


class AffineScaling(UnchangedRewards):
    """The module that `AffineRewards` describes."""

    def __init__(self, scale: float, shift: float):
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, reward: Tensor) -> Tensor:
        """Scaled and shifted rewards of the shape of `reward`."""
        return self.scale * reward + self.shift


@dataclass(frozen=True)
class ReturnRange:
    """r * target / (best - worst return of the data set): locomotion in IQL's released code. Online rewards get the same factor."""

    target: float = 1000.0
    """Difference between the best and the worst return after scaling."""

    def __post_init__(self) -> None:
        require(self.target > 0, f"target of ReturnRange is {self.target}; give a positive number.")

    def build(self, num_envs: int, gamma: float) -> "RangeScaling":
        """The module; until `fit` it changes nothing."""
        del num_envs, gamma
        return RangeScaling(self.target)


class RangeScaling(UnchangedRewards):
    """The module that `ReturnRange` describes."""

    factor: Tensor

    def __init__(self, target: float):
        super().__init__()
        self.target = target
        self.register_buffer("factor", torch.ones(1))

    def forward(self, reward: Tensor) -> Tensor:
        """Scaled rewards of the shape of `reward`."""
        return self.factor * reward

    def fit(self, records: Records) -> None:
        """Take the range of returns. Raises `NormalizerError` if all returns are equal."""
        spread = float(records.returns.max() - records.returns.min())
        if not spread > 0:
            raise NormalizerError(
                "all episodes of the data set have the same return, so its range scales nothing; use agent.rewards:unscaled-rewards."
            )
        self.factor.fill_(self.target / spread)


@dataclass(frozen=True)
class ReturnScale:
    """r / max(sqrt(Var[G] + epsilon), max |G| / G_max): returns of unit variance that stay inside the critic's support (SimbaV2, section 4.3)."""

    max_return: float = 5.0
    """G_max: bound on the scaled discounted return; the half-width of the critic's support."""
    epsilon: float = 1e-8
    """Added to the variance."""

    def __post_init__(self) -> None:
        if not self.max_return > 0 or not self.epsilon >= 0:
            raise NormalizerError(
                f"ReturnScale has max_return {self.max_return} and epsilon {self.epsilon}; give a positive number, and zero or more."
            )

    def build(self, num_envs: int, gamma: float) -> "RewardScaling":
        """The module for rewards of `num_envs` worlds discounted by `gamma`."""
        return RewardScaling(self, num_envs, gamma)


class RewardScaling(nn.Module):
    """The module that `ReturnScale` describes.

    G <- gamma (1 - done) G + r per world, so the last reward of an episode is carried into the next, as in the released code (the paper resets G).
    """

    discounted: Tensor
    largest: Tensor

    def __init__(self, config: ReturnScale, num_envs: int, gamma: float):
        super().__init__()
        self.config, self.gamma = config, gamma
        self.statistics = RunningStatistics(())
        self.register_buffer("discounted", torch.zeros(num_envs, dtype=torch.float64))
        self.register_buffer("largest", torch.zeros((), dtype=torch.float64))

    def forward(self, reward: Tensor) -> Tensor:
        """Scaled rewards, float32, of the shape of `reward`."""
        deviation = (self.statistics.variance + self.config.epsilon).sqrt()
        return (reward / torch.maximum(deviation, self.largest / self.config.max_return)).float()

    def observe(self, reward: Tensor, done: Tensor, valid: Tensor) -> None:
        """Learn from one step of every world [num_envs]; worlds that were only reset (not `valid`) are left as they are."""
        returns = self.gamma * self.discounted * ~done + reward
        self.discounted.copy_(torch.where(valid, returns, self.discounted))
        self.statistics.observe(self.discounted, valid)
        self.largest.copy_(torch.maximum(self.largest, (self.discounted.abs() * valid).amax()))

    def fit(self, records: Records) -> None:
        """Learn from the rewards of a data set, as if one world had given them one after the other.

        From one row that is done to the next, G_t = gamma G_(t-1) + r_t is a linear filter of the rewards.
        """
        reward, done = records.reward.double().cpu().numpy(), records.done.cpu().numpy()
        runs = np.split(reward, done.nonzero()[0])
        returns = np.concatenate([lfilter([1.0], [1.0, -self.gamma], run) for run in runs if len(run)])
        discounted = torch.as_tensor(returns, device=self.largest.device)
        self.statistics.observe(discounted, torch.ones(len(discounted), dtype=torch.bool, device=discounted.device))
        self.largest.copy_(torch.maximum(self.largest, discounted.abs().amax()))


ObservationNormalizer = RawObservations | RunningNorm | DatasetNorm
RewardScaler = UnscaledRewards | ReturnScale | AffineRewards | ReturnRange
