"""Runs beside each other: one that fails is named and stops no other, and none outlives what began it."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from steelyard.agents.agent import Execution
from steelyard.agents.networks import MLP
from steelyard.agents.td3 import TD3
from steelyard.trainers.config import Run

SCRIPTS = Path(__file__).parents[2] / "scripts"
TINY = Run(
    "probe",
    TD3(actor=MLP((8,)), critic=MLP((8,)), batch_size=8),
    "tiny",
    env_steps=60,
    random_steps=20,
    evaluation_interval=60,
    evaluation_episodes=1,
    log_interval=20,
    checkpoint_interval=10**9,
    threads=1,
    execution=Execution(compile=False),
    log_to=(),
)
PROGRAM = """
import dataclasses, sys
from pathlib import Path
sys.path[:0] = [{scripts!r}, {tests!r}]
from rich.console import Console
from experiments.training import train_together
from test_training import TINY

if __name__ == "__main__":
    endless = dataclasses.replace(TINY, task="probe-constant", env_steps=10**8, evaluation_interval=10**8)
    train_together([dataclasses.replace(endless, seed=seed) for seed in range(4)], Path(sys.argv[1]), 2, Console())
"""


def test_a_run_that_fails_is_named_and_the_others_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from experiments.training import train_together

    runs = [dataclasses.replace(TINY, task=task) for task in ("probe-nonesuch", "probe-constant", "probe-action")]
    with pytest.raises(Exception, match="nonesuch"):
        train_together(runs, tmp_path, 2, Console())
    printed = capsys.readouterr().out
    assert "failed: " in printed
    assert printed.count("finished: ") == 2


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_what_began_them(kill: signal.Signals, tmp_path: Path) -> None:
    program = tmp_path / "begin.py"
    program.write_text(PROGRAM.format(scripts=str(SCRIPTS), tests=str(Path(__file__).parent)))
    begun = subprocess.Popen(
        [sys.executable, str(program), str(tmp_path / "runs")], stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_for(lambda: len(list(tmp_path.rglob("train.csv"))) == 2)
        (os.killpg if kill == signal.SIGINT else os.kill)(begun.pid, kill)  # a terminal sends Ctrl-C to all
        wait_for(lambda: begun.poll() is not None)
        wait_for(lambda: not group(begun.pid))
    finally:
        for pid in group(begun.pid):
            os.kill(pid, signal.SIGKILL)
    assert len(list(tmp_path.rglob("step_*"))) == 2, "each run that had begun saved, and no other began"


def group(leader: int) -> list[int]:
    """Living processes of the group that `leader` led."""
    found = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True, check=True).stdout.split("\n")
    rows = [row.split() for row in found if row]
    return [int(pid) for pid, of, state in rows if int(of) == leader and not state.startswith("Z")]


def wait_for(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.2)
