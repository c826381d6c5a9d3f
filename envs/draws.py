"""Random numbers that are the same on every device and beside any number of other worlds."""

import torch
from torch import Tensor


def uniform(key: Tensor, clock: Tensor, count: int) -> Tensor:
    """U[0, 1) [worlds, count] float32 as a hash of two int64 tensors [worlds], so that a world's draws depend on its own seed alone.

    There are 23 bits in a draw, so that its product with a number up to 8 never rounds up to that number.
    """
    column = torch.arange(count, device=key.device)
    bits = (key * 0x27D4EB2F165667C5 + clock * 0x165667B19E3779F9)[:, None] + column * 0x1B873593CC9E2D51 + 0x27220A95
    for _ in range(2):  # multiplications wrap around; the mask makes the shift a logical one
        bits = (bits ^ ((bits >> 31) & 0x1FFFFFFFF)) * 0x3C6EF372FE94F82B
    return ((bits >> 41) & 0x7FFFFF).float() / 2**23


def first_clocks(keys: Tensor, horizon: int) -> Tensor:
    """[worlds] int64: clocks with which the first episodes begin, evenly spread over 0 to `horizon` - 1, so that worlds do not end together."""
    return (uniform(keys, torch.full_like(keys, -1), 1)[:, 0] * horizon).long()
