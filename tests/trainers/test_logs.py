"""Logs: what is on disk after a run, a kill and a resume."""

import csv
import errno
import json
import os
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from steelyard.trainers.errors import run_script
from steelyard.trainers.logs import LogError, Logs, TensorBoard, WeightsAndBiases, read
from steelyard.trainers.tables import Table, TableError, read_columns


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_row_begins_with_the_counters_and_is_on_disk_at_once(tmp_path: Path) -> None:
    logs = Logs(tmp_path, ())
    logs.train(1000, 500, {"train/critic_loss": torch.tensor(0.25), "train/return": 3.5})
    (row,) = rows(tmp_path / "train.csv")
    assert list(row) == ["env_steps", "updates", "seconds", "train/critic_loss", "train/return"]
    assert (row["env_steps"], row["updates"], row["train/critic_loss"], row["train/return"]) == ("1000", "500", "0.25", "3.5")


def test_rates_are_differences_between_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 10.0, 10.0, 14.0, 14.0])
    monkeypatch.setattr("steelyard.trainers.logs.time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    logs = Logs(tmp_path, ())
    logs.resume(0)
    logs.train(1000, 500, {})
    logs.train(1400, 600, {})
    _, second = rows(tmp_path / "train.csv")
    assert float(second["time/env_steps_per_second"]) == 100.0
    assert float(second["time/updates_per_second"]) == 25.0
    assert float(second["seconds"]) == 14.0


def test_a_new_column_rewrites_the_header_and_keeps_earlier_rows(tmp_path: Path) -> None:
    table = Table(tmp_path / "train.csv")
    table.append({"env_steps": 1, "a": 1.0})
    table.append({"env_steps": 2, "b": 2.0})
    table.append({"env_steps": 3, "a": 3.0})
    assert rows(tmp_path / "train.csv") == [
        {"env_steps": "1", "a": "1.0", "b": ""},
        {"env_steps": "2", "a": "", "b": "2.0"},
        {"env_steps": "3", "a": "3.0", "b": ""},
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["train.csv"]
    assert read_columns(tmp_path / "train.csv", ("env_steps", "a")) == {"env_steps": [1.0, 3.0], "a": [1.0, 3.0]}


def test_resume_drops_rows_beyond_the_checkpoint_and_the_clock_goes_on(tmp_path: Path) -> None:
    logs = Logs(tmp_path, ())
    for step in (1000, 2000, 3000):
        logs.train(step, step, {"train/return": float(step)})
        logs.evaluation(step, step, {"eval/return": float(step)})
    logs.close()
    for name in ("train.csv", "eval.csv"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace("2000,2000,", "2000,2000,60").replace("3000,3000,", "3000,3000,90"))
    resumed = Logs(tmp_path, ())
    resumed.resume(2000)
    resumed.train(3000, 3000, {"train/return": -1.0})
    resumed.evaluation(3000, 3000, {"eval/return": -1.0})
    table = rows(tmp_path / "train.csv")
    assert [(row["env_steps"], row["train/return"]) for row in table] == [
        ("1000", "1000.0"),
        ("2000", "2000.0"),
        ("3000", "-1.0"),
    ]
    assert [row["eval/return"] for row in rows(tmp_path / "eval.csv")] == ["1000.0", "2000.0", "-1.0"]
    assert 600 <= float(table[1]["seconds"]) <= float(table[2]["seconds"]) < 900


def test_resume_at_zero_starts_anew(tmp_path: Path) -> None:
    logs = Logs(tmp_path, ())
    logs.train(1000, 0, {"old": 1.0})
    logs.close()
    again = Logs(tmp_path, ())
    again.resume(0)
    again.train(1000, 0, {"new": 1.0})
    (row,) = rows(tmp_path / "train.csv")
    assert "old" not in row


def test_a_half_written_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("env_steps,a\n1,1.0\n2,2.")
    table = Table(path)
    table.append({"env_steps": 2, "a": 2.5})
    assert [row["a"] for row in rows(path)] == ["1.0", "2.5"]


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "eval.csv").write_bytes(bytes(range(256)))
    with pytest.raises(TableError, match=r"eval\.csv is no text"):
        Table(tmp_path / "eval.csv")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_names_the_table(tmp_path: Path) -> None:
    table = Table(tmp_path / "train.csv")
    table.append({"env_steps": 1})
    table.close()
    table._file = open("/dev/full", "a")  # noqa: SIM115
    with pytest.raises(OSError, match="No space left on device") as error:
        table.append({"env_steps": 2})
    assert error.value.filename == str(tmp_path / "train.csv")


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "env_steps,a\n1,2,3\n", "env_steps,a\nx,2\n", "env_steps,a\n1,hello\n", ""])
def test_a_foreign_table_is_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "eval.csv"
    path.write_text(text)
    with pytest.raises(TableError, match=r"eval\.csv"):
        Table(path)
    assert path.read_text() == text


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "eval.csv").write_text("env_steps,a\n1,2\n")
    with pytest.raises(TableError, match="no column `eval/return`"):
        read_columns(tmp_path / "eval.csv", ("env_steps", "eval/return"))


def test_tensorboard_reads_the_values_and_forgets_those_beyond_a_resume(tmp_path: Path) -> None:
    for start, stop, value in ((0, 5, 1.0), (3, 7, 2.0)):
        logs = Logs(tmp_path, (TensorBoard(),))
        logs.resume(start)
        for step in range(start + 1, stop):
            logs.evaluation(step, step, {"eval/return": torch.tensor(value)})
        logs.close()
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    scalars = [(event.step, event.value) for event in events.Scalars("eval/return")]
    assert scalars == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0), (6, 2.0)]


class FullDisk:
    """What a file of TensorBoard's is once the disk is full; `writes` fit before."""

    def __init__(self, writes: int) -> None:
        self.writes = writes

    def write(self, *_: object) -> None:
        self.writes -= 1
        if self.writes < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("writes", [0, 3])
@pytest.mark.parametrize("more", [True, False], ids=["at the next row", "at the end"])
def test_a_full_disk_ends_tensorboard_with_one_sentence(
    writes: int, more: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its writer has a thread of its own, which would print a traceback; the table beside it had room left."""
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)  # pytest has one that collects

    def run() -> None:
        logs = Logs(tmp_path, (TensorBoard(flush_seconds=0),))
        logs.resume(0)
        monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", FullDisk(writes).write)
        try:
            for step in range(200 if more else 4):
                logs.train(step + 1, step, {"a": 1.0})
                time.sleep(0.002)
        finally:
            logs.close()

    with pytest.raises(SystemExit):
        run_script(run)
    assert capsys.readouterr().err == f"error: No space left on device: {tmp_path / 'tb'}\n"
    assert threading.excepthook is threading.__excepthook__


def test_other_threads_keep_their_tracebacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise OSError(errno.EIO, "a fault of somebody else's")

    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    logs = Logs(tmp_path, (TensorBoard(),))
    logs.resume(0)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    logs.close()
    assert "a fault of somebody else's" in capsys.readouterr().err


def test_tensors_must_be_scalar() -> None:
    assert read({"a": torch.tensor([2.0], dtype=torch.bfloat16), "b": 3}) == {"a": 2.0, "b": 3}
    with pytest.raises(LogError, match=r"`a` has the shape \(2,\)"):
        read({"a": torch.zeros(2)})


def test_weights_and_biases_missing_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(LogError, match=r"pip install 'steelyard\[wandb\]'"):
        Logs(tmp_path, (WeightsAndBiases(),)).resume(0)


def test_weights_and_biases_continues_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    logged: list[dict[str, float]] = []
    run = types.SimpleNamespace(define_metric=lambda name, step_metric: None, log=logged.append, finish=lambda: None)

    def init(**settings: Any) -> types.SimpleNamespace:
        calls.append(settings)
        return run

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    for start in (0, 10, 0):
        logs = Logs(tmp_path, (WeightsAndBiases(project="p"),))
        logs.resume(start)
        logs.train(start + 1, 0, {"a": 1.0})
        logs.close()
    assert calls[0]["id"] == calls[1]["id"] != calls[2]["id"]
    assert logged[1] == {"env_steps": 11, "a": 1.0}


def test_run_json_has_an_entry_per_launch(tmp_path: Path) -> None:
    for start in (0, 500):
        Logs(tmp_path, ()).resume(start)
    launches = json.loads((tmp_path / "run.json").read_text())["launches"]
    assert [launch["env_steps"] for launch in launches] == [0, 500]
    assert launches[0]["versions"]["torch"] == torch.__version__
    assert {"mujoco", "gymnasium"} <= launches[0]["versions"].keys()
    assert launches[0]["command"]
    assert launches[0]["python"]
    assert launches[0]["cpu"]["torch_threads"] >= 1
