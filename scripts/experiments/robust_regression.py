"""Linear regressions by the squared, the Huber and the absolute loss, exactly."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

Array = NDArray[np.floating]


def least_squares(inputs: Array, target: Array) -> Array:
    """[d] weights that minimise sum (target - inputs w)^2."""
    return np.linalg.lstsq(inputs, target, rcond=None)[0]


def huber(inputs: Array, target: Array, threshold: float, steps: int = 100_000) -> Array:
    """[d] weights that minimise sum p(target - inputs w), p(x) = x^2 up to the threshold t and 2 t |x| - t^2 beyond.

    Reweighted least squares; at its end inputs' clip(error, -t, t) = 0, which holds at the minimum of this convex sum and nowhere else.
    """
    weights = least_squares(inputs, target)
    for _ in range(steps):
        error = target - inputs @ weights
        if np.abs(inputs.T @ np.clip(error, -threshold, threshold)).max() < 1e-10 * threshold:
            break
        scale = np.minimum(1, threshold / np.maximum(np.abs(error), 1e-300))
        weights = np.linalg.solve(inputs.T @ (scale[:, None] * inputs), inputs.T @ (scale * target))
    return weights


def least_absolute(inputs: Array, target: Array) -> Array:
    """[d] weights that minimise sum |target - inputs w|, as a linear program: an error is the difference of two positive parts."""
    states, d = inputs.shape
    cost = np.concatenate((np.zeros(d), np.ones(2 * states)))
    equations = np.hstack((inputs, np.eye(states), -np.eye(states)))
    bounds = [(None, None)] * d + [(0, None)] * (2 * states)
    return linprog(cost, A_eq=equations, b_eq=target, bounds=bounds).x[:d]
