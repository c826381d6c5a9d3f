"""Where a run's numbers go: CSV always, and the back ends that were asked for."""

import importlib
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from steelyard.agents.errors import SteelyardError
from steelyard.trainers.durable import named
from steelyard.trainers.provenance import record_launch
from steelyard.trainers.tables import Table


class LogError(SteelyardError):
    """A logging back end cannot be used; the message says what to install or to change."""


class Writer(Protocol):
    """An open back end."""

    def write(self, env_steps: int, values: Mapping[str, float]) -> None:
        """Records named numbers at a point of the run."""
        ...

    def close(self) -> None:
        """Writes what is still in memory and lets go."""
        ...


class Backend(Protocol):
    """A back end's settings: a frozen dataclass that opens a writer."""

    def open(self, folder: Path, env_steps: int) -> Writer:
        """A writer for the run in `folder`, which starts or resumes at `env_steps`; what it once wrote beyond them is void."""
        ...


@dataclass(frozen=True)
class TensorBoard:
    """Event files in the run's folder `tb/`, for `tensorboard --logdir runs`."""

    flush_seconds: int = 30
    """Seconds after which values reach the disk. CSV rows do at once."""

    def open(self, folder: Path, env_steps: int) -> Writer:
        """Starts a new event file that tells TensorBoard to forget what earlier ones hold beyond `env_steps`."""
        return _TensorBoardWriter(folder / "tb", env_steps, self.flush_seconds)


@dataclass(frozen=True)
class WeightsAndBiases:
    """A run on Weights & Biases. Needs the extra `wandb`."""

    project: str = "steelyard"
    """Project that the run belongs to."""
    entity: str | None = None
    """User or team; None for the account's default."""
    mode: Literal["online", "offline"] = "online"
    """Send values at once, or keep them on disk for `wandb sync`."""

    def open(self, folder: Path, env_steps: int) -> Writer:
        """Starts the run, or continues it: its id is kept in the folder. Raises `LogError` if the package is missing."""
        return _WeightsAndBiasesWriter(folder, env_steps, self)


class Logs:
    """Writes `train.csv` and `eval.csv` of a run folder, the same numbers to every back end, and `run.json`.

    Each row begins with `env_steps` (raw environment steps), `updates` (gradient updates) and `seconds` (time spent training,
    earlier launches included). Save a checkpoint *after* logging: `resume` keeps the rows up to the checkpoint's `env_steps`,
    that one included.
    """

    def __init__(self, folder: Path, backends: Sequence[Backend] = (TensorBoard(),), axis: str = "env_steps"):
        """Opens the tables of `folder`, which is made if need be. Nothing is written before `resume` or the first row.

        `axis` is the name of the first column: "steps" where a run counts updates offline before environment steps.
        """
        self.folder, self.axis = Path(folder), axis
        self.folder.mkdir(parents=True, exist_ok=True)
        self.backends = tuple(backends)
        self._train = Table(self.folder / "train.csv")
        self._eval = Table(self.folder / "eval.csv")
        self._writers: list[Writer] | None = None
        self._started = time.monotonic()
        self._seconds_before = 0.0
        self._previous: tuple[float, int, int] | None = None

    def resume(self, env_steps: int) -> None:
        """Makes the logs those of a run that stands at `env_steps`, once, before the first row: zero starts anew.

        Rows beyond `env_steps` are dropped from the CSV files and voided in the back ends, so that no curve has a point twice;
        the clock goes on from the last row that stays.
        """
        for table in (self._train, self._eval):
            table.resume(env_steps)
        self._seconds_before = max(self._train.last("seconds") or 0.0, self._eval.last("seconds") or 0.0)
        self._open(env_steps)

    def train(self, env_steps: int, updates: int, metrics: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Writes one row of `train.csv`, the rates since the previous one included, and returns the numbers.

        This is where scalar tensors are read, and so the only place that waits for the device.
        """
        now = time.monotonic()
        values = read(metrics)
        if self._previous is not None and now > self._previous[0]:
            seconds = now - self._previous[0]
            values["time/env_steps_per_second"] = (env_steps - self._previous[1]) / seconds
            values["time/updates_per_second"] = (updates - self._previous[2]) / seconds
        self._previous = (now, env_steps, updates)
        self._write(self._train, env_steps, updates, values)
        return values

    def evaluation(self, env_steps: int, updates: int, metrics: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Writes one row of `eval.csv` (`Scores.metrics()`) and returns the numbers."""
        values = read(metrics)
        self._write(self._eval, env_steps, updates, values)
        return values

    @property
    def seconds(self) -> float:
        """Seconds spent on this run, earlier launches included."""
        return self._seconds_before + time.monotonic() - self._started

    def close(self) -> None:
        """Closes the files and the back ends."""
        for table in (self._train, self._eval):
            table.close()
        for writer in self._writers or []:
            writer.close()
        self._writers = None

    def _open(self, env_steps: int) -> list[Writer]:
        self._started = time.monotonic()
        self._writers = [backend.open(self.folder, env_steps) for backend in self.backends]
        record_launch(self.folder, env_steps)
        return self._writers

    def _write(self, table: Table, env_steps: int, updates: int, values: dict[str, float]) -> None:
        writers = self._open(0) if self._writers is None else self._writers
        table.append({self.axis: env_steps, "updates": updates, "seconds": round(self.seconds, 3), **values})
        for writer in writers:
            writer.write(env_steps, values)


def read(metrics: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Numbers from scalar tensors. Raises `LogError` for a tensor with more than one element."""
    for name, value in metrics.items():
        if isinstance(value, Tensor) and value.numel() != 1:
            raise LogError(f"metric `{name}` has the shape {tuple(value.shape)}; log its mean or another scalar.")
    return {name: float(value.item()) if isinstance(value, Tensor) else value for name, value in metrics.items()}


class _TensorBoardWriter:
    def __init__(self, folder: Path, env_steps: int, flush_seconds: int):
        # Imported here: it takes a second, which a run without it should not pay.
        from torch.utils.tensorboard.writer import SummaryWriter

        # The purge is inclusive; the values at exactly `env_steps` stay, as they do in the CSV files.
        purge = env_steps + 1 if env_steps else 0
        self.folder = folder
        self.hook = _WithoutTracebacks()
        try:
            with named(folder):
                self.writer = SummaryWriter(str(folder), purge_step=purge, flush_secs=flush_seconds)
        except OSError:
            self.hook.remove()
            raise

    def write(self, env_steps: int, values: Mapping[str, float]) -> None:
        with named(self.folder):
            for name, value in values.items():
                self.writer.add_scalar(name, value, env_steps)

    def close(self) -> None:
        try:
            with named(self.folder):
                self.writer.close()
        finally:
            self.hook.remove()


class _WithoutTracebacks:
    """While it is there, a thread of TensorBoard that cannot write (a full disk) prints no traceback: the next `write` or `close` raises."""

    def __init__(self) -> None:
        self.before = threading.excepthook
        self.own = self.show  # kept, because each look at a method makes another object
        threading.excepthook = self.own

    def show(self, failure: threading.ExceptHookArgs) -> None:
        """What Python calls for an exception that ends a thread."""
        if not (isinstance(failure.exc_value, OSError) and type(failure.thread).__module__.startswith("tensorboard.")):
            self.before(failure)

    def remove(self) -> None:
        """Put back what was there, unless somebody else has put something in place since."""
        if threading.excepthook is self.own:
            threading.excepthook = self.before


class _WeightsAndBiasesWriter:
    def __init__(self, folder: Path, env_steps: int, config: WeightsAndBiases):
        try:
            wandb: Any = importlib.import_module("wandb")
        except ModuleNotFoundError:
            raise LogError(
                "Weights & Biases is not installed; run `pip install 'steelyard[wandb]'` or drop it from the back ends."
            ) from None
        identity = folder / "wandb_id.txt"
        if env_steps == 0 or not identity.exists():
            identity.write_text(secrets.token_hex(8))
        name = "/".join(folder.resolve().parts[-3:])
        self.run = wandb.init(
            project=config.project,
            entity=config.entity,
            mode=config.mode,
            dir=str(folder),
            name=name,
            id=identity.read_text(),
            resume="allow",
        )
        # The axis is a logged value: its own step counter only grows, and would refuse what a resumed run writes again.
        self.run.define_metric("*", step_metric="env_steps")

    def write(self, env_steps: int, values: Mapping[str, float]) -> None:
        self.run.log({"env_steps": env_steps, **values})

    def close(self) -> None:
        self.run.finish()
