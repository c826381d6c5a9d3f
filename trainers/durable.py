"""Writing that survives a power cut: every file and folder is flushed to the disk before its name counts."""

import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def write_file(path: Path, chunks: Iterable[bytes | memoryview]) -> int:
    """Write the chunks one after the other to `path`, flush the file to the disk, and return the CRC-32 of its bytes.

    Raises `OSError` (no space, no permission); the half-written file is then the caller's to remove.
    """
    checksum = 0
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
            checksum = zlib.crc32(chunk, checksum)
        file.flush()
        os.fsync(file.fileno())
    return checksum


@contextmanager
def named(path: Path) -> Iterator[None]:
    """An `OSError` within says which file it is about: the system names it where one is opened, not where one is written."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def replace_file(path: Path, content: bytes) -> None:
    """Write a small file in one move: a reader, a kill or a full disk meets the old content or the new, never a part.

    Raises `OSError` that names the file.
    """
    part = path.with_name(f".{path.name}.part")
    with named(path):
        try:
            write_file(part, [content])
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk: a rename or a new file is not lasting before this."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
