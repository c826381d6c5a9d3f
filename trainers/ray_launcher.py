"""Runs of a sweep as Ray tasks."""

import json
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from steelyard.trainers import plain
from steelyard.trainers.cluster import Cluster, first_line
from steelyard.trainers.config import Run
from steelyard.trainers.sweep import Outcome
from steelyard.trainers.sweep_task import STOP, carry_out


class RayLauncher:
    """Launches each run as a task with its resources, on whichever machine has them; a context manager that leaves the cluster.

    Machines find out through a folder below the root, `.sweep_...`, whether they see the root, and whether to stop.
    """

    def __init__(self, cluster: Cluster, root: Path, cpus: float, gpus: float):
        """`cpus` and `gpus`: of each run."""
        self.cluster, self.ray, self.root, self.cpus, self.gpus = cluster, cluster.ray, root.resolve(), cpus, gpus
        self.board = self.root / f".sweep_{uuid.uuid4().hex[:12]}"
        self.board.mkdir(parents=True)
        self.notes: dict[Path, str] = {}
        """Run's folder to the name of the file in which its newest try says where it is."""
        # Ray tries nothing again by itself: `Sweep` does, and knows about checkpoints.
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0, "scheduling_strategy": "SPREAD"}
        self.task = self.ray.remote(**options)(carry_out)

    def launch(self, run: Run) -> Any:
        """Queue a run."""
        place = run.folder(self.root)
        self.notes[place] = uuid.uuid4().hex[:12]
        content = json.dumps(plain.to_plain(run))
        return self.task.remote(content, place, self.root, self.board, self.notes[place], Path.cwd())

    def machine(self, run: Run) -> str | None:
        """Where the run is, or None while it is queued."""
        note = self.board / self.notes[run.folder(self.root)]
        return note.read_text() if note.exists() else None

    def ready(self, answers: Sequence[Any], seconds: float) -> list[Any]:
        """Which of them have ended, waiting at most so long for the first."""
        if not answers:
            return []
        there, others = self.ray.wait(list(answers), num_returns=1, timeout=seconds)
        if there and others:
            there += self.ray.wait(others, num_returns=len(others), timeout=0)[0]
        return there

    def outcome(self, answer: Any) -> Outcome:
        """How it ended."""
        errors = self.ray.exceptions
        try:
            return Outcome(*self.ray.get(answer))
        except errors.RayTaskError as error:
            cause = error.cause if error.cause is not None else error
            return Outcome("failed", f"it could not be started ({type(cause).__name__}: {first_line(cause)})")
        except errors.RayError as error:
            return Outcome("lost", f"its task or its machine was lost ({first_line(error)})")

    def fits(self) -> bool:
        """Whether some machine is large enough for a run."""
        _, cpus, gpus = self.cluster.largest()
        return cpus >= self.cpus and gpus >= self.gpus

    def shortage(self) -> str:
        """What a run needs and what there is."""
        return self.cluster.shortage(self.cpus, self.gpus)

    def stop(self) -> None:
        """Ask all runs to save and end; those that are queued end as soon as they begin."""
        (self.board / STOP).touch()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Whatever is still running ends with its task."""
        self.cluster.close()
        shutil.rmtree(self.board, ignore_errors=True)
