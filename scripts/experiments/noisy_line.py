"""A line of which one part is noisy: transitions, the value of a policy, and agents that evaluate it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from steelyard.agents.acting import Setting
from steelyard.agents.networks.heads import pessimistic
from steelyard.agents.parts import Fixed
from steelyard.agents.types import Batch, Spec
from steelyard.agents.value_learner import ValueLearner, ValueLearningAgent

Array = NDArray[np.float64]
SPEC = Spec(obs_size=1, action_size=1)


def homing(position: Tensor, home: Tensor | float) -> Tensor:
    """Velocities of the policy that goes home and stays there."""
    return (5 * (home - position)).clamp(-1, 1)


@dataclass(frozen=True)
class Line:
    """Positions in [-1, 1]; an action in [-1, 1] is a velocity. Beyond `edge` the world is noisy, elsewhere it is deterministic."""

    edge: float = 0.5
    """Where the noisy region begins."""
    speed: float = 0.1
    """Distance that the largest velocity goes in one step."""
    jump: float = 0.5
    """Standard deviation of the jumps in the noisy region."""
    end: float = 0.25
    """Probability that a step from the noisy region ends the episode."""
    payoff: float = 10.0
    """What it pays then, on heads; nothing on tails."""
    discount: float = 0.9
    """gamma."""

    def reward(self, position: Array) -> Array:
        """What a step from a position pays, besides payoffs."""
        return np.sin(4 * position)

    def sample(self, position: Array, action: Array, generator: np.random.Generator) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Rewards, next positions, and whether the episode ended, all of the shape of `position`."""
        noisy = position > self.edge
        jump = np.where(noisy, self.jump * generator.standard_normal(position.shape), 0.0)
        ended = noisy & (generator.random(position.shape) < self.end)
        heads = generator.random(position.shape) < 0.5
        reward = self.reward(position) + self.payoff * (ended & heads)
        return reward, np.clip(position + self.speed * action + jump, -1, 1), ended

    def value(self, position: Array, action: Array, home: float, cells: int = 2001) -> Array:
        """Q(s, a) of the policy that goes home, exact but for a grid of so many positions, between which values are linear."""
        grid = np.linspace(-1, 1, cells)
        move = self.transition(grid, homing(torch.from_numpy(grid), home).numpy(), grid)
        value = np.linalg.solve(np.eye(cells) - move, self.mean_reward(grid))
        return self.mean_reward(position) + self.transition(position, action, grid) @ value

    def mean_reward(self, position: Array) -> Array:
        """Expected reward of a step."""
        return self.reward(position) + (position > self.edge) * self.end * 0.5 * self.payoff

    def transition(self, position: Array, action: Array, grid: Array) -> Array:
        """[positions, cells]: discounted probabilities of the next position, shared between the grid's neighbours."""
        centre, step = position + self.speed * action, grid[1] - grid[0]
        bounds = np.concatenate(([-np.inf], (grid[1:] + grid[:-1]) / 2, [np.inf]))
        jumps = np.diff(stats.norm.cdf(bounds, centre[:, None], self.jump), axis=1)
        stays = (1 - np.abs(np.clip(centre, -1, 1)[:, None] - grid) / step).clip(min=0)
        noisy = (position > self.edge)[:, None]
        return self.discount * np.where(noisy, (1 - self.end) * jumps, stays)

    def rollouts(self, position: Array, action: Array, home: float, generator: np.random.Generator, steps: int = 150) -> Array:
        """Discounted returns of one episode from each position whose first action is given: Monte Carlo samples of Q(s, a)."""
        total, weight = np.zeros_like(position), np.ones_like(position)
        for _ in range(steps):
            reward, position, ended = self.sample(position, action, generator)
            total, weight = total + weight * reward, weight * self.discount * ~ended
            action = homing(torch.from_numpy(position), home).numpy()
        return total

    def dataset(self, transitions: int, seed: int) -> Batch:
        """Transitions from positions and actions that are uniformly random."""
        generator = np.random.default_rng(seed)
        position, action = generator.uniform(-1, 1, (2, transitions))
        reward, following, ended = self.sample(position, action, generator)
        columns = (position[:, None], action[:, None], reward, following[:, None], self.discount * ~ended, np.ones(transitions))
        tensors = [torch.from_numpy(column).float() for column in columns]
        return Batch(*tensors, index=torch.arange(transitions))


@dataclass(frozen=True)
class Evaluator(ValueLearner):
    """A critic of a policy that is known and stays as it is."""

    critics: int = 1
    """Number of critics."""
    home: float = 0.75
    """Where the policy goes."""
    balance: ClassVar[Fixed] = Fixed()  # pyright: ignore[reportIncompatibleVariableOverride]

    def make(self, setting: Setting) -> "EvaluatingAgent":
        """The agent."""
        return EvaluatingAgent(self, setting)


class EvaluatingAgent(ValueLearningAgent):
    """The agent that `Evaluator` describes: the suite's critic regression and slots, without a policy of its own."""

    losses = ("critic",)
    home: Tensor
    slow: ClassVar[dict[str, str]] = {"target_critic": "critic"}

    def __init__(self, config: Evaluator, setting: Setting):
        super().__init__(config, setting)
        self.register_buffer("home", torch.tensor(config.home))

    def backup(self, critic: nn.Module, batch: Batch, noise: Tensor) -> Tensor:
        """r + gamma (1 - terminated) Q(s', pi(s'))."""
        output = pessimistic(self.head, critic(batch.next_obs, homing(batch.next_obs, self.home)))
        return self.head.backup(output, batch.reward, batch.discount, torch.zeros_like(batch.reward))
