"""Sampling and update as one step: one compiled graph, and on a GPU one CUDA graph of several steps."""

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from steelyard.agents.acting import ActingAgent
from steelyard.agents.errors import DivergenceError
from steelyard.agents.parts.part import Watcher
from steelyard.agents.types import Batch, Metrics
from steelyard.trainers.capture import Launches
from steelyard.trainers.samplers import Sampler
from steelyard.trainers.staging import Staging


class Learner:
    """Draws batches and updates the agent with them.

    The random numbers are drawn outside the graph, from the sampler's and the agent's own streams; picking rows, gathering them and all of
    the update are inside. Where replay lies in host memory and the agent on a GPU, the gathered batch travels between the two,
    through pinned memory and without the host waiting (`staging.py`).

    Args:
        agent: Who learns.
        sampler: Where batches come from.
        folder: Where a batch that made a loss diverge is saved.
    """

    def __init__(self, agent: ActingAgent, sampler: Sampler, folder: Path):
        self.agent, self.sampler, self.folder = agent, sampler, folder
        self.together = sampler.device == agent.device
        self.staging = Staging(agent.device) if agent.device.type == "cuda" and sampler.device.type == "cpu" else None
        self.run = agent.compiled_for_batches(self.apply)
        self.launches = Launches(self.run) if self.together and agent.device.type == "cuda" else None
        self.looks = agent.device.type == "cpu"
        """Whether every update is checked for losses that are not finite, which waits for them, or `check` is left to the caller."""
        self.watchers: tuple[Watcher, ...] = ()
        """What sees the batches of some updates, beside the agent's own slots."""
        self.metrics: Metrics = {}
        """The newest value of every metric; losses that are delayed keep their last one."""

    def apply(self, due: tuple[str, ...], rows: Tensor | Batch, noise: Tensor) -> Metrics:
        """One update of what is due with the rows that random numbers pick, or with a batch that was gathered before."""
        batch = self.sampler.gather(rows) if isinstance(rows, Tensor) else rows
        return self.agent.apply_update(due, batch, noise)

    def update(self, count: int) -> None:
        """`count` updates. On a CPU every one of them is checked for losses that are not finite, on a GPU `check` is left to the caller.

        Raises `DivergenceError`, after saving the batch, if one is not.
        """
        if self.launches:
            self.launches.update(cast(Any, self), count)
            return
        for _ in range(count):
            picks = self.sampler.noise()
            noise = self.agent.draw(picks.shape[-1])
            if watchers := self.watching(self.agent.update_count + 1):
                self.show(watchers, picks, noise)
            due = self.agent.advance()
            rows = picks if self.together else self.transfer(self.sampler.gather(picks))
            self.metrics |= self.run(due, rows, noise)
            if self.looks:
                self.check(picks)
            self.agent.intervene()

    def watching(self, update: int) -> list[Watcher]:
        """Who asks to see the batch of update number `update`."""
        return [watcher for watcher in (*self.agent.parts(), *self.watchers) if watcher.watches(update)]

    def show(self, watchers: list[Watcher], picks: Tensor, noise: Tensor) -> None:
        """Let them see, as the losses will, the batch that the random numbers pick; it is gathered for them alone."""
        with torch.no_grad():
            self.agent.show(watchers, self.transfer(self.sampler.gather(picks)), noise)

    def transfer(self, batch: Batch) -> Batch:
        """The batch on the agent's device."""
        if self.staging:
            return self.staging.move(batch)
        columns = {name: column.to(self.agent.device) for name, column in batch._asdict().items() if column is not None}
        return batch._replace(**columns)

    def check(self, picks: Tensor | None = None) -> None:
        """Raises `DivergenceError` if a loss is not finite; the batch that `picks` selects is saved first."""
        name = self.agent.check(self.metrics) if self.metrics else None
        if name is None:
            return
        saved = ""
        if picks is not None:
            path = self.folder / "diverged_batch.pt"
            torch.save(self.sampler.gather(picks)._asdict(), path)
            saved = f" (its batch is in {path})"
        raise DivergenceError(
            f"{name} is {float(self.metrics[name])} at update {self.agent.update_count}{saved}: look at that batch or lower "
            "agent.optimizer.learning_rate; the last checkpoint is as it was."
        )
