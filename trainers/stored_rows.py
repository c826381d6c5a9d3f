"""The rows of a ring in the order in which they were written, and the runs of transitions among them."""

from typing import NamedTuple

import torch
from torch import Tensor


class StoredRows(NamedTuple):
    """Rows [n], column after column, each column's from the oldest to the newest.

    A run is a longest stretch of transitions with nothing between them, no episode's end and no row that is none: an episode, or what
    is stored of it.
    """

    address: Tensor
    """[n] int64 flat addresses."""
    time: Tensor
    """[n] int64 time since the start of the column."""
    column: Tensor
    """[n] int64."""
    reward: Tensor
    """[n] float32."""
    valid: Tensor
    """[n] bool: a transition."""
    done: Tensor
    """[n] bool: a transition that ended its episode."""
    first: Tensor
    """[n] bool: begins a run."""
    run: Tensor
    """[n] int64 number of the run of each transition, counted over all columns."""

    def to(self, device: torch.device | str) -> "StoredRows":
        """The same on another device."""
        return StoredRows(*(tensor.to(device) for tensor in self))


def stored_rows(data: Tensor, cursors: Tensor, newest: int) -> StoredRows:
    """Up to `newest` rows of each column of a ring, on its device.

    `data` [rows, num_envs, width] and `cursors` [num_envs] are a `ReplayBuffer`'s.
    """
    rows, num_envs, width = data.shape
    span = min(newest, int(cursors.max()))
    env = torch.arange(num_envs, device=data.device)[:, None]
    time = cursors[:, None] - span + torch.arange(span, device=data.device)
    address = time % rows * num_envs + env
    flags = data.view(-1, width)[:, -4:][address.flatten()]
    reward, terminated, truncated, valid = flags.view(num_envs, span, 4).unbind(-1)
    # Times below zero fall on rows that were never written.
    transition = valid > 0
    done = transition & ((terminated > 0) | (truncated > 0))
    first = transition.clone()
    first[:, 1:] &= ~transition[:, :-1] | done[:, :-1]
    return StoredRows(
        address=address.flatten(),
        time=time.flatten(),
        column=env.expand_as(time).flatten(),
        reward=reward.flatten(),
        valid=transition.flatten(),
        done=done.flatten(),
        first=first.flatten(),
        run=first.flatten().cumsum(0) - 1,
    )
