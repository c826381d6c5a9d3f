"""Samplers of imagined transitions, and how they come together with real ones: a fixed share of each batch, or a coin for each batch."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from steelyard.agents.types import Batch
from steelyard.trainers.buffer import ReplayBuffer, ReplayError
from steelyard.trainers.samplers import MixedSampler, Sampler, UniformSampler


def recent(buffer: ReplayBuffer, rows: int) -> Tensor:
    """Flat addresses [n] int64, ascending, of the transitions among the newest `rows` rows of each column."""
    time = torch.arange(buffer.rows, device=buffer.device)[:, None]
    age = (buffer.cursors - 1 - time) % buffer.rows
    newest = age < buffer.filled().clamp(max=rows)
    return ((buffer.valid > 0) & newest.flatten()).nonzero().squeeze(-1)


class RolloutSampler(UniformSampler):
    """Exactly uniform over the transitions among the newest rows, by a table of their addresses.

    Imagined replay has a row that is no transition behind every rollout, and rows of rollouts that ended: too many to draw past. The table has
    a fixed size and is rewritten in place, so that a compiled or captured graph stays right.
    """

    def __init__(self, buffer: ReplayBuffer, batch_size: int, n_step: int, gamma: float, seed: int):
        super().__init__(buffer, batch_size, n_step, gamma, seed)
        self.addresses = torch.zeros(buffer.rows * buffer.num_envs, dtype=torch.int64, device=buffer.device)
        self.count = torch.zeros((), dtype=torch.int64, device=buffer.device)
        """Transitions that are drawn from."""

    def refresh(self, rows: int) -> None:
        """Draw from the newest `rows` rows of each column, as they are now."""
        found = recent(self.buffer, rows)
        self.addresses[: len(found)] = found
        self.count.fill_(len(found))

    def select(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Flat addresses [batch] and weights [batch], which are zero while there is nothing."""
        place = (noise[0] * self.count).long()
        weight = (self.count > 0).float().expand(noise.shape[1])
        return self.addresses.index_select(0, place), weight.contiguous()


class CoinSampler:
    """Batches that come as a whole from one of two samplers, by a coin.

    Both are asked for every batch, and one of the two is taken, because a compiled graph cannot ask first.

    Args:
        first: The one of real transitions.
        second: The one of imagined transitions.

    Raises `ReplayError` if their devices differ.
    """

    def __init__(self, first: Sampler, second: UniformSampler | Sampler):
        if first.device != second.device:
            raise ReplayError(f"batches cannot be mixed from {first.device} and {second.device}; place replay on one device.")
        self.first, self.second = first, second
        self.device, self.batch_size = first.device, first.batch_size
        self.probability = torch.zeros((), dtype=torch.float64, device=first.device)
        """Of a batch of the second sampler."""

    def noise(self, batch_size: int | None = None) -> Tensor:
        """Random numbers [2 CANDIDATES, batch] float64: those of the first sampler, then those of the second, whose last row is the coin's."""
        size = self.batch_size if batch_size is None else batch_size
        return torch.cat((self.first.noise(size), self.second.noise(size)))

    def imagined(self, noise: Tensor) -> Tensor:
        """Scalar bool: what the coin says."""
        return noise[-1, 0] < self.probability

    def select(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Addresses [batch] in the replay that the coin chose, and weights [batch]."""
        pairs = zip(*(s.select(part) for s, part in zip((self.first, self.second), noise.chunk(2), strict=True)), strict=True)
        index, weight = (torch.where(self.imagined(noise), b, a) for a, b in pairs)
        return index, weight

    def gather(self, noise: Tensor) -> Batch:
        """The batch that the noise picks."""
        real, imagined = (s.gather(part) for s, part in zip((self.first, self.second), noise.chunk(2), strict=True))
        choice = self.imagined(noise)
        pairs = zip(real, imagined, strict=True)
        return Batch(*(None if a is None or b is None else torch.where(choice, b, a) for a, b in pairs))  # pyright: ignore[reportArgumentType]

    def sample(self, batch_size: int | None = None) -> Batch:
        """A fresh batch of the size given to `build` unless named."""
        return self.gather(self.noise(batch_size))

    def diagnostics(self) -> dict[str, float]:
        """Those of both, as `real/...` and `imagined/...`."""
        both = {"real": self.first, "imagined": self.second}
        return {f"{name}/{key}": value for name, sampler in both.items() for key, value in sampler.diagnostics().items()}

    def state_dict(self) -> dict[str, Any]:
        """Both samplers' states; the coin follows from the epoch."""
        return {"first": self.first.state_dict(), "second": self.second.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue both."""
        self.first.load_state_dict(state["first"])
        self.second.load_state_dict(state["second"])


@dataclass(frozen=True)
class Ramp:
    """A number that grows linearly from one epoch to another and is constant before and after."""

    low: float = 1.0
    """Its value up to epoch `start`."""
    high: float = 1.0
    """Its value from epoch `end` on."""
    start: int = 20
    """Epoch in which it begins to grow; the first one is 1."""
    end: int = 150
    """Epoch in which it is full-grown."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.start <= self.end):
            raise ReplayError(
                f"a ramp goes from {self.low} in epoch {self.start} to {self.high} in epoch {self.end}; give finite numbers, and an end "
                "that is not before the start."
            )

    def __call__(self, epoch: int) -> float:
        """The value in an epoch."""
        share = (epoch - self.start) / max(self.end - self.start, 1)
        return self.low + (self.high - self.low) * min(max(share, 0.0), 1.0)


@dataclass(frozen=True)
class RealShare:
    """A fixed share of each batch is real (MBPO: 0.05)."""

    share: float = 0.05
    """Real rows in each batch."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ReplayError(f"the share of real rows in a batch is {self.share}; give a number from 0 to 1.")

    def mixed(self, real: Sampler, imagined: Sampler) -> Sampler:
        """The sampler of both."""
        return MixedSampler(real, imagined, self.share, ("real", "imagined"))

    def begin_epoch(self, sampler: Sampler, epoch: int) -> float:
        """The share of real rows."""
        del sampler, epoch
        return self.share


@dataclass(frozen=True)
class Coin:
    """A coin decides for each whole batch whether it is imagined (VaGraM)."""

    probability: Ramp = field(default_factory=lambda: Ramp(0.0, 0.95, 0, 20))
    """Probability of an imagined batch."""

    def __post_init__(self) -> None:
        low, high = self.probability.low, self.probability.high
        if not (0 <= low <= 1 and 0 <= high <= 1):
            raise ReplayError(f"the probability of an imagined batch goes from {low} to {high}; give numbers from 0 to 1.")

    def mixed(self, real: Sampler, imagined: Sampler) -> Sampler:
        """The sampler of both."""
        return CoinSampler(real, imagined)

    def begin_epoch(self, sampler: Sampler, epoch: int) -> float:
        """Sets the coin for an epoch; the share of real batches."""
        probability = self.probability(epoch)
        if isinstance(sampler, CoinSampler):
            sampler.probability.fill_(probability)
        return 1 - probability
