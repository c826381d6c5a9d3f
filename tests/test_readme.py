"""Every command in every README is one that its script understands, and every make target and link is there.

A script is run up to the point where its command line has been read: tyro's own parsing is done in full, and nothing after it.
"""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

ROOT = Path(__file__).parents[1]
READMES = [
    ROOT / "README.md",
    *(ROOT / folder / "README.md" for folder in ("agents", "envs", "trainers", "scripts", "tests", "results")),
]
INSTALLERS = ("pip", "git", "cd", "python3", "source")


class CommandLineReadError(Exception):
    """Raised in place of what a script does after reading its command line."""


def commands() -> list[tuple[str, str]]:
    found = []
    for readme in READMES:
        for block in re.findall(r"```sh\n(.*?)```", readme.read_text() if readme.is_file() else "", re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            found += [
                (readme.parent.name, line.split(" #")[0].strip()) for line in lines if line.strip() and not line.startswith("#")
            ]
    return found


@pytest.fixture
def stop_after_parsing(monkeypatch: pytest.MonkeyPatch):
    cli = tyro.cli

    def parse_only(*args, **kwargs):
        cli(*args, **kwargs)
        raise CommandLineReadError

    monkeypatch.setattr(tyro, "cli", parse_only)


def test_readme_has_commands():
    assert len(commands()) > 10


@pytest.mark.parametrize("command", [command for _, command in commands()])
def test_command_is_understood(command: str, stop_after_parsing: None, monkeypatch: pytest.MonkeyPatch):
    words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=.*", word)]
    if words[0] == "make":
        subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif Path(words[0]).name.startswith("python") and words[1].startswith("scripts/"):
        script, arguments = ROOT / words[1], words[2:]
        if "import tyro" not in script.read_text() and "command_line" not in script.read_text():
            assert not arguments, f"{words[1]} reads no command line"
            return
        monkeypatch.setattr(sys, "argv", [str(script), *arguments])
        monkeypatch.syspath_prepend(str(script.parent))
        if arguments == ["--list"]:
            runpy.run_path(str(script), run_name="__main__")
        else:
            with pytest.raises(CommandLineReadError):
                runpy.run_path(str(script), run_name="__main__")
    else:
        assert words[0] == "tensorboard" or Path(words[0]).name in INSTALLERS or "pip" in words, f"who checks `{command}`?"


@pytest.mark.parametrize("readme", [readme for readme in READMES if readme.is_file()], ids=lambda readme: readme.parent.name)
def test_links_lead_somewhere(readme: Path):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", readme.read_text())
    assert [link for link in links if not link.startswith("http") and not (readme.parent / link).exists()] == []


def test_python_example_reaches_training(monkeypatch: pytest.MonkeyPatch):
    trained = []
    monkeypatch.setattr("steelyard.trainers.online.train", trained.append)
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    assert [run.agent.critic.width for run in trained] == [256]
