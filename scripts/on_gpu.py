"""All that wants a GPU, one step after the other, into one folder: `python scripts/on_gpu.py`.

Tests marked `gpu`, tables of `bench.py`, and short trainings by their time to a return. Each step is a process of its own with its own log: one that
fails is reported, and the next one runs. This file needs the standard library alone, and it lays the packages on the path itself, so that nothing has
to be installed but what the steps import; what is missing is named.
"""

import argparse
import contextlib
import csv
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("agents", "envs", "trainers")
BASIC = ("torch", "numpy", "scipy", "rich")
SUITE = (*BASIC, "gymnasium", "imageio", "mujoco")
"""What the packages import; Gymnasium's MuJoCo tasks ask for imageio."""
ENGINE = (*SUITE, "warp", "mujoco_warp")
TABLES = ("training", "worlds", "sac", "simba", "offline")
"""Tables of `bench.py`; one that this version has not is left out."""
TASKS = ("cheetah-run", "walker-walk")
GOAL = 800.0


@dataclass(frozen=True)
class Step:
    """One process."""

    name: str
    """Of the step, and of its log."""
    command: list[str]
    """Arguments of the interpreter."""
    needs: tuple[str, ...] = BASIC
    """Modules without which it cannot run."""
    seconds: float = 1_800.0
    """How long it may take."""


@dataclass
class Outcome:
    """What became of a step."""

    name: str
    status: str
    """`done`, or why it is not."""
    seconds: float = 0.0
    found: dict[str, Any] = field(default_factory=dict)
    """Numbers that the step leaves behind."""


def steps(options: argparse.Namespace) -> list[Step]:
    """What is done, in order."""
    debug = ["--debug"] if options.debug else []
    here = [str(Path(__file__).resolve()), *debug, "--out", str(options.out)]
    found = []
    if "tests" in options.only:
        tests = (
            ["tests/trainers/test_resident.py", "-k", "waits"]
            if options.debug
            else ["tests", "-m", "gpu", "--continue-on-collection-errors"]
        )
        found.append(Step("tests", ["-m", "pytest", "-q", "-p", "no:cacheprovider", *tests], (*SUITE, "pytest")))
    if "bench" in options.only:
        found += [Step(f"bench {table}", [*here, "--table", table], SUITE) for table in options.tables]
    if "train" in options.only:
        for task in options.tasks:
            found.append(Step(f"train {task}", [*here, "--task", task, "--preset", options.preset], ENGINE, options.seconds))
    return found


def run(step: Step, out: Path) -> Outcome:
    """Run a step, its output in `out/logs`; whatever happens comes back as an outcome."""
    missing = [name for name in step.needs if importlib.util.find_spec(name) is None]
    if missing:
        return Outcome(step.name, f"not run: this Python lacks {', '.join(missing)}")
    log, start = out / "logs" / f"{step.name.replace(' ', '_')}.txt", time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *step.command],
            cwd=ROOT,
            env=environment(out),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(step.seconds)
            status = "done" if code == 0 else f"failed with status {code}: {last_line(log)}"
        except subprocess.TimeoutExpired:
            status = f"stopped after {step.seconds:,.0f} seconds"
        finally:
            # With all that it began: a measurement that still compiles would hold the GPU beside the next step.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return Outcome(step.name, status, time.monotonic() - start, collect(step, out))


def environment(out: Path) -> dict[str, str]:
    """Variables of a step: the packages under their names, wherever they lie."""
    links = out.resolve() / ".links" / "steelyard"
    links.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        if not (links / package).exists():
            (links / package).symlink_to(ROOT / package)
    paths = [str(links.parent), str(ROOT / "scripts"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def last_line(log: Path) -> str:
    """What a process said last."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


def collect(step: Step, out: Path) -> dict[str, Any]:
    """Numbers of a step, as far as it got."""
    kind, _, name = step.name.partition(" ")
    if kind == "train":
        return curve(next(iter(sorted(out.glob(f"runs/{name}/*/seed_0/eval.csv"))), None))
    if kind == "tests":
        return {"summary": last_line(out / "logs" / "tests.txt")}
    table = out / "bench" / f"{name}.json"
    try:
        rows = json.loads(table.read_text())["tables"][0]["rows"]
    except (OSError, ValueError, IndexError):
        return {}
    return {row["label"]: row["problem"] or {"per_second": row["per_second"], "shares": row["shares"]} for row in rows}


def curve(table: Path | None) -> dict[str, Any]:
    """Best and last return of a run, seconds until it first reached `GOAL`, and its return on the published simulator."""
    if table is None:
        return {}
    with table.open() as file:
        rows = list(csv.DictReader(file))
    scored = [row for row in rows if row.get("eval/return")]
    if not scored:
        return {}
    reached = next((row for row in scored if float(row["eval/return"]) >= GOAL), None)
    transfer = next((float(row["transfer/return"]) for row in reversed(rows) if row.get("transfer/return")), None)
    return {
        "env_steps": int(scored[-1]["env_steps"]),
        "updates": int(scored[-1]["updates"]),
        "seconds": float(scored[-1]["seconds"]),
        "last_return": float(scored[-1]["eval/return"]),
        "best_return": max(float(row["eval/return"]) for row in scored),
        f"seconds_to_{GOAL:.0f}": float(reached["seconds"]) if reached else None,
        "transfer_return": transfer,
    }


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        gpus = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout.strip().splitlines()
    except (OSError, subprocess.SubprocessError):
        gpus = []
    missing = [name for name in (*ENGINE, "pytest", "tyro", "tensorboard") if importlib.util.find_spec(name) is None]
    found: dict[str, Any] = {"gpus": gpus, "host": platform.node(), "python": platform.python_version(), "cores": os.cpu_count()}
    if "torch" not in missing:
        import torch

        found |= {"torch": torch.__version__, "cuda": torch.version.cuda, "torch_sees_a_gpu": torch.cuda.is_available()}
    return found | {"missing_modules": missing}


def table_step(table: str, options: argparse.Namespace) -> None:
    """In a process of its own: one table of the benchmark as JSON. Needs no tyro."""
    import bench

    from benchmarks.plan import TITLES

    if table not in TITLES:
        sys.exit(f"this version has no table {table}")
    file = options.out / "bench" / f"{table}.json"
    bench.bench(bench.Bench(tables=(table,), gpu_only=True, debug=options.debug, rounds=3, out=file))  # pyright: ignore[reportArgumentType]


def train_step(task: str, options: argparse.Namespace) -> None:
    """In a process of its own: one training. Needs no tyro."""
    import dataclasses

    from steelyard.trainers.builders import require_compiler
    from steelyard.trainers.errors import run_script
    from steelyard.trainers.gpu_presets import GPU
    from steelyard.trainers.online import train
    from steelyard.trainers.shrinking import debug

    run = dataclasses.replace(GPU[options.preset], task=task, log_to=())
    run = debug(run) if options.debug else run
    require_compiler(run)
    run_script(lambda: print(train(run, options.out / "runs", fresh=True)))


def report(outcomes: list[Outcome], named: dict[str, Any], out: Path) -> str:
    """Write `summary.json` and `summary.md`, and return the latter."""
    (out / "summary.json").write_text(
        json.dumps({"machine": named, "steps": [asdict(outcome) for outcome in outcomes]}, indent=2)
    )
    lines = [f"# {', '.join(named['gpus']) or 'no GPU'}", ""]
    lines += [f"{name}: {value}" for name, value in named.items() if name != "gpus"]
    lines += ["", "| step | status | seconds |", "|---|---|---|"]
    lines += [f"| {outcome.name} | {outcome.status} | {outcome.seconds:,.0f} |" for outcome in outcomes]
    for outcome in outcomes:
        if outcome.found:
            lines += ["", f"## {outcome.name}", "", *(f"- {name}: {value}" for name, value in outcome.found.items())]
    text = "\n".join(lines) + "\n"
    (out / "summary.md").write_text(text)
    return text


def read() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/on_gpu"), help="folder for everything")
    parser.add_argument(
        "--only", nargs="+", default=["tests", "bench", "train"], choices=["tests", "bench", "train"], help="steps to do"
    )
    parser.add_argument("--tables", nargs="+", default=list(TABLES), help="tables of bench.py to measure")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="tasks to train on")
    parser.add_argument("--preset", default=None, help="recipe of train_gpu.py (fast-td3, or fast-td3-small with --debug)")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long a training may take")
    parser.add_argument("--debug", action="store_true", help="seconds, on the CPU: the numbers mean nothing")
    parser.add_argument("--table", help=argparse.SUPPRESS)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.preset = options.preset or ("fast-td3-small" if options.debug else "fast-td3")
    if options.debug and not options.task:
        options.tasks, options.tables = options.tasks[:1], options.tables[:1]
    return options


def main() -> int:
    """Do all steps and print what was found; the status is 1 if one of them failed."""
    options = read()
    if options.table:
        table_step(options.table, options)
        return 0
    if options.task:
        train_step(options.task, options)
        return 0
    shutil.rmtree(options.out / "logs", ignore_errors=True)
    options.out.mkdir(parents=True, exist_ok=True)
    named, outcomes = machine(), []
    print(json.dumps(named, indent=2), flush=True)
    for step in steps(options):
        outcomes.append(run(step, options.out))
        print(f"{outcomes[-1].name}: {outcomes[-1].status} ({outcomes[-1].seconds:,.0f} s)", flush=True)
        report(outcomes, named, options.out)  # after every step: the machine may be taken away
    print(report(outcomes, named, options.out))
    return int(any(outcome.status != "done" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
