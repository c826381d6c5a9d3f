"""The one script for a GPU machine: a step that fails stops no other, and everything is in one folder."""

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("on_gpu")


def test_it_imports_the_standard_library_alone() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import on_gpu; "
        "print(sorted(set(m.partition('.')[0] for m in sys.modules) & {'torch', 'numpy', 'tyro', 'rich', 'steelyard', 'gymnasium'}))"
    )
    import subprocess

    assert subprocess.run([sys.executable, "-c", code, str(SCRIPTS)], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_step_that_fails_stops_no_other(on_gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    steps = [
        on_gpu.Step("tests", ["-c", "print('3 passed in 1s')"], ()),
        on_gpu.Step("bench one", ["-c", "raise ValueError('no such kernel')"], ()),
        on_gpu.Step("bench two", ["-c", "import time; time.sleep(60)"], (), 1.0),
        on_gpu.Step("bench three", ["-c", "pass"], ("module_that_nobody_has",)),
        on_gpu.Step("bench four", ["-c", "import steelyard.agents.types, benchmarks.plan"], ()),
    ]
    monkeypatch.setattr(on_gpu, "steps", lambda options: steps)
    monkeypatch.setattr(sys, "argv", ["on_gpu.py", "--out", str(tmp_path)])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert on_gpu.main() == 1
    found = json.loads((tmp_path / "summary.json").read_text())
    assert [step["status"] for step in found["steps"]] == [
        "done",
        "failed with status 1: ValueError: no such kernel",
        "stopped after 1 seconds",
        "not run: this Python lacks module_that_nobody_has",
        "done",
    ]
    assert found["steps"][0]["found"] == {"summary": "3 passed in 1s"}
    assert {"gpus", "python", "torch", "missing_modules"} <= found["machine"].keys()
    assert "no such kernel" in (tmp_path / "logs" / "bench_one.txt").read_text()
    assert "| bench two | stopped after 1 seconds |" in (tmp_path / "summary.md").read_text()


def test_what_a_stopped_step_began_ends_with_it(on_gpu: Any, tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)']); "
        "print(child.pid, flush=True); time.sleep(300)"
    )
    outcome = on_gpu.run(on_gpu.Step("bench long", ["-c", code], (), 3.0), tmp_path)
    assert outcome.status == "stopped after 3 seconds"
    child = int((tmp_path / "logs" / "bench_long.txt").read_text())
    state = Path(f"/proc/{child}/stat")
    deadline = time.monotonic() + 10
    while state.exists() and state.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_numbers_of_tables_and_curves_are_collected(on_gpu: Any, tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    row = {"label": "worlds", "per_second": 7.0, "problem": None, "shares": {"env": 0.5}}
    broken = {"label": "other", "per_second": None, "problem": "no room", "shares": {}}
    (tmp_path / "bench" / "training.json").write_text(json.dumps({"tables": [{"rows": [row, broken]}]}))
    found = on_gpu.collect(on_gpu.Step("bench training", []), tmp_path)
    assert found == {"worlds": {"per_second": 7.0, "shares": {"env": 0.5}}, "other": "no room"}
    folder = tmp_path / "runs" / "walker-walk" / "fast-td3" / "seed_0"
    folder.mkdir(parents=True)
    (folder / "eval.csv").write_text(
        "env_steps,updates,seconds,eval/return,transfer/return\n0,0,1.0,20.0,\n10,5,30.5,810.0,\n20,9,60.0,790.0,\n20,9,61.0,,805.5\n"
    )
    assert on_gpu.collect(on_gpu.Step("train walker-walk", []), tmp_path) == {
        "env_steps": 20,
        "updates": 9,
        "seconds": 60.0,
        "last_return": 790.0,
        "best_return": 810.0,
        "seconds_to_800": 30.5,
        "transfer_return": 805.5,
    }
    assert on_gpu.collect(on_gpu.Step("train nothing", []), tmp_path) == {}


def test_the_steps_are_tests_tables_and_trainings(on_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["on_gpu.py"])
    names = [step.name for step in on_gpu.steps(on_gpu.read())]
    assert names == ["tests", *(f"bench {table}" for table in on_gpu.TABLES), "train cheetah-run", "train walker-walk"]
    monkeypatch.setattr(sys, "argv", ["on_gpu.py", "--only", "bench", "--tables", "worlds", "sac"])
    assert [step.name for step in on_gpu.steps(on_gpu.read())] == ["bench worlds", "bench sac"]
    monkeypatch.setattr(sys, "argv", ["on_gpu.py", "--only", "train", "--debug"])
    (step,) = on_gpu.steps(on_gpu.read())
    out = str(Path("runs/on_gpu").resolve())  # steps run in the repository's folder, wherever they were started from
    assert step.command[1:] == ["--debug", "--out", out, "--task", "cheetah-run", "--preset", "fast-td3-small"]
