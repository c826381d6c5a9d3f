"""How speed is measured: processes of their own, rates, and ratios to the better of a peer's rows."""

import importlib
import io
import json
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


def test_subject_counts_work_and_waits_for_it(imported):
    calls = []
    subject = imported("benchmarks.window").repeat(lambda: calls.append("work"), 16, lambda: calls.append("wait"))
    count, seconds = subject(0.01)
    assert count == 16 * calls.count("work")
    assert calls[-1] == "wait"
    assert seconds >= 0.01


def test_worker_measures_in_another_process(imported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    window = imported("benchmarks.window")
    (tmp_path / "counting.py").write_text(
        "from benchmarks.window import repeat, serve\n"
        "import os, time\n"
        "def build(pause, threads):\n"
        "    assert os.environ['OMP_NUM_THREADS'] == str(threads)\n"
        "    print('noise on stdout')\n"
        "    return repeat(lambda: time.sleep(pause))\n"
        "serve(build)\n"
    )
    (tmp_path / "benchmarks").symlink_to(SCRIPTS / "benchmarks")
    monkeypatch.setattr(window, "SCRIPTS", tmp_path)
    worker = window.Worker(sys.executable, "counting", {"pause": 0.02}, 3)
    before = time.perf_counter()
    assert 1 < worker.measure(0.2) <= 50
    assert time.perf_counter() - before >= 0.2
    worker.close()
    assert worker.process.poll() is not None


def test_what_was_measured_is_kept_after_every_round(imported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also where a later table fails, as when a machine is taken away."""
    bench, kept = imported("bench"), []
    file = tmp_path / "new" / "bench.json"

    def measure(rows, options, console, keep):
        if rows[0].table == "replay":
            raise KeyboardInterrupt
        result = bench.Result(rows[0])
        for window in (2.0, 4.0):
            result.windows.append(window)
            keep([result])
            kept.append(json.loads(file.read_text())["tables"])
        return [result]

    monkeypatch.setattr(bench, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        bench.bench(bench.Bench(tables=("sac", "replay"), out=file))
    assert [[row["windows"] for row in table["rows"]] for (table,) in kept] == [[[2.0]], [[2.0, 4.0]]]
    (table,) = json.loads(file.read_text())["tables"]
    assert (table["name"], table["rows"][0]["per_second"]) == ("sac", 3.0)


def test_only_what_is_compared_is_in_memory_at_once(imported, monkeypatch: pytest.MonkeyPatch):
    """Thirty processes with a simulator each are more than many a machine holds."""
    bench, plan = imported("bench"), imported("benchmarks.plan")
    rows = plan.plan((1, 2), ("fp32",), cuda=True, peers=())
    alive, most, kept = set[int](), [], []

    class Worker:
        def __init__(self, python, module, options, threads):
            self.options, self.shares = options, {}
            alive.add(id(self))

        def measure(self, seconds):
            most.append((len(alive), self.options["task"], self.options["num_envs"]))
            return 1.0

        def close(self):
            alive.remove(id(self))

    monkeypatch.setattr(bench, "Worker", Worker)
    chosen = [row for row in rows if row.table == "worlds"]
    console = Console(file=io.StringIO())
    results = bench.measure(chosen, bench.Bench(rounds=2), console, lambda results: kept.append(len(results)))
    assert [result.row for result in results] == chosen
    assert all(result.windows == [1.0, 1.0] for result in results)
    assert not alive
    assert max(most)[0] <= 6
    assert kept[-1] == len(chosen) > 30
    stepping = [row.options for row in chosen if row.options["kind"] == "stepping" and row.options["vectorization"] == "warp"]
    together = {(row.options["task"], row.options["num_envs"], row.options["kind"]) for row in chosen}
    assert all((options["task"], options["num_envs"], "bare_stepping") in together for options in stepping)


def test_a_worker_that_says_much_does_not_hang(imported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A pipe that nobody reads takes 64 kilobytes."""
    window = imported("benchmarks.window")
    (tmp_path / "chatter.py").write_text(
        "from benchmarks.window import repeat, serve\n"
        "def build(threads):\n"
        "    return repeat(lambda: print('chatter ' * 20_000))\n"
        "serve(build)\n"
    )
    (tmp_path / "benchmarks").symlink_to(SCRIPTS / "benchmarks")
    monkeypatch.setattr(window, "SCRIPTS", tmp_path)
    worker = window.Worker(sys.executable, "chatter", {}, 1)
    assert worker.measure(0.01) > 0
    worker.close()


def test_worker_says_why_it_ended(imported):
    window = imported("benchmarks.window")
    with pytest.raises(window.BenchmarkError, match="unexpected keyword argument 'nonsense'"):
        window.Worker(sys.executable, "benchmarks.peers", {"nonsense": 1}, 1)


def test_peers_that_are_missing_are_known(imported):
    versions = imported("bench").installed(sys.executable)
    assert sorted(versions) == ["d3rlpy", "mbrl", "sbx-rl", "stable-baselines3"]


@pytest.mark.parametrize("cuda", [False, True])
def test_debug_leaves_no_table_empty(imported, cuda: bool):
    """Rows are compared as a table shows them: no two alike, and nothing is compiled."""
    plan = imported("benchmarks.plan")
    rows = plan.uncompiled(plan.plan((1,), ("fp32",), cuda, ()))
    assert {row.table for row in rows} == set(plan.TITLES)
    assert not any(row.options.get("compile") for row in rows)
    shown = [(row.table, row.label) for row in rows]
    assert len(set(shown)) == len(shown)
    assert not any("compiled" in label for _, label in shown)
    assert {label for table, label in shown if table == "end_to_end"} == {"eager, fp32"}


def test_rows_on_a_gpu_are_kept_one_after_the_other(imported):
    plan = imported("benchmarks.plan")
    rows = [row for row in plan.plan((1, 2), ("fp32",), True, ()) if row.table != "worlds"]
    groups = [(row.table, row.group) for row in rows if row.on_gpu]
    assert len(set(groups)) == len(groups) > 20
    assert {row.group for row in rows if not row.on_gpu} == {""}
    offline = [row for row in rows if row.table == "offline"]
    assert [row.label for row in plan.gpu_alone(offline)] == [f"{name}, GPU, fp32" for name in plan.OFFLINE]
    replay = [row for row in rows if row.table == "replay"]
    assert plan.gpu_alone(replay) == replay


def test_slow_rates_keep_a_decimal(imported):
    bench, plan = imported("bench"), imported("benchmarks.plan")
    written = io.StringIO()
    console = Console(file=written, width=120)
    bench.draw("simba", [bench.Result(plan.Row("simba", "a", 1, {"critics": 1}), [0.42, 0.38, 0.91])], console)
    bench.draw("sac", [bench.Result(plan.Row("sac", "a", 1), [1234.0, 99.96, 640.0])], console)
    text = " ".join(written.getvalue().replace("│", " ").split())
    assert "0.4 0.4 to 0.9" in text
    assert "640 100.0 to 1,234" in text


def test_ratio_is_to_the_better_row_of_a_peer(imported):
    bench, plan = imported("bench"), imported("benchmarks.plan")
    ours = bench.Result(plan.Row("sac", "compiled", 1), [90.0, 100.0, 300.0])
    slow = bench.Result(plan.Row("sac", "as it is", 2, {}, "sb3"), [10.0])
    fast = bench.Result(plan.Row("sac", "as it is", 1, {}, "sb3"), [25.0])
    broken = bench.Result(plan.Row("sac", "as it is", 1, {}, "sbx"), problem="not there")
    rows = [ours, slow, fast, broken]
    assert bench.ratios(ours, rows) == {"Stable-Baselines3": 4.0}
    assert bench.ratios(fast, rows) == {}


def test_an_offline_agents_ratio_is_to_the_same_agent_of_d3rlpy(imported):
    bench, plan = imported("bench"), imported("benchmarks.plan")
    ours = bench.Result(plan.Row("offline", "iql, compiled", 1, {"algorithm": "iql"}), [90.0])
    theirs = [
        bench.Result(plan.Row("offline", name, 1, {"algorithm": name}, "d3rlpy"), [rate])
        for name, rate in (("iql", 30.0), ("cql", 2.0))
    ]
    assert bench.ratios(ours, [ours, *theirs]) == {"d3rlpy": 3.0}


def test_a_models_ratio_is_to_the_better_plain_loop_of_the_same_work(imported):
    bench, plan = imported("bench"), imported("benchmarks.plan")
    rows = [row for row in plan.plan((1, 2), ("fp32",), cuda=False, peers=()) if row.table == "model"]
    results = [bench.Result(row, [(10.0 if row.options["plain"] else 60.0) * row.threads]) for row in rows]
    found = {result.row.label: bench.ratios(result, results) for result in results if result.row.threads == 1}
    assert found["fit, vagram, compiled, fp32"] == {"plain loop": 3.0}
    assert found["fit, vagram, plain loop"] == {}


def test_mbrl_lib_is_beside_what_it_does_too(imported):
    """It fits by likelihood, on the CPU, and imagines."""
    bench, plan = imported("bench"), imported("benchmarks.plan")
    rows = [row for row in plan.plan((1, 2), ("fp32",), cuda=True, peers=("mbrl",)) if row.table == "model"]
    speed = {"steelyard": 60.0, "mbrl": 20.0}
    results = [bench.Result(row, [speed[row.library] * row.threads]) for row in rows if not row.options.get("plain")]
    found = {result.row.label: bench.ratios(result, results) for result in results if result.row.threads == 1}
    assert found["fit, likelihood, compiled, fp32"] == found["imagine, likelihood, eager"] == {"mbrl-lib": 1.5}
    for without in (
        "fit, likelihood",
        "imagine, likelihood",
        "fit, vagram, compiled, fp32",
        "fit, likelihood, compiled, fp32, GPU",
    ):
        assert found[without] == {}


def test_every_peer_is_measured_in_its_tables_alone(imported):
    plan = imported("benchmarks.plan")
    rows = plan.plan((1, 2), ("fp32",), cuda=False, peers=tuple(plan.PEERS))
    for library, peer in plan.PEERS.items():
        assert {row.table for row in rows if row.library == library} == set(peer.tables)


def test_a_missing_peer_is_named_where_it_would_be_measured(imported, monkeypatch, capsys):
    bench = imported("bench")
    monkeypatch.setattr(bench, "installed", lambda python: {})
    monkeypatch.setattr(bench, "measure", lambda rows, options, console, keep: [])
    bench.bench(bench.Bench(tables=("model",), peers=True, peer_python="theirs", json=True))
    (note,) = [note for note in json.loads(capsys.readouterr().out)["notes"] if "not installed" in note]
    commands = "theirs -m pip install hydra-core termcolor tqdm && theirs -m pip install --no-deps mbrl"
    assert note == f"mbrl-lib is not installed in theirs: {commands}"


def test_a_model_is_fitted_and_imagined_by_both(imported):
    model, spec = imported("benchmarks.models"), imported("benchmarks.ours").SPEC
    for work, objective in (("fit", "vagram"), ("imagine", "likelihood")):
        for plain in (False, True):
            count, seconds = model.model(work, objective, plain, False, "fp32", spec, "cpu")(0.01)
            assert count >= (7 * 256 if work == "fit" else 10_000)
            assert seconds > 0


def test_released_simba_v2_is_estimated_in_units_of_the_yardstick(imported):
    bench, plan = imported("bench"), imported("benchmarks.plan")
    twins = bench.Result(plan.Row("simba", "two critics", 2, {"critics": 2}), [15.6])
    yardstick = bench.Result(plan.Row("simba", "SAC", 1, {}, "sb3"), [146.0])
    assert bench.ratios(twins, [twins, yardstick]) == {"released JAX code": pytest.approx(2.0)}
    assert bench.ratios(twins, [twins]) == {}


def test_plan_covers_every_table_and_leaves_out_what_is_not_there(imported):
    plan = imported("benchmarks.plan")
    rows = plan.plan((1, 2), ("fp32",), cuda=False, peers=("sb3",))
    assert {row.table for row in rows} == set(plan.TITLES)
    assert {row.library for row in rows} == {"steelyard", "sb3"}
    assert not [row for row in rows if row.options.get("device") == "cuda" or row.options.get("precision") == "bf16"]
    assert [row for row in plan.plan((1,), ("fp32",), cuda=True, peers=()) if row.options.get("device") == "cuda"]


def test_json_holds_every_window(imported, monkeypatch: pytest.MonkeyPatch, capsys):
    bench = imported("bench")

    class Instant:
        """A worker without a process."""

        def __init__(self, *arguments: object) -> None:
            self.rate, self.shares = 0.0, {"env": 1.0}

        def measure(self, seconds: float) -> float:
            self.rate += 1
            return self.rate

        def close(self) -> None:
            pass

    monkeypatch.setattr(bench, "Worker", Instant)
    monkeypatch.setattr(sys, "argv", ["bench.py", "--json", "--tables", "replay", "--rounds", "3"])
    bench.main()
    printed = capsys.readouterr()
    (table,) = json.loads(printed.out)["tables"]
    assert [line.split(" (")[-1] for line in printed.err.splitlines()] == [f"{number} of 8)" for number in range(1, 9)]
    assert [row["windows"] for row in table["rows"]] == [[1, 2, 3]] * 8
    assert [row["per_second"] for row in table["rows"]] == [2] * 8
    assert table["rows"][0]["shares"] == {"env": 1.0}


def test_a_clock_divides_the_time_between_parts(imported):
    clock = imported("benchmarks.resident").Clock(lambda: None)
    quick, slow = clock.around("quick", lambda: time.sleep(0.01)), clock.around("slow", lambda: time.sleep(0.03))
    slow()
    assert not clock.seconds
    clock.on = True
    for _ in range(3):
        quick()
        slow()
    assert clock.shares() == pytest.approx({"quick": 0.25, "slow": 0.75}, abs=0.08)
