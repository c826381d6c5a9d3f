"""Replay as a `[time, env]` ring of the environment stream: every observation is stored once, its successor is the next row."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from steelyard.agents.errors import SteelyardError
from steelyard.agents.types import Batch, Spec, Step
from steelyard.envs.memory import free_bytes
from steelyard.trainers import dataset_rows, replay_files, step_faults
from steelyard.trainers.goal_returns import GoalReturns
from steelyard.trainers.stored_observations import stored_observations

if TYPE_CHECKING:
    from steelyard.envs.datasets import Dataset

Placement = Literal["host", "shared", "device"]


class ReplayError(SteelyardError):
    """Replay got something that it cannot store or restore. The message is one sentence that names the field and the remedy."""


class MemoryShortage(ReplayError):
    """Replay does not fit into memory.

    Args:
        sentence: For a user whose capacity it is.
        reason: How much it needs, and how much there is.
        largest: Capacity that would fit.
    """

    def __init__(self, sentence: str, reason: str = "", largest: int = 0):
        super().__init__(sentence)
        self.reason, self.largest = reason, largest


class ReplayBuffer:
    """A preallocated ring with one column per world and one packed float32 row per column and time step.

    A row is `obs | action | reward | terminated | truncated | valid`; observations that are pictures (`Spec.frames`) lie beside it, one uint8
    frame per row, and are put together again when they are read (`stored_observations.py`). The row at a column's cursor already holds the newest
    successor observation with `valid = 0`, so the newest transition is complete, and a window of several steps ends at the seam
    of the ring because it never passes an invalid row. Where a world ended its episode and was reset within one call (same-step
    autoreset), an extra invalid row holds the true last observation; where the reset takes a call of its own (next-step
    autoreset), that call's row is the invalid one.

    Raises `ReplayError` if the capacity does not fit the free memory.
    """

    def __init__(
        self,
        spec: Spec,
        capacity: int,
        num_envs: int = 1,
        placement: Placement = "host",
        device: torch.device | str | None = None,
        guard: int = 0,
    ):
        """Allocate.

        `capacity` counts transitions of all worlds together. `placement` is host memory, shared memory (processes started by
        `spawn` each write their own columns, without locks) or the memory of `device` (the first GPU unless named). `guard` is a
        number of rows per column beyond the capacity: the oldest rows, never sampled, so that a writer in another process cannot
        overwrite what is being read.
        """
        if num_envs < 1 or capacity < 2 * num_envs:
            raise ReplayError(f"capacity is {capacity:,} for {num_envs} worlds; give at least two transitions per world.")
        self.spec = spec
        self.num_envs = num_envs
        self.placement: Placement = placement
        self.device = torch.device("cpu") if placement != "device" else torch.device(device or "cuda")
        self.guard = guard
        self.window = -(-capacity // num_envs)
        """Newest rows of a column that sampling may draw from."""
        # The oldest rows that are sampled read earlier frames of their episodes, which stay so much longer.
        self.rows = self.window + (spec.frames or 1) + guard
        self.observations = stored_observations(spec)
        """Keeps observations, in the rows or beside them."""
        self.width = self.observations.floats + spec.action_size + 4
        self._require_memory(capacity)
        self.observations.allocate(self.rows, num_envs, self.device, placement == "shared")
        self.data = torch.zeros(self.rows, num_envs, self.width, device=self.device)
        self.cursors = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        """[num_envs] int64: rows that each column has completed since the start. They only grow: the place is `cursor % rows`."""
        self.columns: frozenset[str] = frozenset()
        """What `gather` delivers beyond the usual: `next_action`, and `goal_return` after `keep_returns`. A transition that a world just made
        has its own action as the next one, until the next is known, and for ever where its episode ended there."""
        self.goal_returns: GoalReturns | None = None
        """Returns to go of all rows, once `keep_returns` asked for them."""
        self._envs = torch.arange(num_envs, device=self.device)
        if placement == "shared":
            for tensor in (self.data, self.cursors, *self.observations.tables):
                tensor.share_memory_()

    @property
    def flat(self) -> Tensor:
        """[rows * num_envs, width]: every row under its flat address `time * num_envs + env`."""
        return self.data.view(-1, self.width)

    @property
    def valid(self) -> Tensor:
        """[rows * num_envs]: one where a row is a transition, zero where it only holds an observation."""
        return self.flat[:, -1]

    @property
    def nbytes(self) -> int:
        """Bytes of storage."""
        return self.rows * self.num_envs * self.row_bytes

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return 4 * self.width + self.observations.bytes_beside

    def describe(self) -> str:
        """One line for the start of a run, such as `replay: 1,000,001 rows x 27 floats = 108 MB on host`."""
        place = {"host": "host", "shared": "shared memory", "device": str(self.device)}[self.placement]
        row = f"{self.width} floats"
        if self.observations.bytes_beside:
            row = f"{self.row_bytes:,} bytes (one {self.spec.obs_size // (self.spec.frames or 1):,}-byte frame each)"
        return f"replay: {self.rows * self.num_envs:,} rows x {row} = {self.nbytes / 1e6:,.0f} MB on {place}"

    def filled(self) -> Tensor:
        """[num_envs] int64: rows of each column that sampling may draw from, invalid ones included."""
        return self.cursors.clamp(max=self.window)

    def __len__(self) -> int:
        return int(self.filled().sum())

    def address(self, time: Tensor, env: Tensor) -> Tensor:
        """Flat addresses of rows given by their time since the start (any integer) and their column."""
        return time % self.rows * self.num_envs + env

    def add(self, obs: Tensor, action: Tensor, step: Step, columns: slice | None = None) -> None:
        """Append a step of the n worlds in `columns` (all by default): obs [n, obs_size] acted on, action [n, action_size].

        Raises `ReplayError` on wrong shapes and, for data that comes from host memory, on NaN and infinities.
        """
        columns = columns or slice(None)
        env = self._envs[columns]
        fault = step_faults.shape(self.spec, len(env), obs, action, step)
        if fault:
            raise ReplayError(fault)
        # On a GPU the questions would be synchronisations; there a reset is written always, as a copy where there was none.
        may_reset = True
        if step.obs.device.type == "cpu":
            fault = step_faults.not_finite(self.observations, obs, action, step)
            if fault:
                raise ReplayError(fault)
            may_reset = bool((step.terminated | step.truncated).any())
        fault = self.observations.fault(self.address(self.cursors[columns], env), obs, step.next_obs)
        if fault:
            raise ReplayError(f"{fault}; pass on what the worlds returned, and call `cut` where they were reset.")
        self.write(obs, action, step, columns, may_reset)

    def write(self, obs: Tensor, action: Tensor, step: Step, columns: slice | None = None, may_reset: bool = True) -> None:
        """What `add` does once it has looked: tensors in, tensors out, no question that waits for a device, ready to be captured.

        `may_reset`: whether some world may have been reset within its step; where none was, nothing changes.
        """
        columns = columns or slice(None)
        env, cursor = self._envs[columns], self.cursors[columns]
        flags = torch.stack((step.reward, step.terminated, step.truncated, step.valid), dim=-1)
        kept = self.observations
        row = torch.cat((kept.in_row(obs), action, flags), dim=-1).float()
        following = kept.in_row(step.next_obs)
        if "next_action" in self.columns:
            following = torch.cat((following, action), dim=-1)
        successor = pad(following, (0, self.width - following.shape[-1])).float()
        row, successor = row.to(self.device), successor.to(self.device)
        time = cursor % self.rows
        here, ahead = time * self.num_envs + env, self.address(time + 1, env)
        flat, valid = self.flat, self.valid
        # The row ahead becomes invalid before its observation changes, and the new row becomes valid after all else is written:
        # a reader in another process, or the restart of a killed writer, never takes a half-written row for a transition.
        valid.index_fill_(0, ahead, 0)
        flat.index_copy_(0, ahead, successor)
        kept.write(here, ahead, obs, step.next_obs)
        completed: int | Tensor = 1
        if may_reset:
            reset = ((step.terminated | step.truncated) & (step.next_obs != step.obs).any(-1)).to(self.device)
            completed = 1 + reset
            fresh = self.address(cursor + completed, env)
            start = pad(kept.in_row(step.obs).float().to(self.device), (0, self.width - kept.floats))
            valid.index_fill_(0, fresh, 0)
            flat.index_copy_(0, fresh, torch.where(reset[:, None], start, successor))
            kept.restart(fresh, step.obs, reset)
        written = row[:, -1].clone()
        row[:, -1] = 0
        flat.index_copy_(0, here, row)
        valid.index_copy_(0, here, written)
        if self.goal_returns:
            ended = (step.terminated | step.truncated) & step.valid
            self.goal_returns.write(env, cursor, ended)
        cursor += completed

    @staticmethod
    def rows_needed(dataset: "Dataset", num_envs: int) -> int:
        """Capacity with which an empty buffer of `num_envs` columns takes the data set and overwrites nothing.

        These are its transitions, one row per episode, and what columns differ by because episodes are not divided.
        """
        filled = dataset_rows.place(dataset.lengths, np.zeros(num_envs, np.int64)).filled
        return max(int(filled.max()), 2) * num_envs

    def extend(self, dataset: "Dataset") -> None:
        """Append all episodes of a data set, each whole to the column with the fewest rows; the next `add` begins new episodes.

        Two million transitions of HalfCheetah take half a second. Episodes under way in replay count as cut. Raises `ReplayError`, and
        stores nothing, if observations are pictures, the widths differ, a number is NaN or infinite, a successor inside an episode is
        not the next row, or a column would hold more rows than sampling may draw from.
        """
        if self.spec.frames is not None:
            raise ReplayError(f"{dataset.name} cannot be appended to replay of pictures; use a task without pictures.")
        fault = dataset_rows.fault(dataset, self.spec)
        if fault:
            raise ReplayError(fault)
        if self._under_way():
            self.cut()
        places = dataset_rows.place(dataset.lengths, self.cursors.cpu().numpy())
        if places.filled.max() > self.window:
            raise ReplayError(
                f"{dataset.name} needs {places.filled.max():,} rows of a column of replay, which has {self.window:,}; "
                "make its capacity at least ReplayBuffer.rows_needed, and as much more as is stored already."
            )
        for address, row in dataset_rows.rows(dataset, places):
            self.flat.index_copy_(0, address.to(self.device), row.to(self.device))
        self.cursors.copy_(torch.from_numpy(places.filled))
        self.recompute_returns()

    def keep_returns(self, gamma: float, transform: Callable[[Tensor], Tensor], failure: float | None = None) -> None:
        """From now on keep the return to go of every row, G_t = sum_k gamma^k transform(r_{t+k}) to the end of its episode (Cal-QL).

        `transform` turns raw rewards [n] on the buffer's device into those that the agent learns from, a r + b; a and b may change while the
        agent learns them, and returns then follow. `failure`: the
        transformed reward of failing in a sparse task; an episode with no other reward has failure / (1 - gamma) at every row. Rows
        of episodes that did not end have -infinity. Costs 16 bytes per row. Rows that are there already are taken in at once; of
        an episode whose beginning was overwritten only what is left counts.

        Raises `ReplayError` where other processes write (shared placement), or for a failure that never ends (gamma 1).
        """
        if self.placement == "shared":
            raise ReplayError("Returns to go are kept by the process that adds rows; collect in this process (no actors).")
        if failure is not None and not gamma < 1:
            raise ReplayError(
                f"failure is {failure} but gamma is {gamma}: failing for ever has no finite return; choose gamma < 1."
            )
        self.goal_returns = GoalReturns(self.data, self.cursors, gamma, transform, failure)
        self.recompute_returns()

    def recompute_returns(self) -> None:
        """Compute all returns to go anew, if they are kept: what to call when rows have changed. `extend` and `load` do so themselves."""
        if self.goal_returns:
            self.goal_returns.recompute()

    def cut(self, columns: slice | None = None) -> None:
        """Begin new episodes in `columns` though the old ones did not end: a restarted actor, a resumed run whose worlds are new.

        Without this the next `add` would put an unrelated observation behind the last transition. A transition that a killed
        writer completed without moving its cursor is kept.
        """
        columns = columns or slice(None)
        env, cursor = self._envs[columns], self.cursors[columns]
        complete = self.valid[self.address(cursor, env)] > 0
        skip = torch.where(complete, 2, (cursor > 0).long())
        start = self.address(cursor + skip, env)
        self.valid.index_fill_(0, start, 0)
        self.observations.begin(start)
        cursor += skip

    def obs_at(self, address: Tensor) -> Tensor:
        """[..., obs_size]: the observations that the rows at flat addresses `address` hold."""
        rows = address.flatten()
        return self.observations.read(self.flat[rows], rows).view(*address.shape, self.spec.obs_size)

    def gather(self, index: Tensor, n_step: int = 1, gamma: float = 0.99) -> Batch:
        """The transitions that start at flat addresses `index` [batch] int64, over windows of up to `n_step` steps.

        A window ends early at a terminated, truncated or last written row; reward and discount are those of the k steps that it
        spans: `reward = sum_i gamma^i r_i`, `discount = gamma^k (1 - terminated)`. `weight` is zero where a row is no transition.
        Everything is tensor arithmetic on the buffer's device, so it can be part of a compiled graph.
        """
        flat, stride, kept = self.flat, self.num_envs, self.observations
        size = self.rows * stride
        row = flat.index_select(0, index)
        last, reward, terminated = index, row[:, -4], row[:, -3]
        discount = gamma * (1 - terminated)
        going = (row[:, -1] > 0) & (row[:, -3:-1].sum(-1) == 0)
        for k in range(1, n_step):
            following = (index + k * stride) % size
            ahead = flat.index_select(0, following)
            going = going & (ahead[:, -1] > 0)
            reward = torch.where(going, reward + gamma**k * ahead[:, -4], reward)
            discount = torch.where(going, gamma ** (k + 1) * (1 - ahead[:, -3]), discount)
            last = torch.where(going, following, last)
            going = going & (ahead[:, -3:-1].sum(-1) == 0)
        successor = (last + stride) % size
        after = flat.index_select(0, successor)
        return Batch(
            obs=kept.read(row, index),
            action=row[:, kept.floats : -4],
            reward=reward,
            next_obs=kept.read(after, successor),
            discount=discount,
            weight=row[:, -1],
            index=index,
            next_action=after[:, kept.floats : -4] if "next_action" in self.columns else None,
            goal_return=self._goal_return(index) if "goal_return" in self.columns else None,
        )

    def save(self, folder: Path) -> None:
        """Write the filled rows and the cursors into `folder` (made if missing), flushed to the disk.

        Costs one pass over the filled rows: 108 MB for a million rows of 27 floats. No other process may write meanwhile.
        Raises `OSError` if the disk refuses.
        """
        # The row at the cursor counts: it holds the successor of the newest transition.
        stored = min(self.rows, int(self.cursors.max()) + 1)
        replay_files.save(folder, [table[:stored] for table in self._tables()], self.cursors, self._layout())

    def load(self, folder: Path) -> None:
        """Restore exactly what `save` wrote; returns to go are computed anew.

        Raises `ReplayError` if the files are damaged or of another layout.
        """
        try:
            replay_files.load(folder, self._tables(), self.cursors, self._layout())
        except replay_files.DamagedFile as error:
            raise ReplayError(str(error)) from error
        self.recompute_returns()

    def _under_way(self) -> bool:
        """Whether some column's newest transition has its successor in the row at the cursor, or lies there itself (`cut`)."""
        before = self.valid[self.address(self.cursors - 1, self._envs)] * (self.cursors > 0)
        return bool((before + self.valid[self.address(self.cursors, self._envs)]).any())

    def _goal_return(self, index: Tensor) -> Tensor:
        if self.goal_returns is None:
            raise ReplayError("goal_return is among the columns but no returns are kept; call ReplayBuffer.keep_returns.")
        return self.goal_returns.at(index)

    def _layout(self) -> dict[str, int]:
        layout = {
            "obs_size": self.spec.obs_size,
            "action_size": self.spec.action_size,
            "num_envs": self.num_envs,
            "rows": self.rows,
        }
        return layout if self.spec.frames is None else layout | {"frames": self.spec.frames}

    def _tables(self) -> list[Tensor]:
        """What lies on the disk, each [rows, num_envs, ...]."""
        return [self.data, *self.observations.tables]

    def _require_memory(self, capacity: int) -> None:
        free = free_bytes(self.device, shared=self.placement == "shared")
        if free is not None and self.nbytes > free:
            where = "shared memory (/dev/shm)" if self.placement == "shared" else f"the memory of {self.device}"
            reason = f"needs {self.nbytes / 1e9:,.1f} GB but {where} has {free / 1e9:,.1f} GB free"
            largest = int(capacity * 0.9 * free / self.nbytes)
            raise MemoryShortage(f"capacity {capacity:,} {reason}; choose a capacity of at most {largest:,}.", reason, largest)
