"""The sampler slot: which rows of replay to learn from, and with what weight."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from steelyard.agents.random_streams import resume
from steelyard.agents.types import Batch
from steelyard.trainers.buffer import ReplayBuffer, ReplayError

CANDIDATES = 4
"""Draws per row of a batch, of which the first valid one counts: with one row in ten invalid, one batch row in 10^4 has none and
takes another's place. Twice as many would double the cost of choosing."""


class Sampler(Protocol):
    """Draws batches from replay.

    The random numbers come from `noise`; everything after them is tensor arithmetic without a synchronisation, so `gather` can be
    part of one compiled graph whose input is the noise.
    """

    device: torch.device
    """Where batches come to lie."""
    batch_size: int
    """Rows of a batch unless named."""

    def noise(self, batch_size: int | None = None) -> Tensor:
        """Random numbers [CANDIDATES, batch] float64 in [0, 1) for one batch; nothing else advances the random stream."""
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

    def diagnostics(self) -> dict[str, float]:
        """What a log should say of the rows that are drawn; nothing if there is nothing to say."""
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
    rows. If none is valid the batch row repeats another; while replay is empty all have weight zero.
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
        shape = (CANDIDATES, self.batch_size if batch_size is None else batch_size)
        return torch.rand(shape, generator=self.generator, dtype=torch.float64, device=self.buffer.device)

    def select(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Flat addresses [batch] int64 and weights [batch]: one, or zero where none of the batch is a transition."""
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
        return filled_up(index, weight)

    def gather(self, noise: Tensor) -> Batch:
        """The batch that the noise picks, on the buffer's device."""
        index, weight = self.select(noise)
        return self.buffer.gather(index, self.n_step, self.gamma)._replace(weight=weight)

    def sample(self, batch_size: int | None = None) -> Batch:
        """A fresh batch of the size given to `build` unless named."""
        return self.gather(self.noise(batch_size))

    def diagnostics(self) -> dict[str, float]:
        """Nothing."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The random stream as a tensor."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the random stream."""
        resume(self.generator, state["generator"])


def filled_up(index: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Addresses [batch] and weights [batch] in which a row of weight zero repeats the last row before it, around the end, that has a weight.

    Losses take the mean over the batch, so none of its rows may be what is no transition.
    """
    rows = len(index)
    place = torch.arange(2 * rows, device=index.device)
    last = torch.where(weight.repeat(2) > 0, place, 0).cummax(0).values[rows:] % rows
    return index[last], weight[last]


class MixedSampler:
    """Batches of which a fixed share comes from one sampler and the rest from another, such as data and new transitions.

    The rows are interleaved evenly: every piece of a batch that is cut for several updates has the mix as nearly as whole rows allow.
    Both samplers must draw from replay on the same device with the same columns. `index` of a batch row is an address in the replay
    that the row comes from.

    Args:
        first: Draws round(share batch) rows of each batch.
        second: Draws the others.
        share: Between 0 and 1.
        names: What a log calls the two.

    Raises `ReplayError` if the share is out of range or the two devices differ.
    """

    def __init__(self, first: Sampler, second: Sampler, share: float, names: tuple[str, str] = ("offline", "online")):
        if not 0 <= share <= 1:
            raise ReplayError(f"share is {share}; give the share of each batch that the first sampler draws, between 0 and 1.")
        if first.device != second.device:
            raise ReplayError(f"batches cannot be mixed from {first.device} and {second.device}; place replay on one device.")
        self.first, self.second, self.share, self.names = first, second, share, names
        self.device, self.batch_size = first.device, first.batch_size

    def noise(self, batch_size: int | None = None) -> Tensor:
        """Random numbers [CANDIDATES, batch] float64: those of the first sampler's rows, then those of the second's."""
        size = self.batch_size if batch_size is None else batch_size
        own = self.rows_of_first(size)
        return torch.cat((self.first.noise(own), self.second.noise(size - own)), dim=1)

    def select(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Addresses [batch] int64, each in the replay of its row's sampler, and weights [batch]."""
        (index, weight), (other_index, other_weight) = (
            sampler.select(part) for sampler, part in zip((self.first, self.second), self.split(noise), strict=True)
        )
        order = self.order(noise)
        return torch.cat((index, other_index))[order], torch.cat((weight, other_weight))[order]

    def gather(self, noise: Tensor) -> Batch:
        """The batch that the noise picks, interleaved."""
        part, other = self.split(noise)
        order = self.order(noise)
        pairs = zip(self.first.gather(part), self.second.gather(other), strict=True)
        return Batch(*(None if a is None or b is None else torch.cat((a, b))[order] for a, b in pairs))  # pyright: ignore[reportArgumentType]

    def sample(self, batch_size: int | None = None) -> Batch:
        """A fresh batch of the size given to `build` unless named."""
        return self.gather(self.noise(batch_size))

    def rows_of_first(self, batch_size: int) -> int:
        """How many rows of a batch the first sampler draws."""
        return round(self.share * batch_size)

    def split(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The noise of each sampler."""
        own = self.rows_of_first(noise.shape[1])
        return noise[:, :own], noise[:, own:]

    def order(self, noise: Tensor) -> Tensor:
        """Permutation [batch] int64: which row of the two samplers' joined rows comes to lie where."""
        size = noise.shape[1]
        own = self.rows_of_first(size)
        row = torch.arange(size, device=noise.device)
        # Among the first k rows of the batch, floor(k own / size) are the first sampler's.
        before, after = row * own // size, (row + 1) * own // size
        return torch.where(after > before, before, own + row - before)

    def diagnostics(self) -> dict[str, float]:
        """Those of both, as `offline/...` (the first) and `online/...` (the second) unless they have other names."""
        both = dict(zip(self.names, (self.first, self.second), strict=True))
        return {f"{name}/{key}": value for name, sampler in both.items() for key, value in sampler.diagnostics().items()}

    def state_dict(self) -> dict[str, Any]:
        """Both samplers' states."""
        return {"first": self.first.state_dict(), "second": self.second.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue both."""
        self.first.load_state_dict(state["first"])
        self.second.load_state_dict(state["second"])
