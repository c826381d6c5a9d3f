"""Weights that one process publishes and others read, through shared memory and without a lock."""

from collections.abc import Mapping

import torch
from torch import Tensor


class SharedWeights:
    """One flat shared tensor per dtype (float64 statistics stay exact) and a version: odd while the one writer is writing.

    A reader copies everything and then looks whether the version is still the one that it began with. Picklable for `spawn`.
    """

    def __init__(self, state: Mapping[str, Tensor]):
        """Lay out the entries of `state` (a module's `state_dict()`) and publish them as version 2."""
        self.shapes = {name: tensor.shape for name, tensor in state.items()}
        self.names: dict[torch.dtype, list[str]] = {}
        for name, tensor in state.items():
            self.names.setdefault(tensor.dtype, []).append(name)
        self.flat = {dtype: _joined(state, names).cpu().share_memory_() for dtype, names in self.names.items()}
        self.version = torch.tensor([2]).share_memory_()

    def publish(self, state: Mapping[str, Tensor]) -> None:
        """Write new values of the same entries, from any device. Raises `KeyError` if one is missing."""
        fresh = {dtype: _joined(state, names).cpu() for dtype, names in self.names.items()}
        self.version += 1
        for dtype, flat in self.flat.items():
            flat.copy_(fresh[dtype])
        self.version += 1

    def newer(self, known: int) -> tuple[int, dict[str, Tensor]] | None:
        """Version and values if a version newer than `known` can be read now; None if not, or if the writer is at it."""
        version = int(self.version)
        if version == known or version % 2:
            return None
        copies = {dtype: flat.clone() for dtype, flat in self.flat.items()}
        if int(self.version) != version:
            return None
        state: dict[str, Tensor] = {}
        for dtype, names in self.names.items():
            pieces = copies[dtype].split([self.shapes[name].numel() for name in names])
            state |= {name: piece.view(self.shapes[name]) for name, piece in zip(names, pieces, strict=True)}
        return version, state


def _joined(state: Mapping[str, Tensor], names: list[str]) -> Tensor:
    return torch.cat([state[name].detach().reshape(-1) for name in names])
