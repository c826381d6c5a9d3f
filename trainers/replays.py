"""Slot `replay` of a run that begins with data: where batches come from once there are new transitions beside it."""

from dataclasses import dataclass

from steelyard.trainers.samplers import MixedSampler, Sampler


@dataclass(frozen=True)
class Together:
    """New transitions are appended to the data, and batches come from all of it (IQL, FamO2O, AWAC, CQL)."""

    one_buffer = True

    def sampler(self, data: Sampler, collected: Sampler) -> Sampler:
        """What draws online batches, from the samplers of the two buffers, which here are one."""
        return collected


@dataclass(frozen=True)
class Mixed:
    """A fixed share of each batch from the data, the rest from new transitions (RLPD, Cal-QL, ReBRAC)."""

    share: float = 0.5
    """Share of each batch that comes from the data."""

    one_buffer = False

    def sampler(self, data: Sampler, collected: Sampler) -> Sampler:
        """What draws online batches, from the samplers of the two buffers."""
        return MixedSampler(data, collected, self.share)


@dataclass(frozen=True)
class Anew:
    """The data is left behind, and batches come from new transitions alone (WSRL)."""

    one_buffer = False

    def sampler(self, data: Sampler, collected: Sampler) -> Sampler:
        """What draws online batches, from the samplers of the two buffers."""
        return collected


Replay = Together | Mixed | Anew
