"""Augmentation of pictures: each batch shows them a little differently."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steelyard.agents.errors import SlotError
from steelyard.agents.types import Batch, Spec


@dataclass(frozen=True)
class Unaugmented:
    """Observations as they were collected."""

    def build(self, spec: Spec) -> "AsCollected":
        """A module that changes nothing."""
        del spec
        return AsCollected()


class AsCollected(nn.Module):
    """The module that `Unaugmented` describes."""

    draws = 0
    """Rows of the update's noise that it needs."""

    def forward(self, batch: Batch, noise: Tensor) -> Batch:
        """The batch."""
        return batch


@dataclass(frozen=True)
class RandomShift:
    """Pictures are shifted by a few pixels, `obs` and `next_obs` differently; what comes in at a border repeats it (DrQ, Kostrikov et al. 2020)."""

    padding: int = 4
    """Largest shift in pixels, in each direction."""
    intensity: float = 0.0
    """Deviation of the brightness of each picture: it is multiplied by 1 + intensity z, z standard normal and cut off at 2 (DrQ on Atari: 0.05)."""

    def __post_init__(self) -> None:
        if self.padding < 0 or self.intensity < 0:
            raise SlotError(
                f"RandomShift has padding {self.padding} and intensity {self.intensity}; give numbers that are not negative."
            )

    def build(self, spec: Spec) -> "Shifting":
        """The module. Raises `SlotError` if the task shows no pictures."""
        if spec.picture is None:
            raise SlotError(
                "the augmentation RandomShift needs pictures, and this task shows numbers; use the augmentation Unaugmented."
            )
        return Shifting(self, spec.picture, spec.action_size)


class Shifting(nn.Module):
    """The module that `RandomShift` describes."""

    NUMBERS = 6
    """Random numbers per sample: a shift down, a shift to the right and a brightness, for `obs` and for `next_obs`."""

    def __init__(self, config: RandomShift, picture: tuple[int, int, int], action_size: int):
        super().__init__()
        self.config, self.picture = config, picture
        self.draws = math.ceil(self.NUMBERS / action_size)

    def forward(self, batch: Batch, noise: Tensor) -> Batch:
        """The batch with other pictures; `noise` [draws, batch, action_size] is standard normal."""
        numbers = noise.transpose(0, 1).flatten(1)[:, : self.NUMBERS]
        return batch._replace(
            obs=self.augment(batch.obs, numbers[:, :3]), next_obs=self.augment(batch.next_obs, numbers[:, 3 : self.NUMBERS])
        )

    def augment(self, obs: Tensor, numbers: Tensor) -> Tensor:
        """Pictures [batch, channels * height * width], shifted and dimmed or brightened by standard normal numbers [batch, 3]."""
        shifted = shift(obs.view(obs.shape[0], *self.picture), self.pixels(numbers[:, :2])).flatten(1)
        if not self.config.intensity:
            return shifted
        return shifted * (1 + self.config.intensity * numbers[:, 2:].clamp(-2, 2))

    def pixels(self, numbers: Tensor) -> Tensor:
        """Shifts [batch, 2] int64, uniform over -padding, ..., padding, from standard normal numbers."""
        uniform = 0.5 * torch.erfc(-numbers / math.sqrt(2))
        return (uniform * (2 * self.config.padding + 1)).long().clamp(max=2 * self.config.padding) - self.config.padding


# One operation to the compiler, which would otherwise compute the shift of a picture anew for each of its pixels and take three times as
# long over a whole update on a CPU.
@torch.library.custom_op("steelyard::shift", mutates_args=())
def shift(pictures: Tensor, pixels: Tensor) -> Tensor:
    """Pictures [batch, channels, height, width] moved up and to the left by `pixels` [batch, 2]; borders are repeated. Without a gradient.

    It is a crop of the picture padded by its border. DrQ-v2's code resamples bilinearly at whole pixels, which is the same.
    """
    channels, height, width = pictures.shape[1:]
    rows = (torch.arange(height, device=pictures.device) + pixels[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=pictures.device) + pixels[:, 1:]).clamp(0, width - 1)
    place = (rows.unsqueeze(-1) * width + columns.unsqueeze(1)).flatten(1)
    moved = pictures.flatten(2).gather(2, place.unsqueeze(1).expand(-1, channels, -1))
    return moved.view(pictures.shape)


@shift.register_fake  # pyright: ignore[reportUnknownMemberType]
def _(pictures: Tensor, pixels: Tensor) -> Tensor:
    """Shape and type of what `shift` returns."""
    return torch.empty(pictures.shape, dtype=pictures.dtype, device=pictures.device)


Augmentation = Unaugmented | RandomShift
