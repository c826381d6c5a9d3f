"""A data set as rows of replay: which column each episode goes to, and what its rows hold."""

import heapq
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelyard.agents.types import Spec

if TYPE_CHECKING:  # data sets bring their file formats along; processes that only collect do without
    from steelyard.envs.datasets import Dataset

CHUNK = 1 << 17
"""Rows that are put together at a time, so that loading does not double the memory."""
SAME = 1e-6
"""Share, or where that is less the difference, up to which two numbers are one that was rounded differently."""


class Places(NamedTuple):
    """Where the episodes of a data set go."""

    column: NDArray[np.int64]
    """[episodes] column of each episode."""
    start: NDArray[np.int64]
    """[episodes] time in its column of its first row."""
    filled: NDArray[np.int64]
    """[num_envs] rows of each column afterwards."""


def place(lengths: NDArray[np.int64], filled: NDArray[np.int64]) -> Places:
    """Gives each episode in turn to the column with the fewest rows, the first of those.

    `lengths` [episodes] counts transitions, to which each episode adds a row for its last observation; `filled` [num_envs] counts
    the rows that are there. Columns end up no further apart than one episode, if they were before.
    """
    column = np.empty(len(lengths), np.int64)
    start = np.empty(len(lengths), np.int64)
    columns = [(rows, number) for number, rows in enumerate(filled.tolist())]
    heapq.heapify(columns)
    for episode, length in enumerate(lengths.tolist()):
        rows, number = columns[0]
        column[episode], start[episode] = number, rows
        heapq.heapreplace(columns, (rows + length + 1, number))
    return Places(column, start, np.array([rows for rows, _ in sorted(columns, key=lambda entry: entry[1])], np.int64))


def fault(dataset: "Dataset", spec: Spec) -> str | None:
    """Why replay of `spec` cannot store the data set, as one sentence; None if it can."""
    given, wanted = (dataset.obs_size, dataset.action_size), (spec.obs_size, spec.action_size)
    if given != wanted:
        return (
            f"{dataset.name} has observations and actions of {given[0]} and {given[1]} numbers where replay stores {wanted[0]} and "
            f"{wanted[1]}; choose the task that the data set was recorded in."
        )
    for name in ("obs", "action", "reward", "next_obs", "next_action", "returns"):
        if not np.isfinite(getattr(dataset, name)).all():
            return f"{dataset.name}: {name} holds NaN or an infinity and nothing was stored; repair the data set."
    row = leap(dataset)
    if row is not None:
        return (
            f"{dataset.name}: the successor of row {row} is not row {row + 1} though its episode goes on; mark it as truncated."
        )
    return None


def leap(dataset: "Dataset") -> int | None:
    """The first row inside an episode whose `next_obs` or `next_action` is not what the next row has; None if there is none.

    Replay stores no successors but takes the next row for one.
    """
    inside = ~(dataset.terminated | dataset.truncated)[:-1]
    for first in range(0, len(inside), CHUNK):
        going = inside[first : first + CHUNK]
        for successor, row in ((dataset.next_obs, dataset.obs), (dataset.next_action, dataset.action)):
            after, ahead = successor[first:][: len(going)], row[first + 1 :][: len(going)]
            suspects = np.flatnonzero(going & (after != ahead).any(axis=1))
            leaps = ~np.isclose(after[suspects], ahead[suspects], rtol=SAME, atol=SAME).all(axis=1)
            if leaps.any():
                return first + int(suspects[leaps][0])
    return None


def rows(dataset: "Dataset", places: Places) -> Iterator[tuple[Tensor, Tensor]]:
    """Pieces of (address [n] int64, row [n, width] float32): first all transitions, then all tails.

    A tail is the row behind an episode: no transition, but the last successor and the action recorded there, so that the successor of
    every row is the next row. Its reward is what the episode's return has beyond the sum of its rewards: where the last recorded
    transition was dropped for want of a successor, that one's reward. Addresses are `time * num_envs + column`, time from the ring's start.
    """
    num_envs = len(places.filled)
    lengths, ends = dataset.lengths, dataset.ends
    nothing, one = np.zeros(len(ends), np.float32), np.ones(len(dataset), np.float32)
    time = np.repeat(places.start - dataset.starts, lengths) + np.arange(len(dataset))
    address = time * num_envs + np.repeat(places.column, lengths)
    transitions = (dataset.obs, dataset.action, dataset.reward, dataset.terminated, dataset.truncated, one)
    yield from _pieces(address, transitions)
    dropped = dataset.returns - np.add.reduceat(dataset.reward.astype(np.float64), dataset.starts)
    tails = (dataset.next_obs[ends], dataset.next_action[ends], dropped, nothing, nothing, nothing)
    yield from _pieces((places.start + lengths) * num_envs + places.column, tails)


def _pieces(address: NDArray[np.int64], fields: tuple[NDArray, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    width = sum(field.shape[1] if field.ndim == 2 else 1 for field in fields)
    for first in range(0, len(address), CHUNK):
        piece = slice(first, first + CHUNK)
        row = np.empty((len(address[piece]), width), np.float32)
        at = 0
        for field in fields:
            part = field[piece].reshape(len(row), -1)
            row[:, at : at + part.shape[1]] = part
            at += part.shape[1]
        yield torch.from_numpy(address[piece]), torch.from_numpy(row)
