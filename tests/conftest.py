"""What every test shares: the repository's folder, a seed, and one thread, so that several tests and trainings fit beside each other."""

import sys
from collections.abc import Generator
from pathlib import Path

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
