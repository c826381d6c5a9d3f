"""`run.json`: what produced a run – versions, commit, machine and command line – one entry per launch."""

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from steelyard.trainers.durable import replace_file

PACKAGES = ("steelyard", "torch", "numpy", "gymnasium", "mujoco", "dm-control")


def record_launch(folder: Path, env_steps: int) -> None:
    """Adds this process to `folder/run.json`; `env_steps` is where the run starts or resumes."""
    path = folder / "run.json"
    launches: list[dict[str, Any]] = json.loads(path.read_text())["launches"] if path.exists() else []
    launches.append({"env_steps": env_steps, **describe()})
    replace_file(path, f"{json.dumps({'launches': launches}, indent=2)}\n".encode())


def describe() -> dict[str, Any]:
    """Everything about this process that a reader of its numbers may ask for, as plain data."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        # Resolved, because an editable install may consist of links to the files.
        "git": git_state(Path(__file__).resolve().parent),
        "platform": platform.platform(),
        "cpu": {
            "count": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        },
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def git_state(source: Path) -> dict[str, Any] | None:
    """Commit of the repository that tracks the `source` folder, and whether files were changed since; None without one."""

    def git(*command: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(source), *command], capture_output=True, text=True, timeout=10, check=False)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy may lie in a .venv inside somebody else's repository: only one that tracks the source counts.
    if not git("ls-files", "."):
        return None
    commit = git("rev-parse", "HEAD")
    return {"commit": commit, "changed": bool(git("status", "--porcelain", "--untracked-files=no"))} if commit else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
