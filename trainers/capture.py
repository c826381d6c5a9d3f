"""CUDA graphs: one launch from the host instead of one per kernel, for several updates and for what collects."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from steelyard.agents.types import Metrics
from steelyard.envs.stage import uncollected

if TYPE_CHECKING:
    from steelyard.trainers.learner import Learner

WARM_UPS = 3
"""Ordinary runs of a pattern before it is captured: compilation and library set-up must not fall into the capture."""
LONGEST = 16
"""Updates in one graph at most."""


class Captured:
    """A function of tensors as one CUDA graph, captured once it has run a few times.

    What it changes it must change in place, and its results lie in the same memory at every call: use them before the next one.

    Args:
        function: Tensors to a tensor, or to none; no question to the device within.
    """

    def __init__(self, function: Callable[..., Tensor | None]):
        self.function, self.calls = function, 0
        self.stream = torch.cuda.Stream()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: tuple[Tensor, ...] = ()
        self.output: Tensor | None = None

    def __call__(self, *tensors: Tensor) -> Tensor | None:
        """The function's result for these tensors, which are copied to where the graph reads them."""
        self.calls += 1
        if self.calls <= WARM_UPS:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                output = self.function(*tensors)
            torch.cuda.current_stream().wait_stream(self.stream)
            return output
        if self.graph is None:
            self.graph, self.inputs = torch.cuda.CUDAGraph(), tuple(tensor.clone() for tensor in tensors)
            with uncollected(), torch.cuda.graph(self.graph):
                self.output = self.function(*self.inputs)
        for place, tensor in zip(self.inputs, tensors, strict=True):
            place.copy_(tensor)
        self.graph.replay()
        return self.output


def captured(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """The function as a CUDA graph on a GPU, and itself elsewhere."""
    return Captured(function) if device.type == "cuda" else function


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

    def update(self, learner: "Learner", count: int) -> None:
        """`count` updates, at most `LONGEST` per launch; the learner's metrics receive their newest values.

        An update whose batch somebody asks to see is launched alone, after it was shown: what is captured has no place for that.
        """
        agent, sampler = learner.agent, learner.sampler
        done = 0
        while done < count:
            watchers = learner.watching(agent.update_count + 1)
            size = 1 if watchers else self.length(learner, count - done)
            picks = torch.stack([sampler.noise() for _ in range(size)])
            noise = torch.stack([agent.draw(picks.shape[-1]) for _ in range(size)])
            if watchers:
                learner.show(watchers, picks[0], noise[0])
            learner.metrics |= self.launch(tuple(agent.advance() for _ in range(size)), picks, noise)
            agent.intervene()
            done += size

    @staticmethod
    def length(learner: "Learner", most: int) -> int:
        """Updates until targets move at once or somebody asks to see the next one, `LONGEST` and `most` at most."""
        done, period = learner.agent.update_count, learner.agent.target_period
        longest = min(LONGEST, most, period - done % period if period else LONGEST)
        return next((n for n in range(1, longest) if learner.watching(done + 1 + n)), longest)

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
            with uncollected(), torch.cuda.graph(graph):
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
