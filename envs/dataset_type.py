"""`Dataset`, transitions of whole episodes, and the error of everything that reads or makes one."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from steelyard.agents.errors import SteelyardError
from steelyard.envs import d4rl_table


class DatasetError(SteelyardError):
    """A data set cannot be read, written or used. One sentence that names the file, the field and the remedy."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Transitions of whole episodes, one after the other, in the order in which they happened.

    Raises `DatasetError` if the fields do not fit each other.
    """

    name: str
    """D4RL's name, Minari's id, or the stem of the file."""
    task: str | None
    """Gymnasium id whose worlds score a policy learned from it; None if unknown."""
    obs: NDArray[np.float32]
    """[N, obs_size]."""
    action: NDArray[np.float32]
    """[N, action_size], clipped to [-1, 1]."""
    reward: NDArray[np.float32]
    """[N], raw."""
    next_obs: NDArray[np.float32]
    """[N, obs_size]: the true successor, never the first observation of the next episode. At a terminal row for which none was
    recorded it is the row's own `obs`; its value is masked."""
    next_action: NDArray[np.float32]
    """[N, action_size]: the action of the following row. In an episode's last row what was recorded there, else its own action."""
    terminated: NDArray[np.bool_]
    """[N]: a terminal state was reached; its value is zero."""
    truncated: NDArray[np.bool_]
    """[N]: the episode was cut after this row; the value of `next_obs` is bootstrapped. Exactly the last row of each episode has
    one of the two flags set, never both: terminated wins."""
    returns: NDArray[np.float64]
    """[episodes] undiscounted raw return of each episode, with the reward of a last row that was dropped for want of a
    successor."""
    clipped: int = 0
    """Components of `action` that lay outside [-1, 1]."""
    discrete: bool = False
    """Whether actions are choices, as one-hot vectors."""

    def __post_init__(self) -> None:
        rows = len(self.reward)
        widths = (self.obs.shape[-1], self.action.shape[-1])
        for field, array, shape in (
            ("obs", self.obs, (rows, widths[0])),
            ("action", self.action, (rows, widths[1])),
            ("reward", self.reward, (rows,)),
            ("next_obs", self.next_obs, (rows, widths[0])),
            ("next_action", self.next_action, (rows, widths[1])),
            ("terminated", self.terminated, (rows,)),
            ("truncated", self.truncated, (rows,)),
        ):
            if array.shape != shape:
                raise DatasetError(f"{self.name}: {field} has the shape {array.shape} where {shape} fits the other fields.")
        if not rows:
            raise DatasetError(f"{self.name} holds no transition that has a successor; choose a data set with longer episodes.")
        if self.discrete and not (((self.action == 0) | (self.action == 1)).all() and (self.action.sum(1) == 1).all()):
            raise DatasetError(f"{self.name}: its actions are said to be choices, but not all are one-hot; record it again.")
        if (self.terminated & self.truncated).any() or not (self.terminated[-1] or self.truncated[-1]):
            raise DatasetError(
                f"{self.name}: the last row of each episode, and so the last of all, must have terminated or truncated set, "
                "and no row may have both."
            )
        if self.returns.shape != self.ends.shape:
            raise DatasetError(f"{self.name}: {len(self.returns)} returns were given for {len(self.ends)} episodes.")

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def obs_size(self) -> int:
        """Components of an observation."""
        return self.obs.shape[1]

    @property
    def action_size(self) -> int:
        """Components of an action."""
        return self.action.shape[1]

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """[episodes] the last row of each episode (which belongs to it)."""
        return np.flatnonzero(self.terminated | self.truncated).astype(np.int64)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """[episodes] the first row of each episode."""
        return np.concatenate([np.zeros(1, np.int64), self.ends[:-1] + 1])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[episodes] transitions of each episode."""
        return self.ends - self.starts + 1

    def normalized(self, score: float) -> float | None:
        """D4RL's normalised score (0 random, 100 expert) of a raw return; None where D4RL has no reference for it."""
        return d4rl_table.normalized_score(self.name, score, self.task)

    def describe(self) -> str:
        """One line: size, returns, widths."""
        count = len(self.returns)
        span = f" ({self.returns.min():,.1f} to {self.returns.max():,.1f})" if count > 1 else ""
        action = f"{self.action_size} choices" if self.discrete else f"action {self.action_size}"
        return (
            f"{self.name}: {len(self):,} transition{'s' if len(self) > 1 else ''} in {count:,} episode{'s' if count > 1 else ''}, "
            f"return {self.returns.mean():,.1f}{span}, observation {self.obs_size}, {action} "
            f"({self.clipped:,} action components clipped)"
        )
