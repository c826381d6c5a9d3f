"""Deep Variance Weighting by stochastic gradient descent, on the heteroscedastic linear process instead of networks."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from experiments.linear_mdps import heteroscedastic
from experiments.threads import one_thread
from experiments.variance_weights import EPSILON, scale_loss, variance_loss, weights

Mode = Literal["none", "learned", "oracle"]
VARIANCE_EVERY = 5
"""Updates of Q for one of the variance."""


@dataclass(frozen=True)
class Budget:
    """How long Q is fitted."""

    periods: int
    """Times that targets are refreshed; in each, one next state is drawn for every pair."""
    updates: int
    """Steps of gradient descent in a period."""
    batch: int
    """Pairs in a step."""
    rate: float
    """Step size."""
    discount: float
    """Discount of the process."""


@one_thread()
def solve(seeds: tuple[int, ...], mode: Mode, budget: Budget) -> np.ndarray:
    """[seeds] largest error of Q at the end, as a share of the largest optimal Q; one process per seed.

    Q is linear in the features. The log variance is a table over pairs, learned from (y_prev - Q_k)^2 with the y of the targets before,
    and frozen for as long as the targets are; the oracle has the variance of gamma v*(s'). Seeds determine what is drawn, for any mode.
    """
    gamma = budget.discount
    mdps = [heteroscedastic(seed, discount=gamma) for seed in seeds]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    phi = torch.from_numpy(np.stack([mdp.features for mdp in mdps])).float()
    reward = torch.from_numpy(np.stack([mdp.reward for mdp in mdps])).float()
    edges = torch.from_numpy(np.stack([mdp.transitions.cumsum(1)[:, :-1] for mdp in mdps])).float()
    optimal = [mdp.optimal() for mdp in mdps]
    known = np.stack([gamma**2 * mdp.variance(value) for mdp, (value, _) in zip(mdps, optimal, strict=True)])
    variance = torch.from_numpy(known).float() + EPSILON
    runs, points, d = phi.shape
    theta = before = torch.zeros(runs, d, 1)
    log_variance, log_scale = torch.zeros(runs, points, requires_grad=True), torch.ones(runs, 1, requires_grad=True)
    adam = torch.optim.Adam([{"params": [log_variance], "lr": 0.05}, {"params": [log_scale], "lr": 0.025}])
    rows = torch.arange(runs)[:, None]
    oracle = (1 / variance) / (1 / variance).mean(1, keepdim=True)

    def best(theta: Tensor) -> Tensor:
        """[runs, states] value of the greedy action."""
        return (phi @ theta).view(runs, -1, mdps[0].actions).amax(2)

    for _ in range(budget.periods):
        drawn = (torch.stack([torch.rand(points, 1, generator=each) for each in generators]) >= edges).sum(2)
        pairs = torch.stack([torch.randint(points, (budget.updates, budget.batch), generator=each) for each in generators], 1)
        target = reward + gamma * best(theta).gather(1, drawn)
        residual = (reward + gamma * best(before).gather(1, drawn) - (phi @ theta).squeeze(2)).square()
        before = theta
        variance = log_variance.detach().exp() + EPSILON
        w = {"none": torch.ones_like(target), "learned": weights(log_scale, variance), "oracle": oracle}[mode]
        for update, pair in enumerate(pairs):
            x = phi[rows, pair]
            error = w[rows, pair] * (target[rows, pair] - (x @ theta).squeeze(2))
            theta = theta + budget.rate * torch.einsum("rb,rbd->rd", error, x)[..., None] / budget.batch
            if mode == "learned" and update % VARIANCE_EVERY == 0:
                adam.zero_grad()
                (variance_loss(log_variance, residual) + scale_loss(log_scale, variance)).backward()
                adam.step()
    found = (phi @ theta).squeeze(2).numpy()
    return np.array([np.abs(a - q).max() / np.abs(q).max() for a, (_, q) in zip(found, optimal, strict=True)])
