"""A CSV file that grows by rows and, when a new measurement appears, by columns; a resumed run cuts it back to its checkpoint."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from steelyard.agents.errors import SteelyardError
from steelyard.trainers.durable import named


class TableError(SteelyardError):
    """A CSV file is not a table of the suite's: no header, no `env_steps`, or a damaged row."""


AXES = ("env_steps", "steps")
"""Names of the first column: environment steps, or updates offline plus environment steps in a run that begins with data."""


class Table:
    """Rows of numbers whose first column says where in the run they were measured, each on disk as soon as it is appended."""

    def __init__(self, path: Path):
        """Opens `path`, or starts it.

        A last line that a killed process left half-written is dropped; other damage raises `TableError`.
        """
        self.path = path
        self.columns: list[str] = []
        self.rows: list[list[str]] = []
        self._file: TextIO | None = None
        if path.exists():
            self.columns, self.rows = _read(path)

    def append(self, row: Mapping[str, float | int]) -> None:
        """Adds one row; columns that it lacks stay empty, columns that are new rewrite the file under its longer header."""
        new = [name for name in row if name not in self.columns]
        self.columns += new
        self.rows.append([_text(row[name]) if name in row else "" for name in self.columns])
        if new or self._file is None:
            self._rewrite()
        else:
            # One write of one whole line, so that a kill between two rows never leaves half of one.
            with named(self.path):
                self._file.write(",".join(self.rows[-1]) + "\n")
                self._file.flush()

    def resume(self, env_steps: int) -> None:
        """Drops the rows beyond `env_steps`: the run continues from there and writes them again. Zero starts the table anew.

        A row at exactly `env_steps` stays, because the loop logs first and saves its checkpoint afterwards.
        """
        if not self.columns:
            return
        if env_steps == 0:
            self.columns, self.rows = [], []
        else:
            self.rows = [row for row in self.rows if int(row[0]) <= env_steps]
        self._rewrite()

    def last(self, column: str) -> float | None:
        """The last number in `column`; None if there is none."""
        if column not in self.columns:
            return None
        position = self.columns.index(column)
        return next((float(row[position]) for row in reversed(self.rows) if len(row) > position and row[position]), None)

    def close(self) -> None:
        """Closes the file; a later `append` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rewrite(self) -> None:
        """Replaces the file in one move: a reader, or a crash, sees the old table or the new one, never a part."""
        self.close()
        if not self.columns:
            self.path.unlink(missing_ok=True)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}.part")
        with named(self.path), part.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows([*row, *[""] * (len(self.columns) - len(row))] for row in self.rows)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.path)
        self._file = self.path.open("a", newline="")


def read_columns(path: Path, columns: Sequence[str]) -> dict[str, list[float]]:
    """The named columns of a table as numbers, without the rows in which one of them is empty.

    Raises `TableError` if the file is missing, is no table, or lacks a column.
    """
    if not path.is_file():
        raise TableError(f"{path} does not exist; give the folder of a run that has been evaluated at least once.")
    header, rows = _read(path)
    for name in columns:
        if name not in header:
            raise TableError(f"{path} has no column `{name}`; it has {', '.join(header)}.")
    positions = [header.index(name) for name in columns]
    full = [row for row in rows if all(row[position] for position in positions)]
    return {name: [float(row[position]) for row in full] for name, position in zip(columns, positions, strict=True)}


def _text(value: float | int) -> str:
    # `repr` of a float is the shortest text that reads back as the same float.
    return str(value) if isinstance(value, int) else repr(float(value))


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        text = path.read_text()
    except UnicodeDecodeError as error:
        raise TableError(f"{path} is no text; move the file away or start the run in another folder.") from error
    whole = text[: text.rfind("\n") + 1]
    lines = list(csv.reader(whole.splitlines()))
    if not lines or lines[0][0] not in AXES:
        raise TableError(f"{path} has no header with `env_steps`; move the file away or start the run in another folder.")
    header, rows = lines[0], lines[1:]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header) or not all(_is_number(cell) for cell in row) or not row[0].isdigit():
            raise TableError(f"{path}, line {number} is damaged ({','.join(row)!r}); delete that line and try again.")
    return header, rows


def _is_number(cell: str) -> bool:
    try:
        float(cell or "0")
    except ValueError:
        return False
    return True
