"""The process of one run of a sweep: `python -m steelyard.trainers.sweep_process ROOT PARENT < config.json`."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

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


def main() -> None:
    """Train the run that stands on the standard input."""
    end_with(int(sys.argv[2]))
    run, root = plain.from_plain(json.load(sys.stdin)), Path(sys.argv[1])
    train_here(run, root, PATIENCE)


if __name__ == "__main__":
    run_script(main)
