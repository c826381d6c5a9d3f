"""CUDA graphs in the small, on the CPU: what is captured is not done but written down, operation by operation, and replayed on the same memory.

What a real graph freezes is frozen here too: addresses, who multiplies matrices, and every number that Python worked out on the way. So code
that goes on right when it is replayed here does not depend on anything that a GPU's graph would miss. Streams, and what a GPU refuses to capture,
are not emulated.
"""

from contextlib import nullcontext
from typing import Any, Self

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from steelyard.agents.float32_products import MATMUL


class Graph:
    """Operations with the tensors that they read and write."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any, bool]] = []
        self.replays = 0
        self.products = "none"

    @torch.no_grad()
    def replay(self) -> None:
        """Do them again, into the same memory."""
        self.replays += 1
        before, MATMUL.fp32_precision = MATMUL.fp32_precision, self.products
        for function, args, kwargs, result, writes in self.calls:
            again = function(*args, **kwargs)
            if not writes:
                for place, value in zip(tensors(result), tensors(again), strict=True):
                    place.copy_(value)
        MATMUL.fp32_precision = before


class Capture(TorchDispatchMode):
    """Writes operations down, and takes back what they did to memory that was there before."""

    def __init__(self, graph: Graph, stream: object = None):
        super().__init__()
        del stream
        self.graph, self.before = graph, dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]]()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = {**dict(zip((a.name for a in function._schema.arguments), args, strict=False)), **kwargs}
        changed = [given.get(a.name) for a in function._schema.arguments if a.alias_info and a.alias_info.is_write]
        for tensor in tensors(changed):
            storage = tensor.untyped_storage()
            self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        self.graph.products = MATMUL.fp32_precision
        result = function(*args, **kwargs)
        known = {tensor.untyped_storage().data_ptr() for tensor in tensors((args, kwargs))}
        shared = all(tensor.untyped_storage().data_ptr() in known for tensor in tensors(result))
        if changed or not shared:  # a view needs no replay: it shows what it is a view of
            self.graph.calls.append((function, args, kwargs, result, bool(changed)))
        return result

    def __enter__(self) -> Self:
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for storage, copy in self.before.values():
            storage.copy_(copy)


class Stream:
    """A queue that is always empty."""

    def __init__(self, device: object = None):
        del device

    def wait_stream(self, other: object) -> None:
        """Nothing to wait for."""


def tensors(tree: Any) -> list[Tensor]:
    """All tensors in a tree."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def emulate(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """Puts the emulation in the place of torch's graphs and streams. Returns the graphs that are made from now on."""
    made: list[Graph] = []

    def graph() -> Graph:
        made.append(Graph())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", graph)
    monkeypatch.setattr(torch.cuda, "graph", Capture)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    return made
