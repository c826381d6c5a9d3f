"""Agents trained on data laid out as D4RL's AntMaze and kitchen files are scored in their worlds."""

import csv
import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest

from steelyard.agents.agent import Execution
from steelyard.agents.networks import MLP
from steelyard.trainers.d4rl_presets import D4RL, resolve
from steelyard.trainers.online import train
from steelyard.trainers.pipeline import Pipeline


@pytest.mark.parametrize(
    ("preset", "file", "task", "sizes"),
    [
        ("iql-antmaze", "Ant_maze_u-maze_noisy_multistart_True_multigoal_True_sparse_fixed", "antmaze-umaze-diverse-v2", (29, 8)),
        ("iql-kitchen", "kitchen_microwave_kettle_bottomburner_light-v0", "kitchen-mixed-v0", (60, 9)),
    ],
)
@pytest.mark.usefixtures("robotics")
def test_a_file_of_d4rl_trains_and_is_scored(tmp_path: Path, preset: str, file: str, task: str, sizes: tuple[int, int]) -> None:
    random, rows = np.random.default_rng(0), 60
    with h5py.File(tmp_path / f"{file}.hdf5", "w") as out:
        out["observations"] = random.normal(size=(rows, sizes[0])).astype(np.float32)
        out["actions"] = random.uniform(-1, 1, (rows, sizes[1])).astype(np.float32)
        out["rewards"] = (np.arange(rows) % 20 == 19).astype(np.float32)
        out["terminals"] = (np.arange(rows) % 20 == 19).astype(np.float32)
    tiny = MLP((8,))
    run = D4RL[preset]
    run = dataclasses.replace(
        run,
        dataset=str(tmp_path / f"{file}.hdf5"),
        agent=dataclasses.replace(run.agent, actor=tiny, critic=tiny, value=tiny, batch_size=8),
        offline_updates=2,
        evaluation_interval=2,
        evaluation_episodes=1,
        capacity=100,
        execution=Execution(compile=False),
        threads=1,
    )
    run = resolve(run)
    assert run.task == task
    folder = train(run, tmp_path, make_loop=Pipeline)
    rows_written = list(csv.DictReader((folder / "eval.csv").open()))
    assert {row["eval/normalized"] for row in rows_written} == {"0.0"}
