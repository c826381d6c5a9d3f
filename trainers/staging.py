"""Batches from host memory to a GPU: through pinned memory, so that the copy runs beside the host and the GPU's other work."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from steelyard.agents.types import Batch

SLOTS = 2
"""Sets of pinned columns: one is filled while the GPU copies the other."""


def pinned(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Page-locked host memory, which a GPU reads by itself. CUDA must be there."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)


class Staging:
    """Copies batches to a device without waiting for the copies.

    A copy from ordinary memory makes the host wait; one from pinned memory is queued on the device's current stream, and work queued there
    later sees its result. Before a set of pinned columns is filled again, the host waits until the copies that read it are over: with two
    sets those are the copies of the batch before last.

    Args:
        device: Where batches go.
        allocate: Makes the host's side of a column.
        event: Makes what marks a place in the device's queue.
    """

    def __init__(
        self,
        device: torch.device,
        allocate: Callable[[torch.Size, torch.dtype], Tensor] = pinned,
        event: Callable[[], Any] = torch.cuda.Event,
    ):
        self.device, self.allocate = device, allocate
        self.slots: list[dict[str, Tensor]] = [{} for _ in range(SLOTS)]
        self.read = [event() for _ in range(SLOTS)]
        """Recorded behind the copies of each set. One that was never recorded is not waited for."""
        self.turn = 0

    def move(self, batch: Batch) -> Batch:
        """The batch on the device; what it was gathered into is free at once."""
        slot, read = self.slots[self.turn], self.read[self.turn]
        self.turn = (self.turn + 1) % SLOTS
        read.synchronize()
        moved: dict[str, Tensor] = {}
        for name, column in batch._asdict().items():
            if column is None:
                continue
            if name not in slot or slot[name].shape != column.shape or slot[name].dtype != column.dtype:
                slot[name] = self.allocate(column.shape, column.dtype)
            moved[name] = slot[name].copy_(column).to(self.device, non_blocking=True)
        read.record()
        return batch._replace(**moved)
