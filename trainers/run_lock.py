"""One process at a time in a run's folder."""

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from steelyard.agents.errors import SteelyardError

LOCK = ".lock"
LOOK = 0.2
"""Seconds between two tries to get the lock."""


class InUseError(SteelyardError):
    """Another process works in the run's folder."""


@contextlib.contextmanager
def alone_in(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold the folder's lock, which the system releases however this process ends.

    Another process is waited for `patience` seconds; `InUseError` if it keeps the lock longer. Where nothing else was written
    meanwhile, the lock and the folders that were made for it are removed again.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    deadline = time.monotonic() + patience
    while (descriptor := _locked(folder)) is None:
        if time.monotonic() >= deadline:
            raise InUseError(
                f"{folder} is in use by another process, which writes the same files; wait for it, stop it, or give this run "
                "another --seed, --preset or --root."
            )
        time.sleep(LOOK)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # somebody may have deleted the folder, or put another run beside it
            if [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                for path in made:
                    path.rmdir()
        os.close(descriptor)


def clear(folder: Path) -> None:
    """Delete everything in the folder but the lock that this process holds."""
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if path.name == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _locked(folder: Path) -> int | None:
    """A descriptor of the folder's locked file; None if another one holds the lock."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # the holder before removed the folder just now
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A lock on a file that has lost its name keeps nobody out.
            if os.fstat(descriptor).st_ino == os.stat(folder / LOCK).st_ino:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                return descriptor  # a file system without locks: there is nothing to wait for
            os.close(descriptor)
            raise
        os.close(descriptor)
