"""What every test shares: the repository's folder, a seed, and one thread, so that several tests and trainings fit beside each other."""

import sys
from collections.abc import Generator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch

import steelyard.envs  # noqa: F401  chooses what draws pictures before a test imports dm-control, which else takes glfw

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_start() -> None:
    """Every test begins with the same random numbers, whichever tests ran before it in its process."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).parents[1]


@pytest.fixture
def without_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers and autocast for torch's device "meta", which has neither, so that code for a GPU runs there as far as shapes and devices go."""
    generator, draws = torch.Generator, {"rand": torch.rand, "randn": torch.randn}

    class OnDevice(torch.Generator):
        device = torch.device("meta")

    class AnyGenerator(torch.Generator):
        def __new__(cls, device: Any = "cpu") -> torch.Generator:
            return OnDevice() if str(device) == "meta" else generator(device)

    def on_device(draw: str) -> Any:
        return lambda *shape, generator=None, device=None, **given: draws[draw](*shape, device=device, **given)

    monkeypatch.setattr(torch, "Generator", AnyGenerator)
    for draw in draws:
        monkeypatch.setattr(torch, draw, on_device(draw))
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **given: nullcontext())


@pytest.fixture
def robotics() -> Generator[None, None, None]:
    """gymnasium-robotics for one test, which is skipped without it. What the package registers when it is imported is forgotten afterwards, since it
    replaces ids of Gymnasium's own."""
    registry, absent = dict(gym.registry), "gymnasium_robotics" not in sys.modules
    pytest.importorskip("gymnasium_robotics")
    yield
    if absent:
        gym.registry.clear()
        gym.registry.update(registry)
        sys.modules.pop("gymnasium_robotics", None)
