"""What several tests of worlds need."""

import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import pytest


@pytest.fixture
def foreign_worlds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets `foreign_worlds:Id` be found, and forgets the module's ids afterwards."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    before = dict(gym.registry)
    yield
    sys.modules.pop("foreign_worlds", None)
    gym.registry.clear()
    gym.registry.update(before)
