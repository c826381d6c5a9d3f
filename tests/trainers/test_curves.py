"""Reading curves from run folders and published tables, and drawing them."""

import gzip
from pathlib import Path

import imageio.v3 as imageio
import pytest

from steelyard.trainers.curves import CurveError, read_reference, read_runs
from steelyard.trainers.figures import draw


def write(root: Path, task: str, preset: str, seed: int, values: list[float]) -> Path:
    folder = root / task / preset / f"seed_{seed}"
    folder.mkdir(parents=True)
    lines = [f"{1000 * i},{i},0.5,{value},1.0,100,10" for i, value in enumerate(values)]
    (folder / "eval.csv").write_text(
        "\n".join(["env_steps,updates,seconds,eval/return,eval/return_std,eval/length,episodes", *lines, ""])
    )
    return folder


def test_runs_are_grouped_by_task_preset_and_seed(tmp_path: Path) -> None:
    write(tmp_path, "walker-run", "sac", 0, [1, 2])
    write(tmp_path, "walker-run", "sac", 3, [3, 4])
    write(tmp_path, "walker-run", "td3", 0, [5])
    folder = write(tmp_path, "hopper-hop", "sac", 0, [6])
    curves = read_runs([tmp_path])
    assert {task: {label: sorted(seeds) for label, seeds in group.items()} for task, group in curves.items()} == {
        "walker-run": {"sac": [0, 3], "td3": [0]},
        "hopper-hop": {"sac": [0]},
    }
    assert curves["walker-run"]["sac"][3].values.tolist() == [3, 4]
    assert curves["walker-run"]["sac"][3].env_steps.tolist() == [0, 1000]
    assert list(read_runs([folder, folder])) == ["hopper-hop"]


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(CurveError, match="is no folder"):
        read_runs([tmp_path / "nowhere"])
    with pytest.raises(CurveError, match=r"no eval\.csv"):
        read_runs([tmp_path])
    write(tmp_path / "a", "t", "p", 0, [1])
    write(tmp_path / "b", "t", "p", 0, [2])
    with pytest.raises(CurveError, match="the same task, preset and seed"):
        read_runs([tmp_path / "a", tmp_path / "b"])
    write(tmp_path / "c", "t", "p", 0, [])
    with pytest.raises(CurveError, match="no evaluation yet"):
        read_runs([tmp_path / "c"])
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "eval.csv").write_text("env_steps,eval/return\n")
    with pytest.raises(CurveError, match="is not a run folder"):
        read_runs([tmp_path / "d"])


def test_published_tables_with_other_column_names(tmp_path: Path) -> None:
    path = tmp_path / "published.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write(
            "exp_name,env_name,seed,metric,env_step,value\n"
            "sac,walker_run,0,avg_return,1000,20\n"
            "sac,walker_run,0,avg_return,0,10\n"
            "sac,walker_run,0,avg_success,0,1\n"
            "sac,walker_run,1,avg_return,0,30\n"
            "td3,walker_run,0,avg_return,0,40\n"
            "sac,other-task,0,avg_return,0,50\n"
        )
    curves = read_reference(path, ["walker-run"], ["sac"])
    assert list(curves) == ["walker-run"]
    assert list(curves["walker-run"]) == ["sac"]
    assert curves["walker-run"]["sac"][0].values.tolist() == [10, 20]
    assert sorted(curves["walker-run"]["sac"]) == [0, 1]
    assert sorted(read_reference(path, ["walker-run"])["walker-run"]) == ["sac", "td3"]
    plain = tmp_path / "paper.csv"
    plain.write_text("env_steps,return\n0,1\n10,2\n")
    assert read_reference(plain, ["a", "b"])["b"]["paper"][0].values.tolist() == [1, 2]
    plain.write_text("env_steps,return\n0,high\n")
    with pytest.raises(CurveError, match="line 2"):
        read_reference(plain, ["a"])
    plain.write_text("x,y\n0,1\n")
    with pytest.raises(CurveError, match="needs a column for the environment steps"):
        read_reference(plain, ["a"])


def test_a_picture_with_panels_single_seeds_and_references(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, "walker-run", "sac", seed, [0, 100 + seed, 200])
    write(tmp_path, "hopper-hop", "td3", 0, [5])
    table = tmp_path / "paper.csv"
    table.write_text("task,seed,env_steps,return\nwalker-run,0,0,0\nwalker-run,0,9000,300\n")
    curves = read_runs([tmp_path])
    path = draw(curves, tmp_path / "out" / "curve.png", references=read_reference(table, curves))
    picture = imageio.imread(path)
    assert picture.shape[0] > 300
    assert picture.shape[1] > 1.5 * picture.shape[0]
    assert picture.std() > 10
    assert [file.name for file in path.parent.iterdir()] == ["curve.png"]
