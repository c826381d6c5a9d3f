"""Linear Markov decision processes with known factors: rewards phi' theta and transitions phi' mu, solved exactly."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass(frozen=True)
class LinearMDP:
    """Pairs of state and action are rows, the actions of a state one after the other."""

    features: Array
    """phi, [states * actions, d]"""
    reward_weights: Array
    """theta, [d]"""
    factors: Array
    """mu, [d, states]: features times factors is a probability for every pair."""
    discount: float
    """Discount per step."""

    @property
    def states(self) -> int:
        """Number of states."""
        return self.factors.shape[1]

    @property
    def actions(self) -> int:
        """Number of actions in every state."""
        return len(self.features) // self.states

    @property
    def horizon(self) -> float:
        """Effective horizon H = 1 / (1 - discount)."""
        return 1 / (1 - self.discount)

    @property
    def transitions(self) -> Array:
        """Probabilities of the next state, [pairs, states]."""
        moves = np.maximum(self.features @ self.factors, 0)
        return moves / moves.sum(1, keepdims=True)

    @property
    def reward(self) -> Array:
        """Expected rewards, [pairs]."""
        return self.features @ self.reward_weights

    def greedy(self, action_values: Array) -> NDArray[np.integer]:
        """[states] row of the best action of each state, from a value per pair."""
        return np.arange(self.states) * self.actions + action_values.reshape(self.states, self.actions).argmax(1)

    def value_of(self, chosen: NDArray[np.integer]) -> Array:
        """[states] value of the policy that takes the pair `chosen` [states] in every state."""
        moves = self.transitions[chosen]
        return np.linalg.solve(np.eye(self.states) - self.discount * moves, self.reward[chosen])

    def optimal(self) -> tuple[Array, Array]:
        """Optimal values of states [states] and pairs [pairs], by policy iteration."""
        chosen = self.greedy(self.reward)
        while True:
            value = self.value_of(chosen)
            action_values = self.reward + self.discount * self.transitions @ value
            # Ties that rounding decides would let the policies alternate for ever.
            better = self.greedy(action_values)
            if (action_values[better] <= action_values[chosen] + 1e-10).all():
                return value, action_values
            chosen = better

    def variance(self, value: Array) -> Array:
        """[pairs] variance of the next state's value."""
        moves = self.transitions
        return np.maximum(moves @ value**2 - (moves @ value) ** 2, 0)

    def gap(self, chosen: NDArray[np.integer], optimal: Array) -> float:
        """Largest loss of a policy against the optimal values [states], as a share of the largest of them."""
        return float((optimal - self.value_of(chosen)).max() / np.abs(optimal).max())


def heteroscedastic(
    seed: int, states: int = 40, actions: int = 4, quiet: int = 5, discount: float = 0.97, gamble: float = 8.0
) -> LinearMDP:
    """A soft aggregation of states in which one action's outcome is far more uncertain than the others'.

    State 0 is absorbing with reward 1, state 1 with reward 0. A gambling factor leads to either by the toss of a coin, with reward 0.5.
    Quiet factors lead to ordinary states (Dirichlet) with rewards from 0.3 to 0.7. Action 0 mixes mostly the gamble (Dirichlet weight
    `gamble` against 0.5 each), the other actions none of it.
    """
    generator = np.random.default_rng(seed)
    d = quiet + 3
    factors = np.zeros((d, states))
    factors[0, 0] = factors[1, 1] = 1
    factors[2, :2] = 0.5
    factors[3:, 2:] = generator.dirichlet(np.ones(states - 2), quiet)
    rewards = np.concatenate(([1, 0, 0.5], generator.uniform(0.3, 0.7, quiet)))
    features = np.zeros((states, actions, d))
    features[0, :, 0] = features[1, :, 1] = 1
    features[2:, 0, 2:] = generator.dirichlet(np.concatenate(([gamble], np.full(quiet, 0.5))), states - 2)
    features[2:, 1:, 3:] = generator.dirichlet(np.full(quiet, 0.5), (states - 2, actions - 1))
    return LinearMDP(features.reshape(-1, d), rewards, factors, discount)


def hard(seed: int, actions: int = 30, d: int = 4, difference: float = 0.01, discount: float = 0.9) -> LinearMDP:
    """The hard instance of Kitamura et al. 2023: two states, actions that are random vectors in [0, 1]^(d-2).

    State 0 has reward 1 and keeps itself with probability discount + difference <a, b>, b one of the actions; state 1 has reward 0 and
    is absorbing. The features of the two states have disjoint places.
    """
    generator = np.random.default_rng(seed)
    vectors = generator.random((actions, d - 2))
    best = vectors[generator.integers(actions)]
    features = np.zeros((2, actions, d))
    features[0, :, 0], features[0, :, 1:-1], features[1, :, -1] = 1, vectors, 1
    stay = np.concatenate(([discount], difference * best, [0.0]))
    leave = np.concatenate(([1 - discount], -difference * best, [1.0]))
    return LinearMDP(features.reshape(-1, d), np.eye(d)[0], np.stack((stay, leave), 1), discount)
