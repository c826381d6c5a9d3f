"""One measurement in a process of its own: prepared once, then measured in short windows whenever it is asked to.

A process of its own gives each measurement its own number of threads (compilers bake it into their code) and lets others' code
run in another interpreter. The windows of all measurements are interleaved, so that a machine that slows down slows all of them.
This module needs the standard library only.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parents[1]
Subject = Callable[[float], tuple[int, float]]
"""Works for about the given seconds and returns how much it did, and in how many seconds."""


class BenchmarkError(Exception):
    """A measurement could not be prepared; the message is the last line of what its process said."""


def repeat(action: Callable[[], object], amount: int = 1, finish: Callable[[], object] = lambda: None) -> Subject:
    """A subject that calls `action`, each time `amount` of work; `finish` waits for work that is still under way."""

    def subject(seconds: float) -> tuple[int, float]:
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            action()
            count += amount
        finish()
        return count, time.perf_counter() - start

    return subject


def serve(build: Callable[..., Subject]) -> None:
    """What a measuring process does: build the subject from the JSON on its command line, then answer windows on stdin."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers

    def answer(line: dict[str, Any]) -> None:
        print(json.dumps(line), file=answers, flush=True)

    subject = build(**json.loads(sys.argv[1]))
    subject(0.5)
    answer({"ready": True})
    for line in sys.stdin:
        count, seconds = subject(float(line))
        answer({"count": count, "seconds": seconds, "shares": getattr(subject, "shares", {})})


class Worker:
    """The other end: a measuring process.

    Args:
        python: Interpreter to run it in.
        module: Module under `scripts/`, which calls `serve`.
        options: What `serve` builds from; plain data.
        threads: Threads that its libraries may use.
    """

    def __init__(self, python: str, module: str, options: dict[str, Any], threads: int) -> None:
        count = str(threads)
        variables = {
            "OMP_NUM_THREADS": count,
            "MKL_NUM_THREADS": count,
            "PYTHONPATH": os.pathsep.join([str(SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        if options.get("device") != "cuda":  # whose many kernels are compiled at once
            variables["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        # A file and not a pipe, which a library that says much would fill.
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [python, "-m", module, json.dumps(options | {"threads": threads})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
            env=os.environ | variables,
        )
        self.shares: dict[str, float] = {}
        """Share of time that each part of the newest window's work took, where the subject says so."""
        self.answer()

    def measure(self, seconds: float) -> float:
        """Work per second in one window."""
        stdin = self.process.stdin
        assert stdin is not None
        print(seconds, file=stdin, flush=True)
        result = self.answer()
        self.shares = result["shares"]
        return result["count"] / result["seconds"]

    def answer(self) -> dict[str, Any]:
        """The next line that the process says. Raises `BenchmarkError` if it ended instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self.said.seek(0)
            said = self.said.read().strip().splitlines()
            raise BenchmarkError(said[-1] if said else f"the process ended with status {status}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self.said.close()
