"""Random streams that go on from a checkpoint."""

import torch
from torch import Tensor

SIZES = {"cpu": 5056, "cuda": 16}
"""Bytes of a generator's state."""


def resume(generator: torch.Generator, state: Tensor) -> None:
    """Continue the stream where `state` says, a result of `get_state`, wherever that tensor lies.

    A state of another kind of device cannot be taken over and is left alone: this device has other numbers anyhow, and goes on from its
    seed. Raises `RuntimeError` for what is no state.
    """
    if state.numel() in [size for kind, size in SIZES.items() if kind != generator.device.type]:
        return
    generator.set_state(state.cpu())
