"""One process at a time in a run's folder, and nothing left where nothing was begun."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from steelyard.envs.vector import EnvError
from steelyard.trainers import presets, run_lock, shrinking
from steelyard.trainers.online import train
from steelyard.trainers.run_lock import InUseError

RUN = dataclasses.replace(shrinking.debug(presets.MUJOCO["sac"]), task="Pendulum-v1", env_steps=20, random_steps=10, log_to=())

HOLDER = """
import sys
from pathlib import Path
from steelyard.trainers import run_lock
with run_lock.alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_in_use_is_waited_for_and_then_refused(tmp_path: Path) -> None:
    with (
        run_lock.alone_in(tmp_path / "run"),
        pytest.raises(InUseError, match="is in use by another process"),
        run_lock.alone_in(tmp_path / "run", patience=0.1),
    ):
        pass
    with run_lock.alone_in(tmp_path / "run"):
        pass


def test_a_second_process_in_the_same_run_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    folder = RUN.folder(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InUseError, match="another --seed, --preset or --root"):
        train(RUN, tmp_path)
    assert [path.name for path in folder.iterdir()] == [run_lock.LOCK]
    holder.kill()
    holder.communicate()
    train(RUN, tmp_path)
    assert train(RUN, tmp_path, fresh=True) == folder
    assert (folder / run_lock.LOCK).exists()


def test_what_cannot_begin_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(EnvError, match="there is no task"):
        train(dataclasses.replace(RUN, task="Pendulm-v1"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_fresh_deletes_all_but_the_lock(tmp_path: Path) -> None:
    with run_lock.alone_in(tmp_path / "run"):
        (tmp_path / "run" / "checkpoints" / "step_1").mkdir(parents=True)
        (tmp_path / "run" / "train.csv").write_text("x")
        run_lock.clear(tmp_path / "run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == [run_lock.LOCK]


def test_fresh_also_deletes_what_lost_its_configuration(tmp_path: Path) -> None:
    folder = train(RUN, tmp_path)
    (folder / "config.json").unlink()
    longer = dataclasses.replace(RUN, env_steps=30)
    train(longer, tmp_path, fresh=True)
    assert [path.name for path in (folder / "checkpoints").glob("step_*")] == ["step_30"]
    assert (folder / "eval.csv").read_text().splitlines()[1].startswith("0,")
