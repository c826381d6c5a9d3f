"""Video files: they decode, with one frame per decision of one episode."""

from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from torch import Tensor

from steelyard.agents.types import Spec, Step
from steelyard.envs.vector import EnvError
from steelyard.trainers.video import VideoError, film


class Fading:
    """World 0 ends after `length` decisions, world 1 after one; the picture's brightness is the decision's number."""

    device = torch.device("cpu")
    num_envs = 2
    spec = Spec(1, 1, 100)

    def __init__(self, length: int, size: tuple[int, int], error: Exception | None = None):
        self.length, self.size, self.error = length, size, error

    def reset(self, seed: int | None = None) -> Tensor:
        self.clock = 0
        return torch.zeros(2, 1)

    def step(self, action: Tensor) -> Step:
        self.clock += 1
        over = torch.tensor([self.clock == self.length, True])
        if self.clock == self.length:
            self.clock = 0
        return Step(torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2), ~over & over, over, torch.tensor([True, True]), {})

    def render(self) -> Any:
        if self.error:
            raise self.error
        return np.full((*self.size, 3), 20 * self.clock, dtype=np.uint8)

    def state_dict(self) -> dict[str, Any] | None:
        return None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError

    def close(self) -> None: ...


class Still:
    device = torch.device("cpu")

    def act(self, obs: Tensor, explore: bool) -> Tensor:
        assert not explore
        return torch.zeros(len(obs), 1)


def test_a_frame_per_decision_with_even_sizes(tmp_path: Path) -> None:
    path = film(Still(), Fading(9, (65, 51)), tmp_path / "video" / "step_100.mp4", seed=0)
    frames = imageio.imread(path, plugin="FFMPEG")
    assert frames.shape == (9, 64, 50, 3)
    assert frames.mean((1, 2, 3)) == pytest.approx(20 * np.arange(9), abs=4)
    assert imageio.immeta(path, plugin="FFMPEG")["codec"] == "h264"
    assert [file.name for file in path.parent.iterdir()] == ["step_100.mp4"]


def test_a_frame_for_every_third_decision(tmp_path: Path) -> None:
    frames = imageio.imread(film(Still(), Fading(9, (64, 64)), tmp_path / "a.mp4", seed=0, every=3), plugin="FFMPEG")
    assert frames.mean((1, 2, 3)) == pytest.approx([0, 60, 120], abs=4)


def test_without_opengl_one_sentence_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no video: install libegl1"):
        film(Still(), Fading(9, (64, 64), EnvError("install libegl1.")), tmp_path / "a.mp4", seed=0)
    assert not list(tmp_path.iterdir())
