"""Figures of several panels in the style of the learning curves."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from steelyard.trainers.figures import COLOURS, INK, MUTED
from steelyard.trainers.statistics import Curve, aggregate

__all__ = ["COLOURS", "bars", "line", "panels", "save", "style"]


def panels(columns: int, rows: int = 1, width: float = 4.3, height: float = 3.3) -> tuple[Figure, list[Axes]]:
    """A figure and its panels, row by row."""
    figure = Figure(figsize=(width * columns, height * rows + 0.7), dpi=160, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flatten())


def style(ax: Axes, title: str, x: str = "", y: str = "") -> None:
    """Titles, grid and muted axes."""
    ax.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    ax.set_xlabel(x, color=INK)
    ax.set_ylabel(y, color=INK)
    ax.grid(color="#E6E6E6", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(length=0, which="both", labelsize=9, colors=MUTED)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color("#BBBBBB")


def line(ax: Axes, x: ArrayLike, values: np.ndarray, label: str, colour: str, dashes: str = "-") -> None:
    """Mean over seeds of finite values [points, seeds] at x [points], with a 95 % band."""
    x = np.asarray(x, dtype=np.float64)
    band = aggregate({seed: Curve(x, column) for seed, column in enumerate(values.T)}, resamples=2_000)
    ax.fill_between(x, band.low, band.high, color=colour, alpha=0.16, linewidth=0, zorder=2)
    ax.plot(
        x, band.value, dashes, color=colour, linewidth=1.8, label=label, solid_capstyle="round", zorder=5 if dashes == ":" else 4
    )


def bars(ax: Axes, names: Sequence[str], values: Sequence[ArrayLike], colours: Sequence[str]) -> None:
    """Horizontal bars of means, from the top down, with every seed's value as a point; each of `values` is [seeds]."""
    for place, (each, colour) in enumerate(zip(values, colours, strict=False)):
        numbers = np.atleast_1d(np.asarray(each, dtype=np.float64))
        ax.barh(place, numbers.mean(), height=0.66, color=colour, alpha=0.75, zorder=2)
        if len(numbers) > 1:
            offsets = np.linspace(-0.22, 0.22, len(numbers))
            ax.scatter(numbers, place + offsets, s=7, color=INK, alpha=0.45, linewidth=0, zorder=3)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()


def save(figure: Figure, path: Path, caption: str, legend: Sequence[Axes] = ()) -> Path:
    """Write the figure with a caption below and, above, one legend of what the panels `legend` show."""
    handles = {text: handle for ax in legend for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    if handles:
        longest = max(map(len, handles))
        columns = max(min(len(handles), int(figure.get_figwidth() / (0.7 + 0.075 * longest))), 1)
        figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=columns, frameon=False, fontsize=9)
    figure.supxlabel(textwrap.fill(caption, int(18 * figure.get_figwidth())), fontsize=7.5, color=MUTED, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
