"""Statistics over seeds: hand values, what is refused, and how often the interval holds the truth."""

import math

import numpy as np
import pytest

from steelyard.trainers.statistics import Curve, StatisticsError, aggregate, summarise


def curve(steps: list[float], values: list[float]) -> Curve:
    return Curve(np.array(steps, dtype=float), np.array(values, dtype=float))


def test_mean_and_interquartile_mean_against_hand_values() -> None:
    scores = {0: 0.0, 1: 10.0, 2: 20.0, 3: 30.0, 4: 40.0, 5: 50.0, 6: 60.0, 7: 1000.0}
    summary = summarise({"task": scores})
    assert summary.mean.value == pytest.approx(1210 / 8)
    assert summary.interquartile_mean.value == pytest.approx((20 + 30 + 40 + 50) / 4)
    assert (summary.seeds, summary.tasks, summary.warning) == (8, 1, None)
    assert summary.mean.low < summary.mean.value < summary.mean.high
    assert summary.interquartile_mean.high < 1000


def test_two_seeds_give_their_range_and_one_seed_none() -> None:
    two = summarise({"task": {0: 1.0, 1: 3.0}})
    assert (two.mean.low, two.mean.value, two.mean.high) == (1.0, 2.0, 3.0)
    assert two.warning is not None
    assert "2 seeds" in two.warning
    one = summarise({"task": {0: 7.0}})
    assert one.mean.value == 7.0
    assert math.isnan(one.mean.low)
    assert math.isnan(one.mean.high)
    assert one.warning is not None
    assert "one seed has no interval" in one.warning
    assert str(one.mean) == "7.0"
    assert str(two.mean) == "2.0 [1.0, 3.0]"


def test_the_bootstrap_is_stratified_by_task() -> None:
    """Between tasks lies a gulf, within them nothing: an interval that mixes them would be wide."""
    summary = summarise({"easy": dict.fromkeys(range(5), 1000.0), "hard": dict.fromkeys(range(5), 0.0)})
    assert (summary.mean.low, summary.mean.value, summary.mean.high) == (500.0, 500.0, 500.0)
    assert summary.tasks == 2


def test_the_seed_with_fewest_tasks_decides_the_warning() -> None:
    assert summarise({"a": dict.fromkeys(range(9), 1.0), "b": dict.fromkeys(range(4), 1.0)}).seeds == 4


def test_same_input_same_interval() -> None:
    scores = {"task": {seed: float(seed**2) for seed in range(6)}}
    assert summarise(scores) == summarise(scores)
    assert summarise(scores) != summarise(scores, seed=1, resamples=200)


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        ({"task": {0: [1.0, 2.0]}}, "seed 0 of task has 2 scores"),
        ({"task": [1.0, 2.0, 3.0]}, "not a mapping from training seed"),
        ({"task": {}}, "not a mapping from training seed"),
        ({"task": {0: 1.0, 1: math.nan}}, "seed 1 of task has the score nan"),
        ({}, "no scores"),
    ],
)
def test_anything_but_one_number_per_seed_is_refused(scores: object, sentence: str) -> None:
    with pytest.raises(StatisticsError, match=sentence):
        summarise(scores)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("seeds", "least", "most"), [(5, 0.90, 0.94), (10, 0.93, 0.965)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(seeds: int, least: float, most: float) -> None:
    """3,000 experiments with normal scores: the standard error of the coverage is 0.5 %. Measured over 16,000 it is 91.8 and 94.7
    %; the plain percentile interval covers 83.3 and 90.3 %, outside both bands."""
    scores = 100 + 15 * np.random.default_rng(7).standard_normal((3000, seeds))
    band = aggregate({seed: Curve(np.arange(3000.0), scores[:, seed]) for seed in range(seeds)}, resamples=1_000)
    covered = np.mean((band.low <= 100) & (band.high >= 100))
    assert least <= covered <= most


def test_curves_meet_on_their_common_steps() -> None:
    band = aggregate({0: curve([0, 10, 20, 30], [0, 10, 20, 30]), 1: curve([5, 15, 25], [100, 300, 500])})
    assert band.env_steps.tolist() == [5, 10, 15, 20, 25]
    assert band.value.tolist() == [(5 + 100) / 2, (10 + 200) / 2, (15 + 300) / 2, (20 + 400) / 2, (25 + 500) / 2]
    assert band.low.tolist() == [5, 10, 15, 20, 25]
    assert band.high.tolist() == [100, 200, 300, 400, 500]
    assert band.seeds == 2
    assert band.warning is not None


def test_the_interquartile_mean_of_a_curve_ignores_one_broken_seed() -> None:
    good = {seed: curve([0, 1], [100, 100]) for seed in range(5)}
    band = aggregate(good | {5: curve([0, 1], [-9999, -9999])}, statistic="iqm")
    assert band.value.tolist() == [100, 100]


def test_curves_without_common_steps_or_order_are_refused() -> None:
    with pytest.raises(StatisticsError, match="no environment steps in common"):
        aggregate({0: curve([0, 1], [0, 0]), 1: curve([2, 3], [0, 0])})
    with pytest.raises(StatisticsError, match="do not increase"):
        curve([0, 1, 1], [0, 0, 0])
    with pytest.raises(StatisticsError, match="as many env_steps as values"):
        curve([0, 1], [0])
    with pytest.raises(StatisticsError, match="no curves"):
        aggregate({})
