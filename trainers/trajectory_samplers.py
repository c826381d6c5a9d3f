"""Samplers that prefer good trajectories (Hong et al. 2023): weighted by return or advantage, or the best fraction alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from steelyard.agents.random_streams import resume
from steelyard.agents.types import Batch
from steelyard.trainers import trajectories
from steelyard.trainers.buffer import ReplayBuffer, ReplayError
from steelyard.trainers.samplers import CANDIDATES, UniformSampler, filled_up
from steelyard.trainers.trajectories import Features, Trajectories

FEWEST = 2
"""Finished trajectories without which there is nothing to compare."""


@dataclass(frozen=True)
class TrajectoryWeighted:
    """Each transition with p_it = exp(x_i / alpha) / sum_j T_j exp(x_j / alpha), x_i being its trajectory's score, scaled to [0, 1].

    As published for a fixed data set: nothing corrects for the weights, and all losses see them. On replay that grows, the
    trajectories that finished are weighed anew now and then, which is an extension; until two have finished rows are drawn uniformly.
    """

    by: Literal["return", "advantage"] = "advantage"
    """What the score is: the undiscounted raw return G ("RW"), or G less what is usual from the first observation ("AW")."""
    temperature: float = 0.1
    """alpha: 0.1 with IQL and TD3+BC, 0.2 with CQL. Smaller means fewer effective trajectories: 0.1 keeps about as many as are best."""
    features: Features = "linear"
    """What the usual return depends on: the first observation, or also its squares (a return that falls with |x| needs them)."""
    uniform_share: float = 0.0
    """Share of transitions drawn from all trajectories alike: keeps pieces of failures that stitching may need (0.1 to 0.5)."""
    refresh: int = 1_000
    """Batches between two looks for trajectories that finished meanwhile; one takes a third of a second per million rows."""

    def build(self, buffer: ReplayBuffer, batch_size: int, n_step: int, gamma: float, seed: int) -> "TrajectorySampler":
        """A sampler with its own random stream. Raises `ReplayError` for settings out of range, or if replay holds too few trajectories."""
        _require(self.temperature > 0, f"temperature is {self.temperature}; give a positive number such as 0.1.")
        _require(0 <= self.uniform_share <= 1, f"uniform_share is {self.uniform_share}; give a share between 0 and 1.")
        _require(
            buffer.spec.frames is None or self.by == "return",
            "by is 'advantage', which is fitted to first observations, and these are pictures; use sampler.by return.",
        )
        return TrajectorySampler(buffer, batch_size, n_step, gamma, seed, self.weigh, self.refresh)

    def weigh(self, found: Trajectories) -> Tensor:
        """Probability [episodes] of each transition of a trajectory."""
        scores = found.returns
        if self.by == "advantage":
            scores = trajectories.advantage_scores(scores, found.first_obs, self.features)
        weighted = trajectories.probabilities(trajectories.normalized_scores(scores), found.length, self.temperature)
        return (1 - self.uniform_share) * weighted + self.uniform_share / found.length.sum()


@dataclass(frozen=True)
class TopFraction:
    """The trajectories of highest return alone, uniformly over their transitions: the usual baseline for weighting ("Top 10 %")."""

    fraction: float = 0.1
    """Share of the trajectories, not of the transitions, that is kept; at least one is."""
    refresh: int = 1_000
    """Batches between two looks for trajectories that finished meanwhile."""

    def build(self, buffer: ReplayBuffer, batch_size: int, n_step: int, gamma: float, seed: int) -> "TrajectorySampler":
        """A sampler with its own random stream. Raises `ReplayError` for a fraction out of range, or if replay holds too few trajectories."""
        _require(0 < self.fraction <= 1, f"fraction is {self.fraction}; give a share above 0 and up to 1.")
        return TrajectorySampler(buffer, batch_size, n_step, gamma, seed, self.weigh, self.refresh)

    def weigh(self, found: Trajectories) -> Tensor:
        """Probability [episodes] of each transition of a trajectory."""
        return trajectories.top_fraction(found.returns, found.length, self.fraction)


class TrajectorySampler:
    """Draws a trajectory i with probability T_i p_i and one of its T_i transitions uniformly.

    The tables of trajectories have a fixed size and are rewritten in place, so that a graph that was compiled or captured with them stays
    right. A row that was overwritten since they were made is never learned from: a second draw takes its place, and should that one be
    gone too, another row of the batch.

    Args:
        weigh: Probability [episodes] of each transition of every trajectory; the sum over all transitions is one.
        refresh: Batches between two looks for trajectories that finished meanwhile.

    Raises `ReplayError` if replay is not empty and holds fewer than `FEWEST` finished trajectories.
    """

    def __init__(
        self,
        buffer: ReplayBuffer,
        batch_size: int,
        n_step: int,
        gamma: float,
        seed: int,
        weigh: Callable[[Trajectories], Tensor],
        refresh: int,
    ):
        _require(refresh >= 1, f"refresh is {refresh}; give a positive number of batches such as 1,000.")
        self.buffer, self.device, self.batch_size = buffer, buffer.device, batch_size
        self.n_step, self.gamma, self.weigh, self.refresh = n_step, gamma, weigh, refresh
        self.generator = torch.Generator(buffer.device).manual_seed(seed)
        self.draws = 0
        # As many as there can be: every row might be an episode of its own.
        most = buffer.window * buffer.num_envs
        self.origins = torch.zeros(most, dtype=torch.int64, device=buffer.device)
        """[most] `time * num_envs + column` of each trajectory's first row, time since the start."""
        self.lengths = torch.zeros(most, dtype=torch.int64, device=buffer.device)
        """[most] transitions."""
        self.bounds = torch.ones(most, dtype=torch.float64, device=buffer.device)
        """[most] probability of a trajectory and all before it; one behind the last."""
        self.count = 0
        """Trajectories in the tables."""
        self.figures: dict[str, float] = {}
        self.fitted = torch.zeros_like(buffer.cursors)
        """[num_envs] cursors when replay was looked at last."""
        self.ready = torch.zeros((), dtype=torch.bool, device=buffer.device)
        """Whether the tables hold anything."""
        self.early = None if len(buffer) else UniformSampler(buffer, batch_size, n_step, gamma, seed)
        """What picks rows until enough trajectories have finished; None where they have from the start."""
        self.look()

    def look(self) -> None:
        """Weigh the trajectories anew if rows were written since the last time."""
        if torch.equal(self.fitted, self.buffer.cursors):
            return
        found = trajectories.find(self.buffer)
        self.fitted.copy_(self.buffer.cursors)
        if len(found.length) < FEWEST:
            _require(
                self.early is not None,
                f"Replay holds {len(found.length)} finished {'trajectory' if len(found.length) == 1 else 'trajectories'} but weighting compares at "
                f"least {FEWEST}; use the sampler Uniform.",
            )
            self.fill(self.origins[:0], self.lengths[:0], self.bounds[:0])
            self.figures = {}
            return
        weights = self.weigh(found)
        bounds = (found.length * weights).cumsum(0)
        # Divided by the last, so that it is one and no random number lies beyond it.
        self.fill(found.start * self.buffer.num_envs + found.column, found.length, bounds / bounds[-1])
        self.figures = {
            "sampler/weighted_return": trajectories.weighted_return(found.returns, weights),
            "sampler/mean_return": float(found.returns.mean()),
            "sampler/effective_sample_size": trajectories.effective_sample_size(weights),
            "sampler/positive_sided_variance": trajectories.positive_sided_variance(found.returns),
            "sampler/episodes": float(len(found.length)),
        }

    def fill(self, origins: Tensor, lengths: Tensor, bounds: Tensor) -> None:
        """Rewrite the tables."""
        self.count = len(origins)
        for table, values in ((self.origins, origins), (self.lengths, lengths), (self.bounds, bounds)):
            table[: self.count].copy_(values)
        self.bounds[self.count :] = 1
        self.ready.fill_(self.count > 0)

    def noise(self, batch_size: int | None = None) -> Tensor:
        """Random numbers [CANDIDATES, batch] float64 in [0, 1). Every `refresh` calls replay is looked at before."""
        if self.draws % self.refresh == 0:
            self.look()
        self.draws += 1
        shape = (CANDIDATES, self.batch_size if batch_size is None else batch_size)
        return torch.rand(shape, generator=self.generator, dtype=torch.float64, device=self.buffer.device)

    def select(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Flat addresses [batch] int64 and weights [batch]: one, or zero where all draws of the batch were overwritten meanwhile."""
        buffer = self.buffer
        trajectory, moment = noise[:4].unflatten(0, (2, 2)).unbind(1)
        pick = torch.searchsorted(self.bounds, trajectory.contiguous(), right=True).clamp(max=len(self.bounds) - 1)
        row = self.origins[pick] + (moment * self.lengths[pick]).long() * buffer.num_envs
        kept = row // buffer.num_envs >= (buffer.cursors - buffer.window)[row % buffer.num_envs]
        address = row % (buffer.rows * buffer.num_envs)
        index, weight = torch.where(kept[0], address[0], address[1]), kept.any(0).float()
        if self.early is not None:
            early_index, early_weight = self.early.select(noise)
            index, weight = torch.where(self.ready, index, early_index), torch.where(self.ready, weight, early_weight)
        return filled_up(index, weight)

    def gather(self, noise: Tensor) -> Batch:
        """The batch that the noise picks, on the buffer's device."""
        index, weight = self.select(noise)
        return self.buffer.gather(index, self.n_step, self.gamma)._replace(weight=weight)

    def sample(self, batch_size: int | None = None) -> Batch:
        """A fresh batch of the size given to `build` unless named."""
        return self.gather(self.noise(batch_size))

    def diagnostics(self) -> dict[str, float]:
        """What the trajectories looked at last amount to; nothing before there are enough.

        Their number, their mean return, the mean weighted as they are drawn, the number of equal trajectories that this amounts to
        (Kish), and the positive-sided variance of the returns, which predicts what weighting can gain.
        """
        return dict(self.figures)

    def state_dict(self) -> dict[str, Any]:
        """The random stream, the tables as far as they are filled, and when they were made."""
        tables = (self.origins, self.lengths, self.bounds)
        return {
            "generator": self.generator.get_state(),
            "draws": self.draws,
            "fitted": self.fitted.clone(),
            "tables": [table[: self.count].clone() for table in tables],
            "figures": dict(self.figures),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the same draws, whatever replay holds by now."""
        resume(self.generator, state["generator"])
        self.draws, self.figures = state["draws"], dict(state["figures"])
        self.fitted.copy_(state["fitted"])
        self.fill(*state["tables"])


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ReplayError(message)
