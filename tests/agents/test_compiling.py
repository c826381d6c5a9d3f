"""A compiler's cache that a killed process left behind does not stop the next one."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from steelyard.agents.compiling import removed_torn_kernel

PROGRAM = """
import sys
import torch
from steelyard.agents.compiling import one_graph

factor = float(sys.argv[1])

def scale_and_sum(values):
    return (factor * values).sum()

print(float(one_graph(scale_and_sum)(torch.ones(2))))
files = (getattr(module, "__file__", None) for module in sys.modules.values())
print(next(file for file in files if file and file.endswith(".main.so")))
"""


def run_program(factor: int) -> Path:
    """The kernel of a process that multiplies by the factor, compiled or from the cache that all processes share."""
    answer = subprocess.run([sys.executable, "-c", PROGRAM, str(factor)], capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr
    result, kernel = answer.stdout.split("\n", 1)
    assert float(result) == 2 * factor
    return Path(kernel.strip())


def test_a_kernel_torn_by_a_kill_is_compiled_anew() -> None:
    factor = random.SystemRandom().randrange(3, 10**6)
    kernel = run_program(factor)
    whole = kernel.read_bytes()
    os.truncate(kernel, 100)
    assert run_program(factor) == kernel
    assert len(kernel.read_bytes()) == len(whole)
    kernel.unlink()


def compilation_error(message: str, kind: type[Exception] = ImportError) -> RuntimeError:
    error = RuntimeError(message)
    error.inner_exception = kind(message)  # pyright: ignore[reportAttributeAccessIssue]
    return error


def test_only_libraries_of_the_cache_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    libraries = [cache / "kernel.main.so", cache / "kernel.cpp", elsewhere / "libm.so"]
    for library in libraries:
        library.parent.mkdir(exist_ok=True)
        library.touch()
    assert not removed_torn_kernel(RuntimeError(f"{libraries[0]}: file too short"))
    assert not removed_torn_kernel(compilation_error(f"{libraries[0]}: file too short", ValueError))
    assert not any(removed_torn_kernel(compilation_error(f"{library}: file too short")) for library in libraries[1:])
    assert all(library.exists() for library in libraries)
    assert removed_torn_kernel(compilation_error(f"{libraries[0]}: file too short"))
    assert not libraries[0].exists()
    assert not removed_torn_kernel(compilation_error(f"{libraries[0]}: cannot open shared object file"))
