"""Rescaling of actions and the checks at the edge."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steelyard.envs.edge import ActionBounds, check_actions, to_float32
from steelyard.envs.vector import EnvError


@given(
    low=st.floats(-100, 100, width=32),
    width=st.floats(0.125, 100, width=32),
    action=st.floats(-1, 1, width=32),
)
def test_rescaled_actions_stay_within_float32_bounds(low, width, action):
    bounds = ActionBounds(np.array([low], np.float32), np.array([low + width], np.float32), np.float32)
    high = np.float32(low + width)
    scaled = bounds.to_world(np.array([[action]], np.float32))
    assert scaled.dtype == np.float32
    assert np.float32(low) <= scaled[0, 0] <= high
    assert scaled[0, 0] == pytest.approx(low + (action + 1) / 2 * (float(high) - low), abs=1e-4)


def test_ends_map_to_ends_and_infinite_bounds_pass_through():
    most = float(np.finfo(np.float32).max)  # what some tasks write for no bound
    bounds = ActionBounds(np.array([-2.0, 0.0, -np.inf, 0.0, -most]), np.array([2.0, 10.0, np.inf, np.inf, most]), np.float64)
    assert bounds.to_world(np.array([[1.0, 1.0, 0.7, 0.7, 0.7], [-1.0, -1.0, -0.7, 0.2, -1.0]])).tolist() == [
        [2.0, 10.0, 0.7, 0.7, 0.7],
        [-2.0, 0.0, -0.7, 0.2, -1.0],
    ]


def test_bounds_of_one_leave_actions_bit_for_bit():
    bounds = ActionBounds(-np.ones(2, np.float32), np.ones(2, np.float32), np.float32)
    action = np.random.default_rng(0).uniform(-1, 1, (5, 2)).astype(np.float32)
    assert np.array_equal(bounds.to_world(action), action)


def test_refused_actions_are_named():
    action = torch.zeros(3, 2)
    action[1, 0] = -1.5
    with pytest.raises(EnvError, match=r"component 0 of the action for world 1 is -1.5, outside \[-1, 1\]"):
        check_actions("task", action, (3, 2))
    with pytest.raises(EnvError, match=r"shape \(3, 2\)"):
        check_actions("task", torch.zeros(3, 2), (4, 2))


def test_numbers_too_large_for_float32_are_refused():
    with pytest.raises(EnvError, match=r"task: world 1 returned inf as its observation\[0\]"):
        to_float32("task", "observation", np.array([[0.0], [1e300]]))
