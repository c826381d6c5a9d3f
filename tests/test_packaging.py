"""The package that users install: its folders, its types, its wheel, and the direction of its imports."""

import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOTS = ("agents", "envs", "trainers")
IMPORT_EVERYTHING = """
import importlib, pathlib, sys
target = pathlib.Path(sys.argv[1])
for file in sorted(target.glob("steelyard/**/*.py")):
    name = ".".join(file.relative_to(target).with_suffix("").parts).removesuffix(".__init__")
    module = importlib.import_module(name)
    assert pathlib.Path(module.__file__) == file, f"{name} came from {module.__file__}"
    print(name)
"""


@pytest.fixture(scope="module")
def project(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())


def package_folders(repository: Path) -> list[Path]:
    return [file.parent for root in ROOTS for file in sorted((repository / root).rglob("__init__.py"))]


def test_package_list_equals_the_folders(repository: Path, project: dict):
    folders = {"steelyard." + ".".join(folder.relative_to(repository).parts) for folder in package_folders(repository)}
    assert set(project["tool"]["setuptools"]["packages"]) == folders


def test_no_module_lies_outside_a_package(repository: Path):
    modules = {file.parent for root in ROOTS for file in (repository / root).rglob("*.py")}
    assert modules <= set(package_folders(repository))


def test_every_package_is_marked_as_typed(repository: Path):
    assert [folder for folder in package_folders(repository) if not (folder / "py.typed").is_file()] == []


def test_wheel_builds_installs_and_imports_without_a_network(repository: Path, tmp_path: Path):
    source, wheels, target = tmp_path / "source", tmp_path / "wheels", tmp_path / "target"
    source.mkdir()
    for root in ROOTS:
        shutil.copytree(repository / root, source / root, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--no-input"]
    offline = ["--no-deps", "--no-index", "--no-cache-dir"]
    subprocess.run([*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(wheels), str(source)], check=True)
    (wheel,) = wheels.glob("steelyard-*.whl")
    subprocess.run([*pip, "install", *offline, "--target", str(target), str(wheel)], check=True)

    modules = {file.relative_to(source) for root in ROOTS for file in (source / root).rglob("*.py")}
    assert {file.relative_to(target / "steelyard") for file in target.glob("steelyard/**/*.py")} == modules
    assert len(list(target.glob("steelyard/**/py.typed"))) == len(package_folders(source))
    assert list(target.glob("steelyard-*.dist-info/licenses/LICENSE"))
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, sys.argv[1])\n{IMPORT_EVERYTHING}", str(target)]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == len(modules)


@pytest.mark.parametrize(
    ("file", "line", "refused"),
    [
        ("agents/sac.py", "import steelyard.agents.types", False),
        ("agents/sac.py", "import steelyard.envs.vector", True),
        ("agents/sac.py", "from steelyard import trainers", True),
        ("agents/parts/model.py", "from steelyard.trainers.buffer import ReplayBuffer", True),
        ("agents/sac.py", "from ..envs import vector", True),
        ("envs/vector.py", "from steelyard.agents.types import Spec", False),
        ("envs/vector.py", "from steelyard.trainers.buffer import ReplayBuffer", True),
        ("trainers/online.py", "from steelyard.envs.vector import VectorEnv", False),
        *((f"{folder}/x.py", f"from {root} import x", True) for folder in (*ROOTS, "scripts", "tests") for root in ROOTS),
    ],
)
def test_linter_keeps_the_direction_of_imports(repository: Path, file: str, line: str, refused: bool):
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID", "--stdin-filename", file, "-"]
    done = subprocess.run(command, cwd=repository, input=line + "\n", check=False, capture_output=True, text=True)
    assert done.returncode == refused, done.stdout + done.stderr


CUDA, CPU, NOTHING_NEW, UNREACHABLE = ["torch", "nvidia-cublas", "triton"], ["torch", "sympy"], [], None


@pytest.mark.parametrize(
    ("gpu", "plain", "cpu_index", "installed_from"),
    [
        (True, CUDA, CPU, "plain"),
        (False, CUDA, CPU, "cpu_index"),
        (False, CPU, UNREACHABLE, "plain"),
        (False, UNREACHABLE, CPU, "cpu_index"),
        (False, NOTHING_NEW, UNREACHABLE, "nowhere"),
        (False, CUDA, UNREACHABLE, "refused"),
        (False, UNREACHABLE, UNREACHABLE, "refused"),
    ],
)
def test_no_cuda_packages_without_a_gpu(repository: Path, monkeypatch: pytest.MonkeyPatch, gpu, plain, cpu_index, installed_from):
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    module = importlib.import_module("install_torch")
    installed = []
    monkeypatch.setattr(module, "has_gpu", lambda: gpu)
    monkeypatch.setattr(module, "choice", lambda torch, index: cpu_index if index else plain)
    monkeypatch.setattr(module, "pip", lambda *options: installed.append(options) or True)
    with pytest.raises(SystemExit) as end:
        module.main()
    if installed_from == "refused":
        assert "No CPU build of torch" in str(end.value)
    else:
        assert end.value.code == 0
    expected = {"plain": [(module.requirement(),)], "cpu_index": [("--index-url", module.CPU_INDEX, module.requirement())]}
    assert installed == expected.get(installed_from, [])


def test_changelog_names_the_version(repository: Path, project: dict):
    versions = re.findall(r"^## \[([\d.]+)\]", (repository / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == project["project"]["version"]


@pytest.mark.parametrize("folder", [*ROOTS, "tests", "scripts", "results"])
def test_every_folder_explains_itself(repository: Path, folder: str):
    assert (repository / folder / "README.md").is_file()
