"""What runs on a machine of a cluster for one run of a sweep: a process that trains, and who watches it. Only the former needs torch."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Literal, NamedTuple

LOOK = 1.0
"""Seconds between two looks at whether the sweep is to stop."""
SAVING = 300.0
"""Seconds that a run may take to save when it is asked to stop."""
STOP = "stop"
"""File on the sweep's board that asks all runs to save and end."""
LOG = "output.log"
"""File in a run's folder that takes what it prints."""


class Outcome(NamedTuple):
    """How a try ended."""

    kind: Literal["finished", "stopped", "refused", "failed", "lost"]
    """`refused`: the run said in one sentence why it cannot go on, and would say so again; `failed`: it died; `lost`: its machine did."""
    words: str = ""
    """Why, without a full stop."""


def carry_out(run: str, place: Path, root: Path, board: Path, note: str, folder: Path) -> Outcome:
    """Train one run to its end in a process of its own.

    The process cannot harm others, whatever it does, and what it prints goes to `output.log` of the run's folder.

    Args:
        run: The configuration as JSON.
        place: The run's folder.
        root: Folder below which it lies, on a file system that the sweep sees too.
        board: Folder of the sweep: `note` in it says which machine this is, and a file `stop` in it ends the run.
        note: Name of a file.
        folder: Working directory, if there is such a folder here.
    """
    machine = socket.gethostname()
    if not board.is_dir():
        return Outcome("refused", f"{machine} does not see {root}; put --root on a file system that all machines share")
    if (board / STOP).exists():
        return Outcome("stopped")
    place.mkdir(parents=True, exist_ok=True)
    (board / note).write_text(machine)
    with (place / LOG).open("ab") as log:
        begin = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            [sys.executable, "-m", "steelyard.trainers.sweep_process", str(root), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            text=True,
            cwd=folder if folder.is_dir() else None,
        )
        stopped = attend(process, run, board / STOP)
    with (place / LOG).open("rb") as log:
        log.seek(begin)
        return judge(process.wait(), log.read().decode(errors="replace"), stopped)


def attend(process: "subprocess.Popen[str]", run: str, stop: Path) -> bool:
    """Hand the process its configuration and wait for its end; whether it was asked to stop. It ends with whoever waits."""
    asked = False
    try:
        assert process.stdin is not None
        try:
            process.stdin.write(run)
            process.stdin.close()
        except BrokenPipeError:
            pass  # It is dead already, and its exit status says more.
        while True:
            try:
                process.wait(SAVING if asked else LOOK)
                return asked
            except subprocess.TimeoutExpired:
                if asked:
                    process.kill()
                elif stop.exists():
                    process.terminate()
                    asked = True
    finally:
        if process.poll() is None:
            process.terminate()


def judge(status: int, printed: str, stopped: bool) -> Outcome:
    """The outcome of a process that ended with an exit status and printed something."""
    if status == 0:
        return Outcome("finished")
    if stopped:
        return Outcome("stopped")
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if status > 0 and said:
        return Outcome("refused", said[-1].rstrip("."))
    if status < 0:
        return Outcome("failed", f"it was ended by {signal.Signals(-status).name}")
    last = f" ({lines[-1].rstrip('.')})" if lines else ""
    return Outcome("failed", f"it ended with status {status}{last}")
