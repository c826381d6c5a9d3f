"""Whole trajectories in replay: what they returned, and how often each should be learned from.

Hong et al. 2023, "Harnessing Mixed Offline Reinforcement Learning Datasets via Trajectory Weighting": where most trajectories are bad, drawing
the good ones more often is the same as having data of a better policy. All numbers here are float64 on the CPU.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.stored_rows import stored_rows

Features = Literal["linear", "quadratic"]

_ROUNDING = 1e-9
"""Differences below this share of the largest number are taken for rounding: min-max would make them as large as any."""


class Trajectories(NamedTuple):
    """Episodes that ended and of which every row is stored, column after column, the older before the newer."""

    column: Tensor
    """[episodes] int64."""
    start: Tensor
    """[episodes] int64 time of the first row since the start of its column."""
    length: Tensor
    """[episodes] int64 transitions."""
    returns: Tensor
    """[episodes] float64 undiscounted sum of raw rewards, with that of a last transition that a data set could not store."""
    first_obs: Tensor
    """[episodes, obs_size] float64 observation of the first row; empty if observations are pictures."""


def find(buffer: ReplayBuffer) -> Trajectories:
    """The finished trajectories that lie wholly in the rows that sampling may draw from.

    A trajectory counts if it ended by termination or truncation and follows another that did, or begins its column: one that `cut`
    interrupted, and the one after it, may be pieces. So may the oldest one in a column that is full. Takes a third of a second per
    million rows, to look at each.
    """
    rows = stored_rows(buffer.data, buffer.cursors, buffer.window).to("cpu")
    first = rows.first.nonzero().flatten()
    count = len(first)
    follows_end = torch.zeros_like(rows.done)
    follows_end[1:] = rows.done[:-1] & (rows.column[1:] == rows.column[:-1])
    # The row behind an episode is no transition; its reward is the one that a data set dropped.
    rewarded = rows.valid | follows_end
    returns = torch.zeros(count, dtype=torch.float64).index_add_(0, rows.run[rewarded], rows.reward[rewarded].double())
    length = torch.bincount(rows.run[rows.valid], minlength=count)
    finished = torch.zeros(count, dtype=torch.bool)
    finished[rows.run[rows.done]] = True
    column = rows.column[first]
    whole = buffer.cursors.cpu()[column] <= buffer.window
    same = column[1:] == column[:-1]
    whole[1:] = torch.where(same, finished[:-1], whole[1:])
    chosen = finished & whole
    start = first[chosen]
    # Pictures are too large to fit returns to, and to hold for each episode.
    seen = first[chosen] if buffer.spec.frames is None else first[:0]
    first_obs = buffer.obs_at(rows.address[seen].to(buffer.device)).double().cpu()
    return Trajectories(column[chosen], rows.time[start], length[chosen], returns[chosen], first_obs)


def normalized_scores(scores: Tensor) -> Tensor:
    """(x - min x) / (max x - min x) [episodes]; zeros where all are equal."""
    lowest, highest = scores.min(), scores.max()
    if highest - lowest <= _ROUNDING * scores.abs().max():
        return torch.zeros_like(scores)
    return (scores - lowest) / (highest - lowest)


def advantage_scores(returns: Tensor, first_obs: Tensor, features: Features = "linear") -> Tensor:
    """G - V(s_0) [episodes]: how much better than others that began there; zero where the difference is but rounding.

    V is fitted to the same trajectories by ordinary least squares with intercept, on the first observations [episodes, obs_size] or on
    these and their squares ("quadratic"): a return that depends evenly on s_0, such as on its distance from 0, has no linear part.
    With no more trajectories than features every return is explained and all scores are zero.
    """
    spread = first_obs.std(0, correction=0)
    varies = spread > _ROUNDING * first_obs.abs().amax(0)
    standard = (first_obs - first_obs.mean(0))[:, varies] / spread[varies]
    columns = [torch.ones(len(returns), 1, dtype=returns.dtype), standard]
    if features == "quadratic":
        columns.append(standard.square())
    basis = torch.cat(columns, dim=1)
    # By singular values: components that depend on each other, or few trajectories, make the basis deficient.
    fit = basis @ torch.linalg.lstsq(basis, returns[:, None], driver="gelsd").solution
    scores = returns - fit[:, 0]
    return torch.where(scores.abs() > _ROUNDING * returns.abs().max(), scores, 0)


def probabilities(scores: Tensor, lengths: Tensor, temperature: float) -> Tensor:
    """exp(x_i / alpha) / sum_j T_j exp(x_j / alpha) [episodes]: the probability of each single transition of trajectory i.

    `scores` should be normalised; over all transitions the probabilities sum to one.
    """
    weights = ((scores - scores.max()) / temperature).exp()
    return weights / (lengths * weights).sum()


def top_fraction(returns: Tensor, lengths: Tensor, fraction: float) -> Tensor:
    """Equal probabilities [episodes] of the transitions of the int(fraction n) trajectories of highest return, at least one; zero for others.

    Of equal returns the first counts as higher.
    """
    kept = torch.zeros_like(returns)
    kept[returns.argsort(descending=True, stable=True)[: max(int(fraction * len(returns)), 1)]] = 1
    return kept / (lengths * kept).sum()


def weighted_return(returns: Tensor, weights: Tensor) -> float:
    """sum_i w_i G_i / sum_i w_i, the return of the policy that the weighted data stands for; w_i is what each transition of i has."""
    return float((weights * returns).sum() / weights.sum())


def effective_sample_size(weights: Tensor) -> float:
    """Kish's (sum w)^2 / sum w^2: as many equally weighted trajectories would say as much."""
    return float(weights.sum().square() / weights.square().sum())


def positive_sided_variance(returns: Tensor) -> float:
    """E[(G - E G)_+^2]: what weighting can gain; near zero the data has no trajectory worth preferring."""
    return float((returns - returns.mean()).clamp(min=0).square().mean())
