"""What every test shares: the repository's folder, and one thread, so that several tests and trainings fit beside each other."""

from pathlib import Path

import pytest
import torch

import steelyard.envs  # noqa: F401  chooses what draws pictures before a test imports dm-control, which else takes glfw

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).parents[1]
