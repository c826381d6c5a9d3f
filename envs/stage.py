"""Work on a device that is launched as one graph."""

import contextlib
import gc
from collections.abc import Callable, Iterator

import torch

WARM_UP = 3
"""Runs before a graph is captured, as torch asks for."""


class Stage:
    """A function without arguments that reads and writes tensors that stay where they are; on a GPU, one CUDA graph of it.

    It is captured by the first call, after some runs that count as calls, so `work` must bear to be repeated.
    """

    def __init__(self, work: Callable[[], None], device: torch.device):
        self._work, self._device = work, device
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Do the work, or have the device do it when it comes to it."""
        if self._device.type != "cuda":
            self._work()
            return
        if self._graph is None:
            self._graph = self._capture()
        self._graph.replay()

    def _capture(self) -> torch.cuda.CUDAGraph:
        current, side = torch.cuda.current_stream(self._device), torch.cuda.Stream(self._device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._work()
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with uncollected(), torch.cuda.graph(graph, stream=side):
            self._work()
        return graph


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Context without garbage collection: graphs, streams and memory of what is gone are released before it, not while another graph is captured."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
