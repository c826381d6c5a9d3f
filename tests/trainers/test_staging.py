"""Pinned batches on their way to a GPU: the order of fills and copies without one, the real thing where there is one."""

import pytest
import torch

from steelyard.agents.types import Batch
from steelyard.trainers.staging import Staging


def batch(value: float, rows: int = 3) -> Batch:
    column = torch.full((rows,), value)
    obs = torch.full((rows, 2), value)
    return Batch(obs, obs + 1, column, obs + 2, column, column, torch.arange(rows) + int(value))


class Story:
    """Events and memory that write down what happens to them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.events = self.allocated = 0

    def event(self) -> "Marker":
        self.events += 1
        return Marker(self, self.events - 1)

    def allocate(self, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        self.allocated += 1
        return torch.empty(shape, dtype=dtype)


class Marker:
    def __init__(self, story: Story, number: int):
        self.story, self.number = story, number

    def synchronize(self) -> None:
        self.story.lines.append(f"wait {self.number}")

    def record(self) -> None:
        self.story.lines.append(f"record {self.number}")


def test_a_set_is_filled_again_only_after_its_copies() -> None:
    story = Story()
    # "meta" keeps no values but takes copies as a device does.
    staging = Staging(torch.device("meta"), story.allocate, story.event)
    for value in range(4):
        moved = staging.move(batch(value))
        assert moved.obs.device.type == "meta"
        assert moved.goal_return is None
        # The set of this turn holds this batch, the other one still the batch before it.
        assert (staging.slots[value % 2]["obs"] == value).all()
        if value:
            assert (staging.slots[1 - value % 2]["obs"] == value - 1).all()
    assert story.lines == ["wait 0", "record 0", "wait 1", "record 1"] * 2
    assert story.allocated == 2 * 7
    # Another size takes new memory, of its own set alone.
    staging.move(batch(9, rows=5))
    assert story.allocated == 3 * 7


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_batches_arrive_whole_while_the_gpu_is_behind() -> None:
    staging = Staging(torch.device("cuda"))
    busy = torch.randn(4096, 4096, device="cuda")
    moved = []
    for value in range(20):
        # Work in front of every copy, so that a set that was filled too early would show.
        for _ in range(5):
            busy = torch.tanh(busy @ busy)
        moved.append(staging.move(batch(value, rows=4096)))
    assert all(slot["obs"].is_pinned() for slot in staging.slots)
    for value, found in enumerate(moved):
        for sent, got in zip(batch(value, rows=4096), found, strict=True):
            assert sent is got or (sent is not None and got is not None and torch.equal(sent, got.cpu()))
