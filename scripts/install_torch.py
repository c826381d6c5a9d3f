"""Install torch into the environment that runs this file, without CUDA packages where there is no NVIDIA GPU.

On Linux the plain wheel from the package index brings several gigabytes of CUDA libraries. So pip is first asked what it would
choose: a choice without CUDA packages (macOS, Windows, an index or a local file of CPU builds) is taken as it is; otherwise the
same question goes to PyTorch's index of CPU builds. Needs nothing but Python and pip.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_PACKAGES = ("nvidia-", "cuda-")


def requirement() -> str:
    """Return the line of pyproject.toml that names torch, so that the range stands in one place."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    return next(line for line in project["dependencies"] if line.startswith("torch"))


def has_gpu() -> bool:
    """Return whether nvidia-smi is there and finds a GPU."""
    command = shutil.which("nvidia-smi")
    return command is not None and subprocess.run([command, "-L"], capture_output=True, check=False).returncode == 0


def pip(*options: str, quiet: bool = False) -> bool:
    """Run `pip install` with these options and return whether it succeeded."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--quiet", *options]
    return subprocess.run(command, check=False, capture_output=quiet).returncode == 0


def choice(torch: str, index: list[str]) -> list[str] | None:
    """Return the names of what pip would install from this index: none if torch is there already; None if it cannot."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        if not pip("--dry-run", "--report", str(report), *index, torch, quiet=True):
            return None
        return [item["metadata"]["name"].lower() for item in json.loads(report.read_text())["install"]]


def main() -> None:
    """Install torch, or end with one sentence that says why it cannot be installed."""
    torch = requirement()
    if has_gpu():
        sys.exit(0 if pip(torch) else f"pip could not install {torch}: its own message stands above.")
    indices: list[list[str]] = [[], ["--index-url", CPU_INDEX]]
    for index in indices:
        names = choice(torch, index)
        if names is not None and not any(name.startswith(CUDA_PACKAGES) for name in names):
            sys.exit(0 if not names or pip(*index, torch) else f"pip could not install {torch}: its own message stands above.")
    sys.exit(
        f"No CPU build of {torch} could be found: the configured package index offers only CUDA builds or none, and {CPU_INDEX} "
        "cannot be reached; check the network, or install a CPU build of torch into this environment and run make again."
    )


if __name__ == "__main__":
    main()
