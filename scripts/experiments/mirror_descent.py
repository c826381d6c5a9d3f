"""Mirror-descent value iteration with weighted least squares (Kitamura et al. 2023) from a generative model."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from experiments.linear_mdps import Array, LinearMDP

GOOD_ENOUGH = 0.01
"""Relative gap at which the search for the design ends."""
MOST_STEPS = 100_000


def design(x: Array, gap: float = GOOD_ENOUGH) -> Array:
    """G-optimal design over rows `x` [points, d] by Frank-Wolfe: probabilities [points], zero outside the core set.

    It makes the largest leverage x_i' (sum_j u_j x_j x_j')^-1 x_i as small as can be, which is d (Kiefer and Wolfowitz 1960). Points
    whose leverage proves that the optimum has no weight there are left out (Harman and Pronzato 2007).
    """
    points, d = len(x), int(np.linalg.matrix_rank(x))
    u = np.full(points, 1 / points)
    for _ in range(MOST_STEPS):
        leverage = np.einsum("id,de,ie->i", x, np.linalg.pinv(x.T @ (u[:, None] * x)), x)
        most = int(leverage.argmax())
        found = max(float(leverage[most]) / d - 1, 0.0)
        if found <= gap:
            break
        step = (leverage[most] - d) / ((d - 1) * leverage[most])
        u[most] += step
        u /= 1 + step
    lowest = d * (1 + found * d / 2 - np.sqrt(found * d - found + (found * d / 2) ** 2))
    u = np.where(leverage >= lowest, u, 0)
    return u / u.sum()


def weighting(variance: Array, horizon: float) -> Array:
    """f = min(sqrt(Var) + sqrt(H), H): the scale by which a pair's regression is divided, from variances [pairs]."""
    return np.minimum(np.sqrt(np.maximum(variance, 0)) + np.sqrt(horizon), horizon)


@dataclass(frozen=True)
class Regression:
    """Weighted least squares on the pairs of a design."""

    pairs: np.ndarray
    """[core] rows of the features that are sampled."""
    solution: Array
    """[d, core] what maps targets of the core to weights."""


def regression(features: Array, f: Array, rho: Array, scaling: Literal["correct", "released"] = "correct") -> Regression:
    """theta = G^-1 sum rho phi y / f^2 with G = sum rho phi phi' / f^2; the released notebook has 1 / f in G, which is no regression."""
    pairs = np.flatnonzero(rho)
    phi, f, rho = features[pairs], f[pairs], rho[pairs]
    power = 2 if scaling == "correct" else 1
    gram = phi.T @ ((rho / f**power)[:, None] * phi)
    return Regression(pairs, np.linalg.pinv(gram) @ (phi * (rho / f**2)[:, None]).T)


def value_iteration(
    mdp: LinearMDP, fit: Regression, samples: int, iterations: int, generator: np.random.Generator, averaging: bool = True
) -> Array:
    """Weights [d] after the last iteration; `samples` next states are drawn per pair of the design and iteration."""
    return iterate(mdp, fit, samples, iterations, generator, averaging)[0]


def iterate(
    mdp: LinearMDP, fit: Regression, samples: int, iterations: int, generator: np.random.Generator, averaging: bool = True
) -> tuple[Array, Array]:
    """(last weights [d], last value v [states]).

    With averaging this is MDVI at its limit of no entropy: weights add up with factor gamma, theta_bar <- theta + gamma theta_bar, the
    policy is greedy in theta_bar, and the value is v_k = w_k - gamma w_(k-1) with w_k = max_a phi' theta_bar_k. Without, it is fitted
    value iteration.
    """
    phi, gamma = mdp.features, mdp.discount
    moves, reward = mdp.transitions[fit.pairs], mdp.reward[fit.pairs]
    theta, before, value = np.zeros(phi.shape[1]), np.zeros(mdp.states), np.zeros(mdp.states)
    keep = gamma if averaging else 0.0
    for _ in range(iterations):
        best = (phi @ theta).reshape(mdp.states, mdp.actions).max(1)
        value, before = best - keep * before, best
        following = generator.multinomial(samples, moves) @ value / samples
        theta = fit.solution @ (reward + gamma * following) + keep * theta
    return theta, value


def learned_weighting(
    mdp: LinearMDP, fit: Regression, samples: int, iterations: int, variance_samples: int, generator: np.random.Generator
) -> Array:
    """[pairs] f from data alone: iterate with the unweighted regression `fit`, then estimate the variance of the value it found."""
    _, value = iterate(mdp, fit, samples, iterations, generator)
    return weighting(estimated_variance(mdp, value, variance_samples, generator), mdp.horizon)


def estimated_variance(mdp: LinearMDP, value: Array, samples: int, generator: np.random.Generator) -> Array:
    """[pairs] variance of `value` [states] at the next state, by unweighted least squares on (v(s'_1) - v(s'_2))^2 / 2."""
    ones = np.ones(len(mdp.features))
    fit = regression(mdp.features, ones, design(mdp.features))
    moves = mdp.transitions[fit.pairs]
    both = (moves[:, :, None] * moves[:, None]).reshape(len(moves), -1)
    squares = (value[:, None] - value).ravel() ** 2 / 2
    # How often each pair of states comes up says the same as the list of draws, and takes no memory.
    return mdp.features @ (fit.solution @ (generator.multinomial(samples, both) @ squares / samples))
