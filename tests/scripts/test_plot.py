"""The plot script from its command line."""

import subprocess
import sys
from pathlib import Path

import imageio.v3 as imageio


def run(repository: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, repository / "scripts" / "plot.py", *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def test_two_seeds_become_a_picture_and_a_line(repository: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        folder = tmp_path / "runs" / "walker-run" / "simba-v2" / f"seed_{seed}"
        folder.mkdir(parents=True)
        (folder / "eval.csv").write_text(f"env_steps,updates,seconds,eval/return\n0,0,0.0,10.0\n20000,5,9.0,{600 + 100 * seed}\n")
    done = run(repository, tmp_path / "runs", "--out", tmp_path / "curve.png")
    assert done.returncode == 0, done.stderr
    assert "walker-run  simba-v2  650.0 [600.0, 700.0] at 20,000 env steps, seeds: 2" in done.stdout
    assert done.stdout.splitlines()[-1] == str(tmp_path / "curve.png")
    assert imageio.imread(tmp_path / "curve.png").shape[2] in (3, 4)


def test_a_mistake_is_one_sentence(repository: Path, tmp_path: Path) -> None:
    done = run(repository, tmp_path)
    assert done.returncode == 1
    assert (
        done.stderr
        == f"error: there is no eval.csv in or below {tmp_path}; give run folders that were evaluated at least once.\n"
    )
