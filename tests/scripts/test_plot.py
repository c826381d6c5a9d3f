"""The plot script from its command line."""

from collections.abc import Callable
from pathlib import Path

import imageio.v3 as imageio

Call = Callable[..., tuple[int, str, str]]


def test_two_seeds_become_a_picture_and_a_line(call: Call, tmp_path: Path) -> None:
    for seed in (0, 1):
        folder = tmp_path / "runs" / "walker-run" / "simba-v2" / f"seed_{seed}"
        folder.mkdir(parents=True)
        (folder / "eval.csv").write_text(f"env_steps,updates,seconds,eval/return\n0,0,0.0,10.0\n20000,5,9.0,{600 + 100 * seed}\n")
    status, out, err = call("plot", tmp_path / "runs", "--out", tmp_path / "curve.png")
    assert (status, err) == (0, "")
    assert "walker-run  simba-v2  650.0 [600.0, 700.0] at 20,000 env steps, seeds: 2" in out
    assert out.splitlines()[-1] == str(tmp_path / "curve.png")
    assert imageio.imread(tmp_path / "curve.png").shape[2] in (3, 4)


def test_meters_are_drawn_beside_the_return(call: Call, tmp_path: Path) -> None:
    for seed in (0, 1):
        folder = tmp_path / "runs" / "walker-run" / "sac" / f"seed_{seed}"
        folder.mkdir(parents=True)
        (folder / "eval.csv").write_text(f"env_steps,updates,seconds,eval/return\n0,0,0.0,10.0\n20000,5,9.0,{600 + 100 * seed}\n")
        rows = f"10000,5,1.0,,\n15000,5,1.0,0.5,0.{seed}1\n20000,5,1.0,0.4{seed},0.2\n"
        (folder / "train.csv").write_text(f"env_steps,updates,seconds,meter/critic/active,meter/critic/dormant\n{rows}")
    arguments = ("plot", tmp_path / "runs", "--out", tmp_path / "alone.png")
    assert call(*arguments)[0] == 0
    wide = ("plot", tmp_path / "runs", "--out", tmp_path / "wide.png", "--meters", "meter/critic/active", "meter/critic/dormant")
    status, out, err = call(*wide)
    assert (status, err, out.splitlines()[-1]) == (0, "", str(tmp_path / "wide.png"))
    assert imageio.imread(tmp_path / "wide.png").shape[1] > 1.5 * imageio.imread(tmp_path / "alone.png").shape[1]
    status, _, err = call(*wide, "meter/critic/activity")
    assert status == 1
    assert "has no column `meter/critic/activity`" in err


def test_normalised_scores_of_a_run_that_begins_with_data(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "Hopper-v4" / "iql-locomotion" / "seed_0"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"class": "Transfer", "offline_updates": 1000, "env_steps": 1000}')
    header = "steps,updates,seconds,eval/return,env_steps,eval/normalized"
    (folder / "eval.csv").write_text(f"{header}\n0,0,0.0,10.0,0,1.0\n2000,5,9.0,600.0,1000,19.5\n")
    arguments = ("plot", tmp_path, "--out", tmp_path / "curve.png")
    assert "Hopper-v4  iql-locomotion  600.0 at 2,000 steps, seeds: 1" in call(*arguments)[1]
    assert "Hopper-v4  iql-locomotion  19.5 at 2,000 steps, seeds: 1" in call(*arguments, "--metric", "eval/normalized")[1]
    status, _, err = call(*arguments, "--metric", "eval/normalised")
    assert status == 1
    assert "has no column `eval/normalised`; it has steps, updates, seconds, eval/return, env_steps, eval/normalized." in err


def test_a_mistake_is_one_sentence(call: Call, tmp_path: Path) -> None:
    status, _, err = call("plot", tmp_path)
    assert status == 1
    assert err == f"error: there is no eval.csv in or below {tmp_path}; give run folders that were evaluated at least once.\n"
