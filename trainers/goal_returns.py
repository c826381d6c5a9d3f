"""Returns to go beside replay: what the data's own policy reached from each row, which bounds values from below (Cal-QL).

Nakamoto et al. 2023, "Cal-QL: Calibrated Offline RL Pre-Training for Efficient Online Fine-Tuning".
"""

from collections.abc import Callable

import torch
from torch import Tensor

from steelyard.trainers.stored_rows import stored_rows

LOOK_BACK = 256
"""Rows in which the start of an episode that just ended is looked for at first; then four times as many, and so on."""
_UNKNOWN = -torch.inf


class GoalReturns:
    """G_t = sum_k gamma^k r_{t+k} to the end of the episode, for the rows of episodes that ended; -infinity for all others.

    `ReplayBuffer.keep_returns` makes one and keeps it up to date. Kept are sums over raw rewards and over one per row: of a scaling a r + b of
    rewards G is a times the first plus b times the second, so that returns follow a scaling that is still learned.

    Args:
        data: [rows, num_envs, width] the buffer's rows.
        cursors: [num_envs] the buffer's cursors.
        gamma, transform, failure: As `ReplayBuffer.keep_returns` has them.
    """

    def __init__(self, data: Tensor, cursors: Tensor, gamma: float, transform: Callable[[Tensor], Tensor], failure: float | None):
        self.data, self.cursors = data, cursors
        self.gamma, self.transform, self.failure = gamma, transform, failure
        self.rows, self.num_envs, _ = data.shape
        size = self.rows * self.num_envs
        self.sums = torch.zeros(size, dtype=torch.float64, device=data.device)
        """[rows * num_envs] float64 by flat address: sum_k gamma^k r_{t+k} of raw rewards."""
        self.spans = torch.zeros(size, dtype=torch.float64, device=data.device)
        """[rows * num_envs] float64: sum_k gamma^k; zero where the episode has not ended."""
        self.pair = torch.tensor([0.0, 1.0], dtype=torch.float64, device=data.device)

    @property
    def table(self) -> Tensor:
        """[rows * num_envs] float32 by flat address: all returns."""
        return self.at(torch.arange(len(self.sums), device=self.sums.device))

    @torch.no_grad()
    def at(self, address: Tensor) -> Tensor:
        """Returns [n] float32 of rows at flat addresses [n], in the rewards that the agent sees now."""
        shift, unit = self.transform(self.pair).double()
        sums, spans = self.sums.index_select(0, address), self.spans.index_select(0, address)
        return torch.where(spans > 0, (unit - shift) * sums + shift * spans, _UNKNOWN).float()

    def recompute(self) -> None:
        """All rows anew: a quarter of a second per million."""
        self.spans.zero_()
        rows = stored_rows(self.data, self.cursors, self.rows - 1)
        valid = rows.valid
        ended = torch.zeros(len(valid) + 1, dtype=torch.bool, device=self.data.device)
        ended[rows.run[rows.done]] = True
        known = valid & ended[rows.run]
        self._fill(rows.address[known], rows.reward[known], rows.done[known], rows.run[known])

    def write(self, env: Tensor, time: Tensor, ended: Tensor) -> None:
        """Take note of new rows at `time` [n] of columns `env` [n]; where they `ended` [n] their episode, its rows are filled."""
        self.spans.index_fill_(0, time % self.rows * self.num_envs + env, 0)
        if bool(ended.any()):
            for column, last in torch.stack((env, time), dim=-1)[ended.to(env.device)].tolist():
                self._finish(column, last)

    def _finish(self, column: int, last: int) -> None:
        """Fill the rows of the episode whose last row is at time `last` of a column."""
        newest, span = min(last + 1, self.rows - 1), LOOK_BACK
        while True:
            span = min(span, newest)
            time = torch.arange(last - span + 1, last + 1, device=self.data.device) % self.rows
            flags = self.data[time, column, -4:]
            breaks = (flags[:-1, 3] == 0) | (flags[:-1, 1] > 0) | (flags[:-1, 2] > 0)
            before = breaks.nonzero().flatten()
            if len(before) or span == newest:
                break
            span *= 4
        start = int(before[-1]) + 1 if len(before) else 0
        address, reward = (time * self.num_envs + column)[start:], flags[start:, 0]
        done = torch.zeros_like(address, dtype=torch.bool)
        done[-1] = True
        self._fill(address, reward, done, torch.zeros_like(address))

    def _fill(self, address: Tensor, reward: Tensor, done: Tensor, run: Tensor) -> None:
        """Write the returns of whole runs, one after the other, each with `done` at its last row only."""
        if not len(address):
            return
        sums = discounted_sums(reward, ~done, self.gamma)
        spans = discounted_sums(torch.ones_like(reward), ~done, self.gamma)
        if self.failure is not None:
            with torch.no_grad():
                seen = self.transform(reward)
            fails = torch.isclose(seen, torch.full_like(seen, self.failure))
            successes = torch.zeros(int(run[-1]) + 1, dtype=torch.int64, device=run.device).index_add_(0, run, (~fails).long())
            failed, for_ever = successes[run] == 0, 1 / (1 - self.gamma)
            sums = torch.where(failed, reward.double() * for_ever, sums)
            spans = torch.where(failed, for_ever, spans)
        self.sums.index_copy_(0, address, sums)
        self.spans.index_copy_(0, address, spans)


def discounted_sums(reward: Tensor, goes_on: Tensor, gamma: float) -> Tensor:
    """sum_k gamma^k reward_{t+k} [n] float64 up to the first row that does not go on; the last row never does.

    By doubling: after pass i every row has the sum over its next 2^i rows, so that the longest episode and not the number of episodes
    decides how many passes there are, and what one row gets does not depend on the episodes around it.
    """
    value, factor, shift = reward.double(), gamma * goes_on.double(), 1
    factor[-1:] = 0
    while shift < len(value) and bool(factor.any()):
        value = torch.cat((value[:-shift] + factor[:-shift] * value[shift:], value[-shift:]))
        factor = torch.cat((factor[:-shift] * factor[shift:], factor[-shift:]))
        shift *= 2
    return value
