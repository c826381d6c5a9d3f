"""Pictures of MinAtar's games for people."""

import colorsys

import numpy as np
from numpy.typing import NDArray

DEFAULT_RENDER_SIZE = 200


def draw(cells: NDArray[np.bool_], size: int | None) -> NDArray[np.uint8]:
    """An RGB picture [size, size, 3] of an observation [channels, height, width]; 200 pixels by default.

    Every channel has a colour of its own on black, and of several in one cell the last is seen.
    """
    size = size or DEFAULT_RENDER_SIZE
    channels, *lengths = cells.shape
    hues = [colorsys.hsv_to_rgb(channel / channels, 0.65, 1.0) for channel in range(channels)]
    colours = np.array([(0.0, 0.0, 0.0), *hues])
    seen = (cells * np.arange(1, channels + 1)[:, None, None]).max(0)
    rows, columns = (np.arange(size) * length // size for length in lengths)
    return (255 * colours).round().astype(np.uint8)[seen][rows][:, columns]
