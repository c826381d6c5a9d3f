"""Means over seeds with their 95 % intervals, for numbers of any size."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from experiments.claim import interval
from steelyard.trainers.statistics import Interval


def mean(values: ArrayLike) -> Interval:
    """Mean of one number per seed [seeds]."""
    return interval(dict(enumerate(np.asarray(values, dtype=np.float64).tolist())), "values")


def ratio(numerator: ArrayLike, denominator: ArrayLike, resamples: int = 20_000) -> Interval:
    """Ratio of two means over the same seeds [seeds], with a bootstrap interval that draws seeds, not numbers, anew."""
    above, below = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)

    def of_means(above: np.ndarray, below: np.ndarray, axis: int = -1) -> np.ndarray:
        return above.mean(axis) / below.mean(axis)

    value = float(of_means(above, below))
    if len(above) < 2:
        return Interval(value, float("nan"), float("nan"))
    ends = stats.bootstrap(
        (above, below),
        of_means,
        paired=True,
        n_resamples=resamples,
        batch=1000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(value, float(ends.low), float(ends.high))


def show(found: Interval, digits: int = 3) -> str:
    """Value and interval with so many significant digits."""
    value, low, high = (f"{number:.{digits}g}" for number in (found.value, found.low, found.high))
    return value if low == "nan" else f"{value} [{low}, {high}]"


def row(names: Sequence[str], values: Sequence[ArrayLike], digits: int = 3) -> dict[str, str]:
    """{name: mean with its interval} of several numbers per seed."""
    return {name: show(mean(each), digits) for name, each in zip(names, values, strict=True)}
