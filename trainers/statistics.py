"""What several training seeds say together. A seed is the unit of replication: it counts once, however many its episodes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from steelyard.agents.errors import SteelyardError

Statistic = Literal["mean", "iqm"]
FEW_SEEDS = 5
"""Below this many seeds an interval is little more than the range of the data."""


class StatisticsError(SteelyardError):
    """The numbers given are not one score per seed."""


@dataclass(frozen=True)
class Interval:
    """An estimate and what the seeds allow to say about it."""

    value: float
    """The point estimate."""
    low: float
    """Lower end; NaN with one seed."""
    high: float
    """Upper end; NaN with one seed."""
    level: float = 0.95
    """Nominal confidence."""

    def __str__(self) -> str:
        return f"{self.value:.1f}" if math.isnan(self.low) else f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


@dataclass(frozen=True)
class Summary:
    """Scores of several seeds on one task, or on several."""

    mean: Interval
    """Mean over all seeds of all tasks."""
    interquartile_mean: Interval
    """Mean of the middle half of all scores: less moved by one lucky or broken seed."""
    seeds: int
    """Seeds of the task that has the fewest."""
    tasks: int
    """Number of tasks."""
    warning: str | None
    """A sentence if there are too few seeds to trust the interval."""


@dataclass(frozen=True)
class Curve:
    """Scores of one training seed over the run."""

    env_steps: NDArray[np.float64]
    """[points] raw environment steps, increasing."""
    values: NDArray[np.float64]
    """[points] score at each of them, the mean over evaluation episodes."""
    offline: int = 0
    """Updates offline that come before the environment steps on the axis."""

    def __post_init__(self) -> None:
        if self.env_steps.ndim != 1 or self.env_steps.shape != self.values.shape or not len(self.env_steps):
            raise StatisticsError(
                f"a curve needs as many env_steps as values, got {self.env_steps.shape} and {self.values.shape}."
            )
        if (np.diff(self.env_steps) <= 0).any():
            raise StatisticsError("the env_steps of a curve do not increase; two runs were probably written into one file.")


@dataclass(frozen=True)
class Band:
    """Several seeds' curves as one, on common environment steps."""

    env_steps: NDArray[np.float64]
    """[points]"""
    value: NDArray[np.float64]
    """[points] mean or interquartile mean over seeds."""
    low: NDArray[np.float64]
    """[points] lower end of the interval; NaN with one seed."""
    high: NDArray[np.float64]
    """[points] upper end; NaN with one seed."""
    seeds: int
    """Number of seeds."""
    warning: str | None
    """A sentence if there are too few seeds to trust the interval."""


def summarise(
    scores: Mapping[str, Mapping[int, float]], *, level: float = 0.95, resamples: int = 20_000, seed: int = 0
) -> Summary:
    """Mean and interquartile mean with intervals over seeds, from `{task: {training seed: final score}}`.

    The keys are what makes a seed count once: there is no place for two episodes of one seed. Scores of several tasks must be on
    one scale (normalise them first). Raises `StatisticsError` for no scores, NaNs, or something other than one number per seed.
    """
    samples = [_one_per_seed(task, by_seed) for task, by_seed in scores.items()]
    if not samples:
        raise StatisticsError("there are no scores to summarise.")
    (mean, iqm) = (_intervals([s[None] for s in samples], name, level, resamples, seed) for name in ("mean", "iqm"))
    seeds = min(len(sample) for sample in samples)
    return Summary(_first(mean, level), _first(iqm, level), seeds, len(samples), _warning(seeds))


def aggregate(
    curves: Mapping[int, Curve], *, statistic: Statistic = "mean", level: float = 0.95, resamples: int = 5_000, seed: int = 0
) -> Band:
    """One band from `{training seed: curve}`.

    The curves are interpolated linearly onto all environment steps that any of them has, between the latest start and the
    earliest end: nothing is extrapolated, and every point rests on every seed. Raises `StatisticsError` if the curves do not
    overlap.
    """
    if not curves:
        raise StatisticsError("there are no curves to aggregate.")
    first, last = max(curve.env_steps[0] for curve in curves.values()), min(curve.env_steps[-1] for curve in curves.values())
    if first > last:
        raise StatisticsError("the curves of these seeds have no environment steps in common; let the shorter runs go on.")
    grid = np.unique(np.concatenate([curve.env_steps for curve in curves.values()]))
    grid = grid[(grid >= first) & (grid <= last)]
    values = np.stack([np.interp(grid, curve.env_steps, curve.values) for curve in curves.values()], axis=-1)
    value, low, high = _intervals([values], statistic, level, resamples, seed)
    return Band(grid, value, low, high, len(curves), _warning(len(curves)))


def _intervals(
    samples: list[NDArray[np.float64]], statistic: Statistic, level: float, resamples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(value, low, high), each [points], from one [points, seeds] array per task: bootstrap with each task resampled by itself.

    The plain percentile interval is too narrow for few seeds. Its tails are therefore taken as far out as Student's t and the
    factor sqrt(n / (n - 1)) demand: the expanded percentile interval of Hesterberg, "What Teachers Should Know About the
    Bootstrap", The American Statistician 69 (2015). Measured coverage of a nominal 95 % with normal scores: 91.8 % with five
    seeds and 94.7 % with ten, where the plain interval has 83.3 % and 90.3 %. With two or three it is the range of the scores,
    which covers 50 % and 75 %.
    """

    def pooled(*strata: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        scores = np.concatenate(strata, axis=axis)
        return scores.mean(axis) if statistic == "mean" else np.asarray(stats.trim_mean(scores, 0.25, axis=axis))

    value = pooled(*samples, axis=-1)
    sizes = [sample.shape[-1] for sample in samples]
    if min(sizes) < 2:
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    n = min(sizes)
    distance = stats.t.ppf((1 + level) / 2, sum(sizes) - len(sizes)) * math.sqrt(n / (n - 1))
    expanded = float(1 - 2 * stats.norm.sf(distance))
    # Batches keep the resampled scores of long curves out of memory's way; the same seeds are drawn at every point of a curve.
    result = stats.bootstrap(
        samples,
        pooled,
        axis=-1,
        vectorized=True,
        n_resamples=resamples,
        batch=500,
        confidence_level=expanded,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return value, result.confidence_interval.low, result.confidence_interval.high


def _one_per_seed(task: str, by_seed: Mapping[int, float]) -> NDArray[np.float64]:
    if not isinstance(by_seed, Mapping) or not by_seed:
        raise StatisticsError(f"the scores of {task} are not a mapping from training seed to score; give one number per seed.")
    for seed, score in by_seed.items():
        if np.ndim(score) != 0:
            raise StatisticsError(
                f"seed {seed} of {task} has {np.size(score)} scores; give one per seed, such as the mean of its episodes."
            )
        if not math.isfinite(score):
            raise StatisticsError(f"seed {seed} of {task} has the score {score}; leave the seed out and say so, or repeat it.")
    return np.array(list(by_seed.values()), dtype=np.float64)


def _first(intervals: tuple[ArrayLike, ArrayLike, ArrayLike], level: float) -> Interval:
    value, low, high = (float(np.asarray(ends)[0]) for ends in intervals)
    return Interval(value, low, high, level)


def _warning(seeds: int) -> str | None:
    if seeds >= FEW_SEEDS:
        return None
    known = "one seed has no interval" if seeds == 1 else f"an interval over {seeds} seeds is little more than their range"
    return f"{known}; {FEW_SEEDS} or more are needed."
