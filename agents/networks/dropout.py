"""Dropout whose masks are a function of numbers that are saved: no generator is read within the compiled update."""

import torch
from torch import Tensor, nn

from steelyard.agents.errors import SlotError

WORD = 0xFFFFFFFF
"""Largest 32-bit number. Hashes are computed in int64, where products of a 32-bit number and these factors do not overflow."""


def scrambled(x: Tensor) -> Tensor:
    """A 32-bit hash of each 32-bit number in the int64 tensor `x` (two rounds of xor-shift and multiply, Wellons' constants)."""
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        x = ((x ^ (x >> shift)) * factor) & WORD
    return x ^ (x >> 15)


class Dropout(nn.Module):
    """Sets each number to zero with probability `rate` and scales the others by 1 / (1 - rate) (Srivastava et al. 2014).

    It does so only where it has been given a `key`, which the agent does within the loss of the network that it belongs to (`Agent.evaluate`);
    everywhere else, as when acting or in targets, it is the identity. The key of an update is made of `seed`, which is saved, and
    of the number of steps that the network's optimiser has made, so a resumed run draws the same masks.
    """

    seed: Tensor
    key: Tensor | None

    def __init__(self, rate: float):
        """Raises `SlotError` unless 0 < rate < 1."""
        super().__init__()
        if not 0 < rate < 1:
            raise SlotError(f"dropout is {rate}; give a probability below 1, or 0 for none.")
        self.rate = rate
        self.register_buffer("seed", torch.randint(WORD, ()))
        self.register_buffer("key", None)

    def make_key(self, steps: Tensor) -> Tensor:
        """The key of the update after `steps` steps, an int64 scalar."""
        return scrambled(self.seed ^ scrambled(steps.long()))

    def forward(self, x: Tensor) -> Tensor:
        if self.key is None:
            return x
        number = torch.arange(x.numel(), device=x.device).view(x.shape)
        keep = scrambled(scrambled(number) ^ self.key) >= round(self.rate * (WORD + 1))
        return x * keep * (1 / (1 - self.rate))  # a GPU divides by a number as it multiplies by its inverse, a CPU does not
