"""The git part of `run.json`."""

import subprocess
from pathlib import Path

from steelyard.trainers.provenance import git_state


def git(folder: Path, *command: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *command], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_commit_and_changes_of_the_repository_that_tracks_the_source(tmp_path: Path) -> None:
    git(tmp_path, "init")
    source, untracked = tmp_path / "source", tmp_path / "venv"
    source.mkdir()
    untracked.mkdir()
    (source / "a.py").write_text("1")
    git(tmp_path, "add", "source")
    git(tmp_path, "commit", "-m", "first")
    assert git_state(source) == {"commit": git(tmp_path, "rev-parse", "HEAD"), "changed": False}
    (source / "a.py").write_text("2")
    assert (git_state(source) or {})["changed"] is True
    assert git_state(untracked) is None


def test_no_repository(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
