"""The sweep's command line: which runs it plans, what it shows of them, and mistakes in one sentence. Nothing is trained and no Ray started."""

import importlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from steelyard.agents.errors import SteelyardError
from steelyard.trainers import config, plain, shrinking
from steelyard.trainers.presets import MUJOCO
from steelyard.trainers.sweep import Job, State

SCRIPTS = Path(__file__).parents[2] / "scripts"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("sweeps.grid")


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("sweeps.table")


def test_the_grid_is_presets_by_tasks_by_seeds(grid: ModuleType) -> None:
    runs = grid.plan("mujoco", ("sac", "td3"), ("Pendulum-v1", "Hopper-v5"), (), (3, 5), ())
    assert [(run.preset, run.task, run.seed) for run in runs] == [
        (preset, task, seed) for preset in ("sac", "td3") for task in ("Pendulum-v1", "Hopper-v5") for seed in (3, 5)
    ]
    # The same runs as the training script's: a sweep's results are continued by it, and the other way round.
    assert runs[2].agent == MUJOCO["sac"].agent
    assert runs[2].random_steps == MUJOCO["sac"].random_steps


def test_recipes_of_a_gpu_can_be_swept_from_a_machine_without_one(grid: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mujoco_warp", None)
    runs = grid.plan("gpu", ("fast-td3", "sac"), ("walker-walk",), (), (0, 1), ())
    assert [(run.preset, run.task, run.vectorization) for run in runs[::2]] == [
        (preset, "walker-walk", "warp") for preset in ("fast-td3", "sac")
    ]


def test_without_tasks_each_preset_has_its_own(grid: ModuleType) -> None:
    (run,) = grid.plan("mujoco", ("sac",), (), (), (0,), (), debug=True)
    assert run == shrinking.debug(MUJOCO["sac"])


def test_presets_that_depend_on_the_task_do_so_in_a_sweep(grid: ModuleType) -> None:
    tasks = ("walker-run", "quadruped-run")
    first, second = grid.plan("pixels", ("drq-v2-adaptive",), tasks, (), (0,), ("--evaluation-episodes", "3"))
    assert (first.task, first.agent.n_step, first.capacity, first.evaluation_episodes) == ("walker-run", 1, 1_000_000, 3)
    assert (second.task, second.agent.n_step, second.capacity, second.evaluation_episodes) == ("quadruped-run", 3, 100_000, 3)


def test_further_options_are_the_training_scripts(grid: ModuleType) -> None:
    further = ("--num-envs", "4", "agent.critic:simba-v2", "--agent.critic.width", "64")
    (run,) = grid.plan("mujoco", ("sac",), ("Pendulum-v1",), (), (1,), further, suffix="wide")
    assert (run.num_envs, run.agent.critic.width, run.preset, run.seed) == (4, 64, "sac-wide", 1)
    with pytest.raises(SteelyardError, match="are options of the sweep; give them before the --"):
        grid.plan("mujoco", ("sac",), ("Pendulum-v1",), (), (1,), ("--fresh",))
    with pytest.raises(SystemExit):
        grid.plan("mujoco", ("sac",), ("Pendulum-v1",), (), (1,), ("--num-evns", "4"))


def test_data_sets_take_the_place_of_tasks(grid: ModuleType) -> None:
    further = ("--offline-updates", "10")
    (run,) = grid.plan("d4rl", ("bc-locomotion",), (), ("hopper-medium-v2",), (0,), further)
    assert (run.dataset, run.offline_updates) == ("hopper-medium-v2", 10)
    assert run.task.startswith("Hopper-v")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mujoco", ("sacc",), (), (), (0,)), "mujoco has no preset 'sacc'; did you mean sac"),
        (("dmc", ("zzz",), (), (), (0,)), "dmc has no preset 'zzz'; there are sac, "),
        (("mujoco", ("sac",), ("HalfCheeta-v5",), (), (0,)), "HalfCheetah-v5"),
        (("mujoco", ("sac",), (), (), ()), "nothing to train"),
        (("mujoco", ("sac", "sac"), (), (), (0,)), "presets has sac twice"),
        (("mujoco", ("sac",), (), (), (1, 1)), "seeds has 1 twice"),
        (("mujoco", ("sac",), (), ("hopper-medium-v2",), (0,)), "take no data sets"),
        (("d4rl", ("iql-locomotion",), (), (), (0,)), "name some with --datasets"),
    ],
)
def test_a_mistake_is_one_sentence(grid: ModuleType, arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(SteelyardError, match=words):
        grid.plan(*arguments, ())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--cpus", "0"), "0 CPUs"),
        (("--gpus", "-1"), "-1 GPUs"),
        (("--retries", "-1"), "retries is -1"),
        (("--address", "127.0.0.1:1"), "no Ray cluster answers at 127.0.0.1:1"),
    ],
)
def test_impossible_options_are_refused(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, str], words: str
) -> None:
    pytest.importorskip("ray") if "--address" in arguments else None
    monkeypatch.syspath_prepend(str(SCRIPTS))
    status, _, err = call("sweep", "mujoco", "--presets", "sac", "--tasks", "Pendulum-v1", "--root", tmp_path, *arguments)
    assert status == 1
    assert words in err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1


def test_without_ray_a_sweep_says_how_to_install_it(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setitem(sys.modules, "ray", None)
    status, _, err = call("sweep", "mujoco", "--presets", "sac", "--tasks", "Pendulum-v1", "--root", tmp_path)
    assert status == 1
    assert "pip install 'steelyard[cluster]'" in err


def jobs(root: Path) -> list[Job]:
    """Two finished seeds, one that failed and one that runs."""
    found: list[Job] = []
    ends: list[tuple[State, float | None]] = [("finished", 10.0), ("finished", 20.0), ("failed", 99.0), ("running", None)]
    for seed, (state, score) in enumerate(ends):
        run = grid_run(seed)
        folder = run.folder(root)
        plain.save(run, folder / "config.json")
        if score is not None:
            (folder / "eval.csv").write_text(f"env_steps,updates,eval/return\n150,50,-7.0\n300,200,{score}\n")
        (folder / "train.csv").write_text("env_steps,updates,train/return\n200,100,3.0\n")
        found.append(Job(run, state, tries=seed, machine="node-7", words="critic is nan"))
    return found


def grid_run(seed: int) -> config.Run:
    return shrinking.debug(config.Run("Pendulum-v1", MUJOCO["sac"].agent, "sac", env_steps=300, seed=seed))


def test_the_table_shows_how_far_runs_are_and_the_summary_only_what_is_finished(table: ModuleType, tmp_path: Path) -> None:
    listed = table.rows(jobs(tmp_path), tmp_path)
    assert listed[0] == ("Pendulum-v1", "sac-debug", "0", "finished", "300 / 300", "10.0", "node-7", "")
    assert listed[2][3:] == ("failed", "300 / 300", "99.0", "node-7", "critic is nan")
    assert listed[3][3:] == ("running (try 3)", "200 / 300", "", "node-7", "")
    summary, warnings = table.summary(jobs(tmp_path), tmp_path)
    output = io.StringIO()
    Console(file=output, width=150).print(summary, table.draw(jobs(tmp_path), tmp_path))
    assert "15.0 [10.0, 20.0]" in output.getvalue()
    words = " ".join(output.getvalue().split())
    assert "4 runs below" in words
    assert "2 finished, 1 failed, 1 running" in words
    assert "2 seeds" in warnings[0]


def test_without_a_terminal_each_change_is_a_line(table: ModuleType, tmp_path: Path) -> None:
    output, listed = io.StringIO(), jobs(tmp_path)
    with table.View(listed, tmp_path, Console(file=output, width=150)) as view:
        view.update([])
        view.update(["its machine was lost."])
        listed[3].state = "finished"
        view.update([])
    lines = output.getvalue().splitlines()
    assert lines[3:] == [
        "Pendulum-v1 sac-debug seed 3 running on node-7",
        "its machine was lost.",
        "Pendulum-v1 sac-debug seed 3 finished",
    ]
