"""A grid with slippery moves, a rewarded corner and pits that cannot be left, solved exactly."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
MOVES = np.array([(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)])
"""Stay, and one cell along each axis."""


@dataclass(frozen=True)
class Maze:
    """Cells are states, in rows; the start is the first one and the goal the last."""

    neighbour: NDArray[np.integer]
    """[cells, 5] where each move leads; the cell itself where the border blocks it, and from a pit."""
    chance: Array
    """[cells, 5 actions, 5 moves] how likely an action results in each move."""
    reward: Array
    """[cells] reward of being there: 1 at the goal, at every step."""
    discount: float
    """Discount per step."""

    @property
    def transitions(self) -> Array:
        """Probabilities of the next cell, [cells, 5 actions, cells]."""
        cells = len(self.reward)
        result = np.zeros((cells, 5, cells))
        cell, action = np.arange(cells)[:, None, None], np.arange(5)[:, None]
        np.add.at(result, (cell, action, self.neighbour[:, None]), self.chance)
        return result

    def value_of(self, policy: NDArray[np.integer]) -> Array:
        """[cells] value of a policy, an action for each cell [cells]."""
        cells = np.arange(len(self.reward))
        moves = self.transitions[cells, policy]
        return np.linalg.solve(np.eye(len(cells)) - self.discount * moves, self.reward)

    def optimal(self) -> Array:
        """[cells] optimal value, by policy iteration."""
        transitions, policy = self.transitions, np.zeros(len(self.reward), dtype=np.int64)
        cells = np.arange(len(policy))
        while True:
            values = transitions @ self.value_of(policy)
            better = values.argmax(1)
            if (values[cells, better] <= values[cells, policy] + 1e-10).all():
                return self.value_of(policy)
            policy = better

    def variance(self, value: Array) -> Array:
        """[cells, actions] variance of the next cell's value."""
        following = value[self.neighbour][:, None]
        mean = (self.chance * following).sum(2)
        return np.maximum((self.chance * following**2).sum(2) - mean**2, 0)


def maze(size: int, pits: int, discount: float, seed: int, slip: float = 0.1) -> Maze:
    """A maze of size x size cells whose goal can be reached; every unblocked move happens with `slip`, the chosen one with the rest.

    A chosen move that the border blocks means staying.
    """
    generator = np.random.default_rng(seed)
    while True:
        holes = generator.choice(np.arange(1, size * size - 1), pits, replace=False)
        result = with_pits(size, holes, discount, slip)
        if result.optimal()[0] > 0:
            return result


def with_pits(size: int, holes: NDArray[np.integer], discount: float, slip: float) -> Maze:
    """The maze with pits in these cells."""
    cells = np.arange(size * size)
    target = np.stack(np.divmod(cells, size), 1)[:, None] + MOVES
    blocked = ((target < 0) | (target >= size)).any(2)
    neighbour = np.where(blocked, cells[:, None], target[..., 0] * size + target[..., 1])
    chance = np.where(blocked, 0.0, slip)[:, None].repeat(5, 1)
    chosen = np.where(blocked, 0, np.arange(5))
    rest = 1 - chance.sum(2)
    np.add.at(chance, (cells[:, None], np.arange(5), chosen), rest)
    neighbour[holes] = holes[:, None]
    reward = np.zeros(size * size)
    reward[-1] = 1
    return Maze(neighbour, chance, reward, discount)
