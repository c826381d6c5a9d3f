"""The process of one run of a sweep: `python -m steelyard.trainers.sweep_process ROOT PARENT < config.json`."""

import contextlib
import errno
import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from steelyard.agents.errors import SteelyardError
from steelyard.trainers import plain
from steelyard.trainers.errors import run_script
from steelyard.trainers.run_folders import train_here

LOOK = 0.5
"""Seconds between two looks at whether the parent lives."""
PATIENCE = 60.0
"""Seconds to wait for another process to leave the run's folder."""


def end_with(parent: int) -> None:
    """From now on, save and end when the process `parent` is gone: the run is then continued elsewhere, and must not go on twice."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system releases however this process ends. Raises `SteelyardError` if another one keeps it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise SteelyardError(f"{folder} is in use by another process; stop that one, or wait for it.") from None
                time.sleep(LOOK)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                break  # A file system without locks: there is nothing to wait for.
        yield


def main() -> None:
    """Train the run that stands on the standard input."""
    end_with(int(sys.argv[2]))
    run, root = plain.from_plain(json.load(sys.stdin)), Path(sys.argv[1])
    with alone_in(run.folder(root)):
        train_here(run, root)


if __name__ == "__main__":
    run_script(main)
