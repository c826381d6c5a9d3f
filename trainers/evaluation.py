"""The score of an agent: whole episodes with deterministic actions, in worlds that training never sees."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from steelyard.agents.errors import SteelyardError
from steelyard.envs.vector import ResidentEnv, VectorEnv

EVALUATION_SEEDS = 1_000_000_000
"""World seeds from here on belong to evaluation; training uses smaller ones."""
SEEDS_PER_RUN = 10_000
"""Evaluation episodes of one run, at most: run `s` owns the world seeds `EVALUATION_SEEDS + s * SEEDS_PER_RUN` and the
following."""
RUN_SEEDS = 300_000
"""Seeds of runs are below this one: dm-control takes world seeds below 2**32 only."""
FRESH_SEEDS = 150_000
"""Added to a run's seed for a score of a finished run: episodes that none of its own evaluations, and no choice of a best
checkpoint, has seen."""
LONGEST_EPISODE = 100_000
"""Decisions after which an episode of a world without a time limit counts as endless."""


class EvaluationError(SteelyardError):
    """An evaluation that cannot be done as asked."""


class Actor(Protocol):
    """What is needed of an agent here."""

    device: torch.device

    def act(self, obs: Tensor, explore: bool) -> Tensor:
        """Actions [N, action_size] in [-1, 1] for observations [N, obs_size]."""
        ...


@dataclass(frozen=True)
class Scores:
    """What one agent reached in each episode.

    Spread and interval are over episodes: they say how well *this* agent is measured, and nothing about another training seed
    (for that: `steelyard.trainers.statistics`).
    """

    returns: tuple[float, ...]
    """Undiscounted sum of rewards of each episode."""
    lengths: tuple[int, ...]
    """Decisions in each episode."""

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Sample standard deviation of the returns (n - 1 in the denominator); NaN for one episode."""
        return float(np.std(self.returns, ddof=1)) if len(self.returns) > 1 else math.nan

    @property
    def length(self) -> float:
        """Mean length in decisions."""
        return float(np.mean(self.lengths))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Student interval of the mean return over episodes; NaNs for one episode."""
        half = float(stats.t.ppf(0.975, len(self.returns) - 1)) * self.std / math.sqrt(len(self.returns))
        return self.mean - half, self.mean + half

    def metrics(self) -> dict[str, float]:
        """The columns of `eval.csv`."""
        return {
            "eval/return": self.mean,
            "eval/return_std": self.std,
            "eval/length": self.length,
            "episodes": len(self.returns),
        }


def evaluation_seed(seed: int) -> int:
    """The first world seed of a run's evaluation: `1e9 + 10,000 * seed`.

    Training seeds of worlds stay below 1e9, so the two never meet. Raises `EvaluationError` for a run seed outside [0, `RUN_SEEDS`).
    """
    if not 0 <= seed < RUN_SEEDS:
        raise EvaluationError(f"seed {seed} is outside [0, {RUN_SEEDS}); choose a smaller one.")
    return EVALUATION_SEEDS + seed * SEEDS_PER_RUN


def training_seed(origin: Sequence[int], worlds: int) -> int:
    """A world seed for training that `origin`, any numbers from 0 on, names as if by chance; `worlds` seeds from it on are below evaluation's."""
    return int(np.random.SeedSequence(origin).generate_state(1)[0]) % (EVALUATION_SEEDS - worlds)


@torch.no_grad()
def evaluate(agent: Actor, env: VectorEnv, episodes: int, seed: int) -> Scores:
    """Plays `episodes` whole episodes with the agent's deterministic actions and returns their scores; `seed` is the run's.

    Episode k is the one that the world seed `evaluation_seed(seed) + k` begins, so a score does not depend on how many worlds
    play (up to the rounding of batched matrix products), and every call meets the same starts. The episodes are played in rounds:
    each world plays exactly one per round and then waits for the others, so that short episodes are not counted more often than
    long ones. The agent's running statistics are not fed. `env` is left in the middle of an episode: do not train on it.

    Raises `EvaluationError` if an episode does not end within the world's horizon.
    """
    if not 1 <= episodes <= SEEDS_PER_RUN:
        raise EvaluationError(f"{episodes} evaluation episodes were asked for; ask for 1 to {SEEDS_PER_RUN}.")
    returns, lengths = [], []
    first = evaluation_seed(seed)
    for played in range(0, episodes, env.num_envs):
        round_returns, round_lengths = _play_round(agent, env, first + played, min(env.num_envs, episodes - played))
        returns += round_returns.tolist()
        lengths += round_lengths.tolist()
    return Scores(tuple(returns), tuple(lengths))


def _play_round(agent: Actor, env: VectorEnv, seed: int, count: int) -> tuple[Tensor, Tensor]:
    """One episode in each of the first `count` worlds; returns [count] float64 and lengths [count] int64."""
    obs = env.reset(seed)
    running = torch.arange(env.num_envs, device=env.device) < count
    returns = torch.zeros(env.num_envs, dtype=torch.float64, device=env.device)
    lengths = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
    limit = env.spec.horizon or LONGEST_EPISODE
    while running.any():
        step = env.step(agent.act(obs.to(agent.device), explore=False).to(env.device))
        # Rows that only reset a world are no part of an episode.
        counts = running & step.valid
        returns += torch.where(counts, step.reward.double(), 0.0)
        lengths += counts
        running &= ~(counts & (step.terminated | step.truncated))
        obs = step.obs
        if (running & (lengths >= limit)).any():
            raise EvaluationError(
                f"an episode went on after {limit:,} decisions; give the environment a time limit (for a Gymnasium id: register it with "
                "max_episode_steps)."
            )
    if isinstance(env, ResidentEnv):
        env.check()  # its steps keep to themselves what goes wrong
    return returns[:count].cpu(), lengths[:count].cpu()
