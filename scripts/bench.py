"""Measure the suite's speed on this machine, and its peers' beside it."""

import contextlib
import functools
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.plan import (
    PEERS,
    PLAIN_LOOP,
    PLAIN_UPDATE,
    RELEASED_SIMBA_V2,
    TITLES,
    Library,
    Row,
    TableName,
    gpu_alone,
    plan,
    uncompiled,
)
from benchmarks.window import BenchmarkError, Worker
from steelyard.agents.agent import has_native_bf16
from steelyard.trainers.errors import run_script
from steelyard.trainers.provenance import describe

WIDTH = 120
"""Columns of tables that go to a file or a pipe."""


@dataclass(frozen=True)
class Bench:
    """Measure the suite's speed on this machine, and its peers' beside it.

    Every measurement is a process of its own; those of a table are measured in turn, in short windows, several times around.
    """

    tables: tuple[TableName, ...] = tuple(TITLES)
    """What to measure."""
    seconds: float = 3.0
    """Length of a window."""
    rounds: int = 5
    """Windows of each measurement; the median is reported, with the lowest and the highest."""
    peers: bool = False
    """Measure Stable-Baselines3, SBX, d3rlpy and mbrl-lib too, where they are installed."""
    peer_python: str = sys.executable
    """Interpreter that has the peers, so that they need not be installed beside the suite."""
    gpu_only: bool = False
    """Of tables that have rows on a GPU, measure these alone."""
    neighbour: bool = False
    """Keep one core busy with another process meanwhile."""
    json: bool = False
    """Print JSON instead of tables."""
    out: Path | None = None
    """File that gets the JSON too, anew after every round, so that a bench that is cut short leaves what it measured."""
    debug: bool = False
    """Finish sooner: one short window each, nothing compiled, one thread. The numbers mean nothing."""


@dataclass
class Result:
    """A row and what its windows gave."""

    row: Row
    windows: list[float] = field(default_factory=list)
    problem: str | None = None
    shares: dict[str, float] = field(default_factory=dict)
    """Share of time of each part of the work, where it has parts."""

    @property
    def median(self) -> float:
        """Work per second."""
        return statistics.median(self.windows)


def measure(rows: list[Row], options: Bench, console: Console, keep: Callable[[list[Result]], None]) -> list[Result]:
    """The rows of one table, group by group; `keep` gets what there is after every round."""
    done: list[Result] = []
    for _, group in itertools.groupby(rows, lambda row: row.group):
        before = tuple(done)
        done += side_by_side(list(group), options, console, lambda results, before=before: keep([*before, *results]))
    return done


def side_by_side(rows: list[Row], options: Bench, console: Console, keep: Callable[[list[Result]], None]) -> list[Result]:
    """Rows measured in turn, several times around; `keep` gets them after every round.

    Preparing a row may compile for a minute, so a log gets a line for each.
    """
    results, workers = [Result(row) for row in rows], dict[int, Worker]()
    try:
        with console.status("") as status:
            for number, result in enumerate(results):
                row = result.row
                doing = f"{row.table}: preparing {row.label} ({number + 1} of {len(rows)})"
                status.update(doing)
                if not console.is_terminal:
                    console.print(doing, highlight=False, soft_wrap=True)
                ours = row.library == "steelyard"
                python, module = (sys.executable, "benchmarks.ours") if ours else (options.peer_python, "benchmarks.peers")
                try:
                    workers[number] = Worker(python, module, row.options, row.threads)
                except BenchmarkError as error:
                    result.problem = str(error)
            for turn in range(options.rounds):
                for number, worker in workers.items():
                    status.update(f"{rows[number].table}: round {turn + 1} of {options.rounds}, {rows[number].label}")
                    results[number].windows.append(worker.measure(options.seconds))
                    results[number].shares = worker.shares
                keep(results)
    finally:
        for worker in workers.values():
            worker.close()
    return results


def ratios(result: Result, results: list[Result]) -> dict[str, float]:
    """How many times the best of each peer a row of the suite's is."""
    if result.row.library != "steelyard" or not result.windows:
        return {}
    best: dict[Library, float | None] = {
        library: max((r.median for r in results if r.row.library == library and r.windows), default=None) for library in PEERS
    }
    if result.row.table == "simba":
        yardstick, released = best["sb3"], RELEASED_SIMBA_V2[result.row.options["critics"]]
        return {"released JAX code": result.median / (released * yardstick)} if yardstick else {}
    if result.row.table == "model":
        return _model_ratios(result, results)
    if result.row.table == "pixels":
        alike = [r for r in results if r.row.options["kind"] == "plain_pixel_updates" and r.windows]
        same = [r.median for r in alike if r.row.options["size"] == result.row.options.get("size")]
        return {PLAIN_UPDATE: result.median / max(same)} if same and result.row.options["kind"] == "pixel_updates" else {}
    if result.row.table == "worlds":
        same = [r for r in results if r.row.options == _bare(result.row.options) and r.windows]
        return {"bare engine": result.median / same[0].median} if same and result.row.options["kind"] == "stepping" else {}
    if result.row.table == "offline":
        same = [r for r in results if r.row.options.get("algorithm") == result.row.options["algorithm"]]
        rate = max((r.median for r in same if r.row.library == "d3rlpy" and r.windows), default=None)
        return {"d3rlpy": result.median / rate} if rate else {}
    return {PEERS[library].name: result.median / rate for library, rate in best.items() if rate}


def _model_ratios(result: Result, results: list[Result]) -> dict[str, float]:
    """A model's rate in units of the better plain loop's and of mbrl-lib's at the same work, which fits by likelihood, on the CPU."""
    options = result.row.options
    if options["plain"]:
        return {}
    kinds = {PLAIN_LOOP: options | {"plain": True, "compile": False, "precision": "fp32"}}
    if options["objective"] == "likelihood" and options["device"] == "cpu":
        kinds[PEERS["mbrl"].name] = {"kind": "model", "work": options["work"]}
    rates = {
        name: max((r.median for r in results if r.row.options == kind and r.windows), default=None)
        for name, kind in kinds.items()
    }
    return {name: result.median / rate for name, rate in rates.items() if rate}


def _bare(options: dict[str, Any]) -> dict[str, Any]:
    """The options of the row that measures the simulator alone."""
    return {key: value for key, value in options.items() if key != "vectorization"} | {"kind": "bare_stepping"}


def draw(name: TableName, results: list[Result], console: Console) -> None:
    """One table."""
    title, unit = TITLES[name]
    columns = list(dict.fromkeys(peer for result in results for peer in ratios(result, results)))
    digits = ".2f" if name == "worlds" else ".1f"
    table = Table(title=title, title_justify="left", caption_justify="left")
    parts = ("shares of time",) if any(result.shares for result in results) else ()
    for heading in ("", "", "threads", unit, "lowest to highest", *(f"x {peer}" for peer in columns), *parts):
        table.add_column(heading, justify="left" if not heading else "right")
    for result in results:
        row = result.row
        names = (PEERS[row.library].name if row.library != "steelyard" else "Steelyard", row.label, str(row.threads))
        if result.problem:
            table.add_row(*names, "failed", result.problem)
            continue
        share = ratios(result, results)
        rates = (result.median, min(result.windows), max(result.windows))
        rate, *ends = (f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in rates)
        spread = " to ".join(ends)
        divided = ", ".join(f"{name} {part:.0%}" for name, part in result.shares.items())
        cells = [f"{share[peer]:{digits}}" if peer in share else "" for peer in columns]
        table.add_row(*names, rate, spread, *cells, *([divided] if parts else []))
    if "released JAX code" in columns:
        table.caption = (
            "Released JAX code of SimbaV2: measured once beside Stable-Baselines3 and taken in its units (scripts/README.md)."
        )
    console.print(table)


def plain(name: TableName, results: list[Result]) -> dict[str, Any]:
    """One table as plain data."""
    rows = [
        {
            "library": result.row.library,
            "label": result.row.label,
            "threads": result.row.threads,
            "per_second": result.median if result.windows else None,
            "windows": result.windows,
            "ratios": ratios(result, results),
            "shares": result.shares,
            "problem": result.problem,
        }
        for result in results
    ]
    return {"name": name, "title": TITLES[name][0], "unit": TITLES[name][1], "rows": rows}


def installed(python: str) -> dict[str, str | None]:
    """Versions of the peers' distributions in an interpreter; None where one is missing."""
    names = [peer.distribution for peer in PEERS.values()]
    code = (
        "import importlib.metadata as m, json, sys\n"
        "print(json.dumps({n: next((d.version for d in m.distributions(name=n)), None) for n in sys.argv[1:]}))"
    )
    return json.loads(subprocess.run([python, "-c", code, *names], check=True, capture_output=True, text=True).stdout)


@contextlib.contextmanager
def busy_neighbour(wanted: bool) -> Iterator[None]:
    """A process that keeps one core busy, if wanted."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def processor() -> str:
    """Name of the CPU."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )


def bench(options: Bench) -> None:
    """Measure and print."""
    console, progress = Console(width=None if sys.stdout.isatty() else WIDTH), Console(stderr=True)
    notes = []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = (1, cores) if cores > 1 and not options.debug else (1,)
    native = has_native_bf16(torch.device("cpu"))
    if not native:
        notes.append(
            "bf16 on the CPU is left out: this one emulates its matrix products, very slowly, for want of AVX512_BF16 or AMX."
        )
    versions = installed(options.peer_python) if options.peers else {}
    peers: list[Library] = []
    for library, peer in PEERS.items():
        if versions.get(peer.distribution):
            peers.append(library)
        elif options.peers and set(peer.tables) & set(options.tables):
            commands = " && ".join(f"{options.peer_python} -m pip install {what}" for what in peer.install)
            notes.append(f"{peer.name} is not installed in {options.peer_python}: {commands}")
    rows = plan(threads, ("fp32", "bf16") if native else ("fp32",), torch.cuda.is_available(), tuple(peers))
    if options.debug:
        options = replace(options, seconds=0.05, rounds=1)
        rows = uncompiled(rows)
    machine = {"processor": processor(), "cores": cores, "busy_neighbour": options.neighbour} | describe()
    header = (
        f"{machine['processor']}, {cores} cores, torch {torch.__version__}"
        + ", one core kept busy by another process" * options.neighbour
    )
    done: list[dict[str, Any]] = []

    def document(tables: list[dict[str, Any]]) -> str:
        return json.dumps({"machine": machine, "peers": versions, "notes": notes, "tables": tables}, indent=2)

    def keep(name: TableName, results: list[Result]) -> None:
        if options.out is not None:
            options.out.write_text(document([*done, plain(name, results)]) + "\n")

    if not options.json:
        console.print(header)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    with busy_neighbour(options.neighbour):
        for name in options.tables:
            chosen = [row for row in rows if row.table == name]
            chosen = gpu_alone(chosen) if options.gpu_only else chosen
            results = measure(chosen, options, progress, functools.partial(keep, name))
            keep(name, results)
            done.append(plain(name, results))
            if not options.json:
                draw(name, results, console)
    if options.json:
        print(document(done))
    else:
        for note in notes:
            console.print(note)


def main() -> None:
    """Reads the command line."""
    import tyro  # here, so that machines without it can measure too (`on_gpu.py`)

    bench(tyro.cli(Bench))


if __name__ == "__main__":
    run_script(main)
