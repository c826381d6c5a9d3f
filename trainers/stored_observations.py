"""Where replay keeps observations: in its float rows, or, those of pixels, as one uint8 frame per row in a table beside them."""

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from steelyard.agents.types import Spec


class StoredObservations(Protocol):
    """Keeps one observation per row of replay. Addresses are flat, `time * num_envs + env`."""

    floats: int
    """Numbers of each float row that the observation takes, its first ones."""
    bytes_beside: int
    """Bytes of each row beside the float row."""

    @property
    def tables(self) -> tuple[Tensor, ...]:
        """Each [rows, num_envs, ...]: what is kept beside the float rows."""
        ...

    def allocate(self, rows: int, num_envs: int, device: torch.device, shared: bool) -> None:
        """Make the tables, of zeros; `shared` between processes."""
        ...

    def in_row(self, obs: Tensor) -> Tensor:
        """[n, floats]: what the float rows take of observations [n, obs_size]."""
        ...

    def fault(self, address: Tensor, obs: Tensor, next_obs: Tensor) -> str | None:
        """Why `next_obs` [n, obs_size] behind `obs`, which rows [n] hold, cannot be kept, as one sentence; None if they can."""
        ...

    def write(self, address: Tensor, ahead: Tensor, obs: Tensor, next_obs: Tensor) -> None:
        """Keep `obs` [n, obs_size] in rows `address` [n] and `next_obs` in the rows `ahead` that follow them."""
        ...

    def restart(self, address: Tensor, obs: Tensor, fresh: Tensor) -> None:
        """Keep `obs` [n, obs_size] in rows [n], where `fresh` [n] as the beginning of an episode."""
        ...

    def begin(self, address: Tensor) -> None:
        """Whatever comes into rows [n] next begins an episode."""
        ...

    def read(self, row: Tensor, address: Tensor) -> Tensor:
        """Observations [n, obs_size] of the float rows [n, width] at addresses [n], by tensor arithmetic alone."""
        ...


class InRow:
    """Observations are the first numbers of the float rows, and their tables are none."""

    bytes_beside = 0

    def __init__(self, spec: Spec):
        self.floats = spec.obs_size

    @property
    def tables(self) -> tuple[Tensor, ...]:
        """None."""
        return ()

    def allocate(self, rows: int, num_envs: int, device: torch.device, shared: bool) -> None:
        """Nothing beside the rows."""

    def in_row(self, obs: Tensor) -> Tensor:
        """All of it."""
        return obs

    def fault(self, address: Tensor, obs: Tensor, next_obs: Tensor) -> str | None:
        """None: any observation may follow any other."""

    def write(self, address: Tensor, ahead: Tensor, obs: Tensor, next_obs: Tensor) -> None:
        """Nothing beside the rows."""

    def restart(self, address: Tensor, obs: Tensor, fresh: Tensor) -> None:
        """Nothing beside the rows."""

    def begin(self, address: Tensor) -> None:
        """Nothing beside the rows."""

    def read(self, row: Tensor, address: Tensor) -> Tensor:
        """A view of the rows."""
        return row[:, : self.floats]


class FrameTable:
    """Observations are stacks of frames, of which each row keeps the newest, and how many of the earlier ones the rows before it hold.

    Where fewer are there than a stack has, the earliest is repeated: an episode begins with copies of its first frame.
    """

    floats = 0

    def __init__(self, spec: Spec, stack: int):
        self.earlier = stack - 1
        """Rows before a row that its observation is read from too."""
        self.frame_size = spec.obs_size // stack
        self.bytes_beside = self.frame_size + 1

    def allocate(self, rows: int, num_envs: int, device: torch.device, shared: bool) -> None:
        """Make the tables."""
        self.num_envs = num_envs
        self.frames = _zeros((rows, num_envs, self.frame_size), device, shared)
        """The newest frame of each row."""
        self.ages = _zeros((rows, num_envs), device, shared)
        """How many rows before it, as many as a stack needs at most, belong to the same episode."""
        self._back = torch.arange(self.earlier, -1, -1, device=device)

    @property
    def tables(self) -> tuple[Tensor, ...]:
        """Frames and ages."""
        return self.frames, self.ages

    def in_row(self, obs: Tensor) -> Tensor:
        """Nothing."""
        return obs[:, :0]

    def fault(self, address: Tensor, obs: Tensor, next_obs: Tensor) -> str | None:
        """A sentence if reading would not give back what was given: a stack that neither continues the last one nor is copies of one frame."""
        continues = self._continues(obs, next_obs)
        if not bool(continues.all()) and not bool((continues | self._single(next_obs)).all()):
            return "next_obs is a stack that neither continues obs nor begins an episode with copies of one frame"
        if self.ages.device.type != "cpu":  # the question would be a synchronisation
            return None
        young = self._age(address) == 0
        if bool(young.any()) and not bool((~young | self._single(obs)).all()):
            return "obs begins an episode in replay and is not copies of one frame"
        return None

    def write(self, address: Tensor, ahead: Tensor, obs: Tensor, next_obs: Tensor) -> None:
        """The newest frame of each, and that `ahead` continues the stack where it does."""
        frames, ages = self.frames.flatten(0, 1), self.ages.flatten()
        older = (self._age(address) + 1).clamp(max=self.earlier) * self._continues(obs, next_obs).to(ages.device)
        frames.index_copy_(0, address, self._newest(obs))
        frames.index_copy_(0, ahead, self._newest(next_obs))
        ages.index_copy_(0, ahead, older)

    def restart(self, address: Tensor, obs: Tensor, fresh: Tensor) -> None:
        """The newest frames, and an age of zero where `fresh`."""
        self.frames.flatten(0, 1).index_copy_(0, address, self._newest(obs))
        self.ages.flatten().index_copy_(0, address, self._age(address) * ~fresh)

    def begin(self, address: Tensor) -> None:
        """Ages of zero."""
        self.ages.flatten().index_fill_(0, address, 0)

    def read(self, row: Tensor, address: Tensor) -> Tensor:
        """Stacks of frames, the oldest first."""
        frames = self.frames.flatten(0, 1)
        back = torch.minimum(self._back, self._age(address)[:, None]) * self.num_envs
        place = (address[:, None] - back) % len(frames)
        return frames_at(frames, place.flatten()).view(len(address), len(self._back) * self.frame_size)

    def _age(self, address: Tensor) -> Tensor:
        return self.ages.flatten().index_select(0, address)

    def _newest(self, obs: Tensor) -> Tensor:
        return obs[:, -self.frame_size :].to(self.frames.device)

    def _continues(self, obs: Tensor, next_obs: Tensor) -> Tensor:
        return self._same(next_obs, obs)

    def _single(self, obs: Tensor) -> Tensor:
        return self._same(obs, obs)

    def _same(self, newer: Tensor, older: Tensor) -> Tensor:
        """[n]: whether all but the newest frame of `newer` are all but the oldest of `older`."""
        size = self.frame_size
        if size % 8 == 0:  # eight bytes at a time
            newer, older, size = newer.contiguous().view(torch.int64), older.contiguous().view(torch.int64), size // 8
        return (newer[:, :-size] == older[:, size:]).all(-1)


# One operation to the compiler, which would otherwise compute the address of a frame anew for each of its pixels.
@torch.library.custom_op("steelyard::frames_at", mutates_args=())
def frames_at(frames: Tensor, place: Tensor) -> Tensor:
    """Rows `place` [n] int64 of frames [rows, frame_size], [n, frame_size]."""
    return frames.index_select(0, place)


@frames_at.register_fake
def _(frames: Tensor, place: Tensor) -> Tensor:
    """Shape and type of what `frames_at` returns."""
    return frames.new_empty(len(place), frames.shape[1])


def _zeros(shape: tuple[int, ...], device: torch.device, shared: bool) -> Tensor:
    """Bytes in new memory.

    `share_memory_` would hold them twice for a moment, and torch.zeros write all of them now, not when they are used.
    """
    if shared:
        storage = torch.UntypedStorage._new_shared(math.prod(shape))
        return torch.empty(0, dtype=torch.uint8).set_(storage, 0, shape)  # pyright: ignore[reportCallIssue]
    if device.type == "cpu":
        return torch.from_numpy(np.zeros(shape, np.uint8))
    return torch.zeros(shape, dtype=torch.uint8, device=device)


def stored_observations(spec: Spec) -> StoredObservations:
    """What keeps the observations of `spec`."""
    return InRow(spec) if spec.frames is None else FrameTable(spec, spec.frames)
