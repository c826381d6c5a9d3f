"""Deep Variance Weighting on mazes: value iteration with networks from a generative model, several mazes at once."""

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from experiments.stochastic_maze import Maze
from experiments.threads import one_thread
from experiments.variance_weights import EPSILON, scale_loss, variance_loss, weights

Weighting = Literal["none", "learned", "oracle"]
OBSERVATION = 5
"""Numbers that a cell is observed by: drawn once, they carry no geometry."""
VARIANCE_EVERY = 5
"""Steps of Q for one of the variance, at five times the published share of Q's learning rate."""


@dataclass(frozen=True)
class Budget:
    """How long and how finely a maze is solved."""

    iterations: int
    """Times that targets are refreshed and next states drawn."""
    gradient_steps: int
    """Full-batch steps of the networks in each of them."""
    samples: int
    """M: next states drawn per cell and action."""
    width: int
    """Width of the two hidden layers."""
    rate: float
    """Learning rate of Q."""
    temperature: float
    """tau of the regularised variant: KL and entropy coefficient together, of which KL has the share of the discount."""
    evaluate_every: int
    """Iterations between evaluations."""


@dataclass(frozen=True)
class Solution:
    """How several mazes were solved."""

    gaps: np.ndarray
    """[evaluations, mazes] what the greedy policy loses in its worst cell, as a share of the largest optimal value."""
    weights: np.ndarray
    """[evaluations, 3] smallest, mean and largest weight over all mazes."""


def uniform(shape: tuple[int, ...], generators: list[torch.Generator]) -> Tensor:
    """Uniform numbers [runs, *shape]; every run has its own generator, so that no run depends on which others there are."""
    return torch.stack([torch.rand(shape, generator=generator) for generator in generators])


class Perceptrons(nn.Module):
    """Independent two-layer perceptrons, [runs, points, inputs] to [runs, points, outputs]; the last layers start at zero."""

    def __init__(self, width: int, generators: list[torch.Generator]):
        super().__init__()
        sizes = (OBSERVATION, width, width, 5)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            bound = inputs**-0.5 if i < 2 else 0.0
            self.weights.append(nn.Parameter(bound * (2 * uniform((inputs, outputs), generators) - 1)))
            self.biases.append(nn.Parameter(bound * (2 * uniform((1, outputs), generators) - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """All runs at once."""
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            x = torch.relu(x) if i < 2 else x
        return x


@dataclass(frozen=True)
class Backup:
    """The target of Q: soft with a Munchausen term, or plain if the temperature is zero."""

    temperature: float
    """tau, the sum of the KL and the entropy coefficient."""
    munchausen: float
    """alpha, the KL coefficient's share of tau."""
    discount: float
    """gamma."""

    def __call__(self, q: Tensor, reward: Tensor, drawn: Tensor) -> Tensor:
        """Targets [runs, cells, actions, samples] from Q [runs, cells, actions], reward [runs, cells] and cells drawn, of that shape.

        r + alpha clip(tau log pi(a|s), -1, 0) + gamma sum_a' pi(a'|s') (Q(s', a') - tau log pi(a'|s')).
        """
        reward = reward[..., None]
        if self.temperature > 0:
            scaled = self.temperature * torch.log_softmax(q / self.temperature, -1)
            # sum_a pi (Q - tau log pi) is the log-sum-exp.
            value = self.temperature * torch.logsumexp(q / self.temperature, -1)
            reward = reward + self.munchausen * scaled.clamp(-1, 0)
        else:
            value = q.amax(-1)
        following = value.gather(1, drawn.flatten(1)).view(drawn.shape)
        return reward.expand(q.shape)[..., None] + self.discount * following


@one_thread()
def solve(mazes: list[Maze], seeds: tuple[int, ...], weighting: Weighting, regularised: bool, budget: Budget) -> Solution:
    """Value iteration, one run per maze and seed.

    A seed determines observations, initial networks and the random numbers of its run, whatever the weighting and the
    regularisation, so variants see the same. Everything that the variance feeds is frozen for as long as the targets are.
    """
    discount, world = mazes[0].discount, World(mazes, seeds)
    backup = Backup(budget.temperature if regularised else 0.0, discount, discount)
    q_net = Perceptrons(budget.width, world.generators)
    weighted = Learned(Perceptrons(budget.width, world.generators), world.obs, budget.rate) if weighting == "learned" else None
    adam = torch.optim.Adam(q_net.parameters(), lr=budget.rate, fused=True)
    q = before = torch.zeros_like(world.oracle)
    gaps, logged = [], []
    for iteration in range(budget.iterations):
        drawn = world.draw(budget.samples)
        target = backup(q, world.reward, drawn).mean(-1)
        w = world.oracle if weighting == "oracle" else torch.ones_like(q)
        if weighted:
            w = weighted.freeze().view_as(q)
            residual = (backup(before, world.reward, drawn) - q[..., None]).square().mean(-1)
        for step in range(budget.gradient_steps):
            descend(adam, (w * (target - q_net(world.obs)).square()).mean((1, 2)).sum())
            if weighted and step % VARIANCE_EVERY == 0:
                weighted.learn(residual.flatten(1))
        before = q
        with torch.no_grad():
            q = q_net(world.obs)
        if (iteration + 1) % budget.evaluate_every == 0:
            gaps.append(world.gaps(q))
            logged.append([float(w.min()), float(w.mean()), float(w.max())])
    return Solution(np.stack(gaps), np.array(logged))


class Learned:
    """The variance network, its frozen output, and the scale eta and floor b of the weights max(eta / (Var + b + 0.1), 0.1)."""

    def __init__(self, network: Perceptrons, obs: Tensor, rate: float):
        self.network, self.obs = network, obs
        self.log_scale, self.log_floor = (torch.ones(len(obs), 1, requires_grad=True) for _ in range(2))
        self.adam = torch.optim.Adam(network.parameters(), lr=rate / 2, fused=True)
        self.scale_adam = torch.optim.Adam([self.log_scale, self.log_floor], lr=5e-3)
        self.variance = torch.ones(len(obs), 1)

    def freeze(self) -> Tensor:
        """Take the network's variance for the weights from now on, and return them, [runs, pairs]."""
        with torch.no_grad():
            self.variance = self.network(self.obs).flatten(1).exp()
            return weights(self.log_scale, self.floored())

    def floored(self) -> Tensor:
        """The frozen variance with its floor, [runs, pairs]."""
        return self.variance + self.log_floor.detach().exp() + EPSILON

    def learn(self, residual: Tensor) -> None:
        """One step of everything: the variance towards squared residuals [runs, pairs], b towards its largest root, eta to mean weight 1."""
        descend(self.adam, variance_loss(self.network(self.obs).flatten(1), residual))
        largest = self.variance.amax(1, keepdim=True).sqrt()
        descend(self.scale_adam, scale_loss(self.log_scale, self.floored()) + (self.log_floor.exp() - largest).square().sum())


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down a loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


class World:
    """Mazes of the same size as tensors."""

    def __init__(self, mazes: list[Maze], seeds: tuple[int, ...]):
        self.mazes, self.cells = mazes, len(mazes[0].reward)
        self.optimal = [maze.optimal() for maze in mazes]
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.obs = torch.stack(
            [torch.from_numpy(np.random.default_rng(seed).standard_normal((self.cells, OBSERVATION))).float() for seed in seeds]
        )
        self.reward = torch.from_numpy(np.stack([maze.reward for maze in mazes])).float()
        self.neighbour = torch.from_numpy(np.stack([maze.neighbour for maze in mazes]))
        self.edges = torch.from_numpy(np.stack([maze.chance.cumsum(2)[..., :-1] for maze in mazes])).float()
        horizon = 1 / (1 - mazes[0].discount)
        variances = [maze.variance(value) for maze, value in zip(mazes, self.optimal, strict=True)]
        self.oracle = torch.from_numpy(np.stack([horizon / (v + horizon) for v in variances])).float()

    def draw(self, samples: int) -> Tensor:
        """Next cells [runs, cells, actions, samples]."""
        numbers = uniform((self.cells, 5, samples), self.generators)
        move = (numbers[..., None] >= self.edges[:, :, :, None]).sum(-1)
        return self.neighbour[:, :, None].expand(-1, -1, 5, -1).gather(3, move)

    def gaps(self, q: Tensor) -> np.ndarray:
        """[runs] largest loss of the greedy policies, as a share of the largest optimal value."""
        policies = q.argmax(-1).numpy()
        found = zip(self.mazes, self.optimal, policies, strict=True)
        return np.array([(best - maze.value_of(policy)).max() / best.max() for maze, best, policy in found])
