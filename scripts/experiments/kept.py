"""Numbers that took long to compute, kept on disk so that an interrupted experiment goes on where it was."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def kept(path: Path, settings: object, compute: Callable[[], Array]) -> Array:
    """What lies at `path` (.npz) if it was computed with these settings, told by their `repr`; else what `compute` returns, then kept there.

    A line on standard error names either, since minutes pass between two of them.
    """
    name = f"{path.parent.name}/{path.stem}"
    if path.exists():
        with np.load(path) as file:
            if str(file["settings"]) == repr(settings):
                print(f"{name}: kept from an earlier launch", file=sys.stderr, flush=True)
                return file["values"]
    began = time.monotonic()
    values = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part.{path.name}")
    np.savez(part, settings=repr(settings), values=values)
    os.replace(part, path)
    print(f"{name}: computed in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return values
