"""Several updates as one CUDA graph: one launch from the host instead of one per kernel."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from steelyard.agents.acting import ActingAgent
from steelyard.agents.types import Metrics
from steelyard.trainers.samplers import Sampler

WARM_UPS = 3
"""Ordinary runs of a pattern before it is captured: compilation and library set-up must not fall into the capture."""
LONGEST = 16
"""Updates in one graph at most."""


@dataclass(frozen=True)
class Launch:
    """A captured graph with its fixed inputs and outputs."""

    graph: torch.cuda.CUDAGraph
    picks: Tensor
    noise: Tensor
    metrics: Metrics


class Launches:
    """Runs updates through captured graphs, one per pattern of what is due (a delayed policy makes several).

    Args:
        run: One update: (due, picks, noise) -> metrics.
    """

    def __init__(self, run: Callable[..., Metrics]):
        self.run = run
        self.runs: Counter[tuple[tuple[str, ...], ...]] = Counter()
        self.captured: dict[tuple[tuple[str, ...], ...], Launch] = {}
        self.stream = torch.cuda.Stream()

    def update(self, agent: ActingAgent, sampler: Sampler, count: int, metrics: Metrics) -> None:
        """`count` updates, at most `LONGEST` per launch; `metrics` receives their newest values."""
        for start in range(0, count, LONGEST):
            size = min(LONGEST, count - start)
            pattern = tuple(agent.advance() for _ in range(size))
            picks = torch.stack([sampler.noise() for _ in range(size)])
            noise = torch.stack([agent.draw(picks.shape[-1]) for _ in range(size)])
            metrics |= self.launch(pattern, picks, noise)
            agent.intervene()

    def launch(self, pattern: tuple[tuple[str, ...], ...], picks: Tensor, noise: Tensor) -> Metrics:
        """The updates of a pattern with the random numbers of each, captured once the pattern has warmed up."""
        self.runs[pattern] += 1
        if self.runs[pattern] <= WARM_UPS:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                metrics = self.sequence(pattern, picks, noise)
            torch.cuda.current_stream().wait_stream(self.stream)
            return metrics
        if pattern not in self.captured:
            graph, inputs = torch.cuda.CUDAGraph(), (picks.clone(), noise.clone())
            with torch.cuda.graph(graph):
                outputs = self.sequence(pattern, *inputs)
            self.captured[pattern] = Launch(graph, *inputs, outputs)
        launch = self.captured[pattern]
        launch.picks.copy_(picks)
        launch.noise.copy_(noise)
        launch.graph.replay()
        return {name: value.clone() for name, value in launch.metrics.items()}

    def sequence(self, pattern: tuple[tuple[str, ...], ...], picks: Tensor, noise: Tensor) -> Metrics:
        """One update after another; the newest metrics of all."""
        metrics: Metrics = {}
        for number, due in enumerate(pattern):
            metrics |= self.run(due, picks[number], noise[number])
        return metrics
