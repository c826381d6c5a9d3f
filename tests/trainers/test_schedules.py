"""Exact update ratios, and clocks that miss nothing."""

from fractions import Fraction
from math import floor, inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.trainers.schedules import Every, FixedRatio, PerStep, ScheduleError, Until


@given(st.sampled_from([0.25, 0.3, 0.1, 1.0, 1.5, 2.7, 16.0]), st.lists(st.integers(0, 50), max_size=60))
def test_updates_are_the_floor_of_transitions_times_ratio(ratio, collected):
    schedule = FixedRatio(ratio).build()
    total = updates = 0
    for transitions in collected:
        updates += schedule.updates(transitions)
        total += transitions
        assert updates == floor(total * Fraction(str(ratio)))


def test_a_tenth_means_a_tenth_for_ever():
    schedule = FixedRatio(0.1).build()
    assert sum(schedule.updates(1) for _ in range(10_000)) == 1_000


def test_credit_is_saved():
    schedule, resumed = FixedRatio(0.3).build(), FixedRatio(0.3).build()
    schedule.updates(8)
    resumed.load_state_dict(schedule.state_dict())
    assert [resumed.updates(1) for _ in range(9)] == [schedule.updates(1) for _ in range(9)] == [0, 1, 0, 0, 0, 1, 0, 0, 1]


@pytest.mark.parametrize("ratio", [0, -1.0, inf, nan])
def test_a_ratio_that_cannot_be_kept_is_refused(ratio):
    with pytest.raises(ScheduleError, match="ratio is"):
        FixedRatio(ratio).build()


def test_every_multiple_is_noticed_once_even_if_jumped_over():
    every = Every(10)
    assert [count for count in range(0, 60, 4) if every(count)] == [12, 20, 32, 40, 52]
    assert Every(10)(35)
    assert not Every(10)(9)


def test_every_resumes():
    every, resumed = Every(10), Every(10)
    assert every(25)
    resumed.load_state_dict(every.state_dict())
    assert not resumed(29)
    assert resumed(30)


def test_an_interval_of_zero_is_refused():
    with pytest.raises(ScheduleError, match="interval is 0"):
        Every(0)


def test_until():
    until = Until(10)
    assert [until(count) for count in (0, 9, 10, 11)] == [True, True, False, False]


class Worlds:
    """All that a schedule wants to know of an agent."""

    def __init__(self, num_envs: int):
        self.setting = self
        self.num_envs = num_envs


@settings(deadline=None)
@given(st.sampled_from([8.0, 2.0, 0.5, 0.3]), st.sampled_from([1, 3, 1000, 4096]), st.integers(1, 200))
def test_updates_per_step_of_all_worlds_are_exact_whatever_their_number(updates, worlds, steps):
    schedule = PerStep(updates).build()
    schedule.begin(Worlds(worlds))
    made = [schedule.updates(worlds) for _ in range(steps)]
    assert sum(made) == floor(steps * Fraction(str(updates)))
    assert max(made) - min(made) <= 1
    assert PerStep(updates).expected(steps * worlds, worlds) == max(sum(made), 1)


def test_updates_per_step_are_saved_and_refused():
    schedule, resumed = PerStep(0.3).build(), PerStep(0.3).build()
    for one in (schedule, resumed):
        one.begin(Worlds(3))
    schedule.updates(8)
    resumed.load_state_dict(schedule.state_dict())
    assert [resumed.updates(1) for _ in range(30)] == [schedule.updates(1) for _ in range(30)]
    with pytest.raises(ScheduleError, match="ratio is 0"):
        PerStep(0).build()


def test_a_ratio_of_eight_for_4096_transitions_is_exact():
    schedule = FixedRatio(8 / 4096).build()
    assert [schedule.updates(4096) for _ in range(1000)] == [8] * 1000
