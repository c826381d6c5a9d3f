"""Small Markov chains on which a policy's value is predicted with linear features, and what is exactly true of them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Indices = NDArray[np.integer]


@dataclass(frozen=True)
class Prediction:
    """A chain as a table: in every state one of a few outcomes happens.

    An episode's end is an outcome with discount 0 whose next state is where the next episode starts.
    """

    probability: Array
    """[states, outcomes] under the behaviour policy; every row sums to one."""
    next_state: Indices
    """[states, outcomes]"""
    reward: Array
    """[states, outcomes]"""
    discount: Array
    """[states, outcomes]"""
    features: Array
    """[states, d]"""
    ratio: Array
    """[states, outcomes] importance ratio, target policy over behaviour policy; under the target policy, too, every row sums to one."""

    @cached_property
    def visits(self) -> Array:
        """[states] how often the behaviour policy visits each state: its stationary distribution."""
        states = len(self.features)
        moves = np.zeros((states, states))
        np.add.at(moves, (np.arange(states)[:, None], self.next_state), self.probability)
        equations = np.vstack((moves.T - np.eye(states), np.ones(states)))
        return np.linalg.lstsq(equations, np.append(np.zeros(states), 1.0), rcond=None)[0]

    @property
    def target(self) -> tuple[Array, Array]:
        """Expected reward [states] and discounted transitions [states, states] of the target policy."""
        states = len(self.features)
        probability = self.probability * self.ratio
        moves = np.zeros((states, states))
        np.add.at(moves, (np.arange(states)[:, None], self.next_state), probability * self.discount)
        return (probability * self.reward).sum(1), moves

    @property
    def value(self) -> Array:
        """[states] true value of the target policy."""
        reward, moves = self.target
        return np.linalg.solve(np.eye(len(reward)) - moves, reward)

    def bellman_error(self, weights: Array) -> Array:
        """[..., states] expected temporal-difference error E[delta | s] of the linear value with weights [..., d]."""
        reward, moves = self.target
        return reward - weights @ (self.features - moves @ self.features).T

    def projected_bellman_error(self, weights: Array) -> Array:
        """[...] root of the mean squared projected Bellman error of weights [..., d], states weighted by `visits`.

        MSPBE = g' C^+ g with g = sum_s d(s) E[delta | s] x(s) and C = sum_s d(s) x(s) x(s)'; infinite where the weights diverged.
        """
        features, visits = self.features, self.visits
        inverse = np.linalg.pinv(features.T @ (visits[:, None] * features), hermitian=True)
        with np.errstate(over="ignore", invalid="ignore"):
            expected = (self.bellman_error(weights) * visits) @ features
            squared = np.einsum("...i,ij,...j->...", expected, inverse, expected)
        return np.sqrt(np.where(np.isfinite(squared), np.maximum(squared, 0), np.inf))


@dataclass(frozen=True)
class Experience:
    """What the behaviour policy met, the same for every method; each array is [steps, seeds]."""

    state: Indices
    """State that was left."""
    next_state: Indices
    """State that was reached."""
    reward: Array
    """Reward on the way."""
    discount: Array
    """0 where an episode ended."""
    ratio: Array
    """Importance ratio of what happened."""


def experience(problem: Prediction, steps: int, seeds: tuple[int, ...]) -> Experience:
    """Follow the behaviour policy from state 0; each seed has its own random numbers and does not depend on the others."""
    uniform = np.stack([np.random.default_rng(seed).random(steps) for seed in seeds], 1)
    edges = np.cumsum(problem.probability, 1)[:, :-1]
    states, outcomes = np.zeros((steps + 1, len(seeds)), dtype=np.int64), np.zeros((steps, len(seeds)), dtype=np.int64)
    for step in range(steps):
        outcomes[step] = (uniform[step][:, None] >= edges[states[step]]).sum(1)
        states[step + 1] = problem.next_state[states[step], outcomes[step]]
    happened = (states[:-1], outcomes)
    return Experience(states[:-1], states[1:], problem.reward[happened], problem.discount[happened], problem.ratio[happened])


def baird(discount: float = 0.99) -> Prediction:
    """Baird's counterexample (Sutton and Barto 2018, section 11.2): seven states, eight features, no reward.

    The behaviour goes to each state with equal probability. The target policy always goes to the last one, so the ratio is 7 or 0.
    Features: 1 shared by all and 2 of its own in states 0 to 5; 2 shared and 1 of its own in state 6. Weights that start at
    (1, ..., 1, 10) are the usual ones: the 10 belongs to the last state alone.
    """
    features = np.zeros((7, 8))
    features[:6, 0], features[6, 0], features[6, 7] = 1, 2, 1
    features[np.arange(6), np.arange(1, 7)] = 2
    ratio = np.zeros((7, 7))
    ratio[:, 6] = 7
    everywhere = np.tile(np.arange(7), (7, 1))
    return Prediction(np.full((7, 7), 1 / 7), everywhere, np.zeros((7, 7)), np.full((7, 7), discount), features, ratio)


def ring(states: int = 5, chance: float = 0.02, reward: float = 50.0, discount: float = 0.5) -> Prediction:
    """A circle of states, one after the other, with one weight each; leaving state 0 is rarely and largely rewarded."""
    probability = np.tile([chance, 1 - chance], (states, 1))
    following = np.tile((np.arange(states)[:, None] + 1) % states, (1, 2))
    rewards = np.zeros((states, 2))
    rewards[0, 0] = reward
    return Prediction(probability, following, rewards, np.full((states, 2), discount), np.eye(states), np.ones((states, 2)))


def boyan_chain() -> Prediction:
    """Boyan's chain (Boyan 2002): twelve states and the end, one or two ahead at each step, four features, value -2 a state.

    Reward -3, and -2 from the last state to the end. No discount. The features interpolate between every fourth state, so the value is
    exactly representable.
    """
    left = np.arange(12, 0, -1)  # states that remain before the end
    remaining = np.stack((left - 1, left - 2), 1).clip(min=0)
    reward = np.where(left[:, None] == 1, -2.0, -3.0) * np.ones((12, 2))
    following = np.where(remaining == 0, 0, 12 - remaining)
    features = np.maximum(1 - np.abs(left[:, None] - np.array([12, 8, 4, 0])) / 4, 0)
    return Prediction(np.full((12, 2), 0.5), following, reward, (remaining > 0).astype(float), features, np.ones((12, 2)))


def random_walk() -> Prediction:
    """Five states in a row, both neighbours equally likely, reward 1 for leaving on the right; dependent features.

    Three features for five states (Sutton et al. 2009): the value (1/6, ..., 5/6) is not representable. No discount. State 0 is the
    middle one, where episodes start.
    """
    place = np.array([2, 0, 1, 3, 4])
    state = np.argsort(place)
    moved = place[:, None] + np.array([-1, 1])
    ends = (moved < 0) | (moved > 4)
    following = np.where(ends, 0, state[moved.clip(0, 4)])
    dependent = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1], [0, 0, 1]], dtype=float)
    dependent /= np.linalg.norm(dependent, axis=1, keepdims=True)
    ones = np.ones((5, 2))
    return Prediction(0.5 * ones, following, (moved > 4).astype(float), 1.0 - ends, dependent[place], ones)
