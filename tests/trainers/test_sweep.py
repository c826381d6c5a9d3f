"""What a sweep does with runs that end, die, refuse or lose their machines: without Ray and without training."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from steelyard.trainers import plain, presets, shrinking, sweep_task
from steelyard.trainers.cluster import Cluster, ClusterError, require_answer
from steelyard.trainers.config import ConfigError
from steelyard.trainers.sweep import Sweep
from steelyard.trainers.sweep_task import Outcome, carry_out, judge

BASE = dataclasses.replace(shrinking.debug(presets.MUJOCO["sac"]), task="Pendulum-v1", env_steps=300, log_to=())
POPEN = subprocess.Popen
RUNS = [dataclasses.replace(BASE, seed=seed) for seed in range(2)]


class FakeLauncher:
    """Each launch takes the next outcome of its seed; before it ends the run has come as far as the story says."""

    def __init__(self, root, stories, room=True):
        self.root, self.stories, self.room = root, {seed: list(story) for seed, story in stories.items()}, room
        self.launched, self.stopped = [], False

    def launch(self, run):
        self.launched.append(run.seed)
        return (run, len(self.launched))

    def machine(self, run):
        return "host" if self.room else None

    def ready(self, answers, seconds):
        return answers if self.room else []

    def outcome(self, answer):
        run, _ = answer
        outcome, reached = self.stories[run.seed].pop(0)
        if reached is not None:
            (run.folder(self.root) / "checkpoints" / f"step_{reached}").mkdir(parents=True, exist_ok=True)
        return outcome

    def fits(self):
        return self.room

    def shortage(self):
        return "each asks for 4 CPUs"

    def stop(self):
        self.stopped = True


def finish(sweep, clock):
    news = []
    for _ in range(100):
        if sweep.over:
            return news
        news += sweep.step(0)
        clock[0] += 10
    raise AssertionError("the sweep does not end")


def build(root, stories, clock, room=True, **options):
    launcher = FakeLauncher(root, stories, room)
    return launcher, Sweep(RUNS, root, launcher, clock=lambda: clock[0], **options)


FINISHED, DIED, LOST = Outcome("finished"), Outcome("failed", "it was ended by SIGKILL"), Outcome("lost", "its machine was lost")


def test_a_run_that_dies_is_tried_again_as_long_as_it_gets_further(tmp_path):
    clock = [0.0]
    story = [(DIED, 100), (LOST, 100), (DIED, 200), (LOST, None), (FINISHED, 300)]
    launcher, sweep = build(tmp_path, {0: story, 1: [(FINISHED, None)]}, clock, retries=1)
    news = finish(sweep, clock)
    assert [job.state for job in sweep.jobs] == ["finished", "finished"]
    assert sweep.jobs[0].tries == 5
    assert launcher.launched.count(1) == 1
    assert "from its checkpoint of step 100" in news[0]
    assert news[1] == "Pendulum-v1 sac-debug seed 0: its machine was lost; it is tried again, from its checkpoint of step 100."


def test_a_run_that_gets_nowhere_is_given_up_and_harms_no_other(tmp_path):
    clock = [0.0]
    launcher, sweep = build(tmp_path, {0: [(DIED, None)] * 9, 1: [(FINISHED, None)]}, clock, retries=2)
    news = finish(sweep, clock)
    assert [job.state for job in sweep.jobs] == ["failed", "finished"]
    assert launcher.launched.count(0) == 3
    assert "from the beginning" in news[0]
    assert news[-1].endswith("it failed 3 times in a row without a newer checkpoint and is given up.")


def test_a_run_that_refuses_is_not_tried_again(tmp_path):
    clock = [0.0]
    launcher, sweep = build(tmp_path, {0: [(Outcome("refused", "there is no such world"), None)], 1: [(FINISHED, None)]}, clock)
    assert finish(sweep, clock) == ["Pendulum-v1 sac-debug seed 0: there is no such world."]
    assert sweep.jobs[0].state == "failed"
    assert launcher.launched == [0, 1]


def test_a_pause_lies_between_two_tries(tmp_path):
    clock = [0.0]
    launcher, sweep = build(tmp_path, {0: [(DIED, None), (FINISHED, None)], 1: [(FINISHED, None)]}, clock)
    sweep.step(0)
    sweep.step(0)
    assert launcher.launched == [0, 1]
    clock[0] += 10
    sweep.step(0)
    assert launcher.launched == [0, 1, 0]


def test_stopping_launches_nothing_more(tmp_path):
    clock = [0.0]
    launcher, sweep = build(tmp_path, {0: [(DIED, None)], 1: [(Outcome("stopped"), None)]}, clock)
    sweep.jobs[0].after = 1000.0
    launcher.room = False
    sweep.step(0)
    sweep.stop()
    launcher.room = True
    finish(sweep, clock)
    assert launcher.stopped
    assert launcher.launched == [1]
    assert [job.state for job in sweep.jobs] == ["stopped", "stopped"]


def test_nothing_left_to_run_on_is_an_error_after_a_while(tmp_path):
    clock = [0.0]
    _, sweep = build(tmp_path, {}, clock, room=False, patience=60.0)
    with pytest.raises(ClusterError, match="there is no machine to run on: each asks for 4 CPUs"):
        finish(sweep, clock)
    assert 60 <= clock[0] <= 80


def test_finished_runs_are_left_alone_and_folders_are_not_shared(tmp_path):
    folder = RUNS[0].folder(tmp_path)
    plain.save(RUNS[0], folder / "config.json")
    (folder / "eval.csv").write_text("env_steps,updates,eval/return\n300,200,-1.5\n")
    launcher = FakeLauncher(tmp_path, {1: [(FINISHED, None)]})
    sweep = Sweep(RUNS, tmp_path, launcher)
    assert [job.state for job in sweep.jobs] == ["finished", "waiting"]
    with pytest.raises(ConfigError, match="two runs would share"):
        Sweep([RUNS[0], RUNS[0]], tmp_path, launcher)


@pytest.mark.parametrize(
    ("status", "printed", "stopped", "outcome"),
    [
        (0, "error: an old one", False, Outcome("finished")),
        (1, "12 steps\nerror: critic is nan at update 3.\n", False, Outcome("refused", "critic is nan at update 3")),
        (1, "Traceback\nTypeError: a bug.\n", False, Outcome("failed", "it ended with status 1 (TypeError: a bug)")),
        (-9, "error: not its end", False, Outcome("failed", "it was ended by SIGKILL")),
        (130, "interrupted", True, Outcome("stopped")),
        (-15, "", True, Outcome("stopped")),
    ],
)
def test_an_end_is_judged_by_status_and_words(status, printed, stopped, outcome):
    assert judge(status, printed, stopped) == outcome


def attempt(tmp_path, process, monkeypatch):
    """`carry_out` with a process of the test's own."""
    board = tmp_path / "board"
    board.mkdir(exist_ok=True)
    monkeypatch.setattr(
        sweep_task.subprocess, "Popen", lambda command, **options: POPEN([sys.executable, "-c", process, *command[3:]], **options)
    )
    return carry_out("{}", tmp_path / "run", tmp_path, board, "note", tmp_path), board


def test_a_process_gets_its_run_and_leaves_its_words(tmp_path, monkeypatch):
    code = "import sys; print(sys.stdin.read(), sys.argv[1]); print('error: no such thing.', file=sys.stderr); sys.exit(1)"
    outcome, board = attempt(tmp_path, code, monkeypatch)
    assert outcome == Outcome("refused", "no such thing")
    assert (tmp_path / "run" / "output.log").read_text() == f"{{}} {tmp_path}\nerror: no such thing.\n"
    assert (board / "note").read_text()
    # Words of an earlier try are not taken for this one's.
    assert attempt(tmp_path, "import os; os.kill(os.getpid(), 9)", monkeypatch)[0] == DIED


def test_a_process_is_asked_to_save_when_the_sweep_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_task, "LOOK", 0.05)
    code = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit(130)))\n"
        f"pathlib.Path({str(tmp_path)!r}, 'board', 'stop').touch()\n"
        "time.sleep(60)\n"
    )
    outcome, _ = attempt(tmp_path, code, monkeypatch)
    assert outcome == Outcome("stopped")
    assert "saved" in (tmp_path / "run" / "output.log").read_text()
    # What is queued then does not begin at all.
    assert attempt(tmp_path, "raise SystemExit(7)", monkeypatch)[0] == Outcome("stopped")


def test_a_machine_that_does_not_see_the_root_says_so(tmp_path):
    outcome = carry_out("{}", tmp_path / "run", tmp_path, tmp_path / "elsewhere", "note", tmp_path)
    assert outcome.kind == "refused"
    assert "put --root on a file system that all machines share" in outcome.words
    assert not (tmp_path / "run").exists()


ORPHAN = """
import os, subprocess, sys, time
if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, __file__, str(os.getpid())])
    print(child.pid, flush=True)
    os.kill(os.getpid(), 9)
from steelyard.trainers import sweep_process
sweep_process.end_with(int(sys.argv[1]))
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads process states from /proc")
def test_a_run_ends_with_the_process_that_watches_it(tmp_path):
    (tmp_path / "orphan.py").write_text(ORPHAN)
    with (tmp_path / "out").open("w") as out:
        status = subprocess.run([sys.executable, str(tmp_path / "orphan.py")], stdout=out, check=False).returncode
    assert status == -signal.SIGKILL
    child = Path("/proc") / (tmp_path / "out").read_text().strip() / "stat"
    deadline = time.monotonic() + 200
    while child.exists() and child.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ("somewhere", "is no host:port"),
        ("ray://127.0.0.1:10001", "is no host:port"),
        ("127.0.0.1:99999", "no Ray cluster answers"),
    ],
)
def test_an_address_that_nobody_answers_is_one_sentence(address, words):
    with pytest.raises(ClusterError, match=words):
        require_answer(address)


def test_ray_that_does_not_start_is_one_sentence(monkeypatch):
    def init(**options: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because the GCS has become overloaded.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, is_initialized=lambda: False))
    with pytest.raises(ClusterError, match="Ray on this machine cannot be used \\(The current node timed out during startup"):
        Cluster()


def test_without_ray_the_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"pip install 'steelyard\[cluster\]'"):
        Cluster()


def test_configurations_travel_as_json():
    assert plain.from_plain(json.loads(json.dumps(plain.to_plain(RUNS[1])))) == RUNS[1]
