"""The sampler slot: which rows of replay to learn from, and with what weight."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from steelyard.agents.types import Batch
from steelyard.trainers.buffer import ReplayBuffer

CANDIDATES = 4
"""Draws per row of a batch, of which the first valid one counts: with one row in ten invalid, one batch row in 10^4 has weight
zero. Twice as many would double the cost of choosing."""


class Sampler(Protocol):
    """Draws batches from replay.

    The random numbers come from `noise`; everything after them is tensor arithmetic without a synchronisation, so `gather` can be
    part of one compiled graph whose input is the noise.
    """

    device: torch.device
    """Where batches come to lie."""

    def noise(self, batch_size: int | None = None) -> Tensor:
        """Random numbers for one batch (of the size given to `build` unless named); nothing else advances the random stream."""
        ...

    def select(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Flat addresses [batch] int64 and weights [batch] float32 of the rows that the noise picks."""
        ...

    def gather(self, noise: Tensor) -> Batch:
        """The batch that the noise picks."""
        ...

    def sample(self, batch_size: int | None = None) -> Batch:
        """A fresh batch: `gather(noise(batch_size))`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The random stream and whatever else determines the next batch, as tensors and plain data."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        ...


class SamplerConfig(Protocol):
    """What stands in the slot: a frozen value that builds its sampler."""

    def build(self, buffer: ReplayBuffer, batch_size: int, n_step: int, gamma: float, seed: int) -> Sampler:
        """A sampler of `batch_size` windows of up to `n_step` steps, discounted by `gamma`."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Every stored transition with the same probability."""

    def build(self, buffer: ReplayBuffer, batch_size: int, n_step: int, gamma: float, seed: int) -> "UniformSampler":
        """A uniform sampler with its own random stream."""
        return UniformSampler(buffer, batch_size, n_step, gamma, seed)


class UniformSampler:
    """Exactly uniform over the valid rows of all columns, however unevenly the columns are filled.

    A row is drawn uniformly from the filled rows; among `CANDIDATES` such draws the first valid one is uniform over the valid
    rows. If none is valid the batch row has weight zero, as all have while replay is empty.
    """

    def __init__(self, buffer: ReplayBuffer, batch_size: int, n_step: int, gamma: float, seed: int):
        self.buffer = buffer
        self.device = buffer.device
        self.batch_size = batch_size
        self.n_step = n_step
        self.gamma = gamma
        self.generator = torch.Generator(buffer.device).manual_seed(seed)

    def noise(self, batch_size: int | None = None) -> Tensor:
        """Random numbers [CANDIDATES, batch] float64 in [0, 1): single precision could not name every row of a large ring."""
        shape = (CANDIDATES, batch_size or self.batch_size)
        return torch.rand(shape, generator=self.generator, dtype=torch.float64, device=self.buffer.device)

    def select(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Flat addresses [batch] int64 and weights [batch]: one, or zero where no candidate was a transition."""
        buffer = self.buffer
        bounds = buffer.filled().cumsum(0)
        draw = (noise * bounds[-1]).long()
        env = torch.searchsorted(bounds, draw, right=True).clamp(max=buffer.num_envs - 1)
        # Rows are counted back from the column's cursor; one comparison per draw is several times cheaper than a remainder.
        time = (buffer.cursors % buffer.rows - bounds)[env] + draw
        address = torch.where(time < 0, time + buffer.rows, time) * buffer.num_envs + env
        valid = buffer.valid.index_select(0, address.flatten()).view_as(address)
        index, weight = address[-1], valid[-1]
        # A chain of selections and not an argmax: the compiler fuses it into one vectorised pass.
        for k in range(CANDIDATES - 2, -1, -1):
            index = torch.where(valid[k] > 0, address[k], index)
            weight = torch.maximum(valid[k], weight)
        return index, weight

    def gather(self, noise: Tensor) -> Batch:
        """The batch that the noise picks, on the buffer's device."""
        index, weight = self.select(noise)
        return self.buffer.gather(index, self.n_step, self.gamma)._replace(weight=weight)

    def sample(self, batch_size: int | None = None) -> Batch:
        """A fresh batch of the size given to `build` unless named."""
        return self.gather(self.noise(batch_size))

    def state_dict(self) -> dict[str, Any]:
        """The random stream as a tensor."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the random stream."""
        self.generator.set_state(state["generator"])
