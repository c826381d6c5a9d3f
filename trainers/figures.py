"""Learning curves as a picture: a panel per task, a line per preset, a band over its seeds."""

import math
import os
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from steelyard.trainers.curves import Curves
from steelyard.trainers.statistics import Band, Curve, Statistic, aggregate

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C6D31")
"""Okabe and Ito's palette, readable with colour-blind eyes, and two more."""
STROKES: tuple[Any, ...] = ("solid", (0, (1, 1.1)), (0, (5, 1.2, 1, 1.2)))
"""What tells labels apart that share a colour, for there may be more labels than colours."""
REFERENCE_COLOURS = ("#555555", "#999999", "#7C6A50", "#5B7B8C")
INK, MUTED = "#222222", "#666666"
OWN_LINE: dict[str, Any] = {"linewidth": 2.0, "solid_capstyle": "round", "dash_capstyle": "butt"}
SWITCH_LINE: dict[str, Any] = {"color": MUTED, "linewidth": 1.2, "linestyle": (0, (4, 3)), "zorder": 5}
REFERENCE_LINE: dict[str, Any] = {"linewidth": 1.2, "linestyle": (0, (4, 2))}


def draw(
    curves: Curves, path: Path, *, references: Curves | None = None, statistic: Statistic = "mean", metric: str = "return"
) -> Path:
    """Draws `curves` to `path` (.png, .pdf or .svg) and returns it; `metric` is what they show, in words.

    A line is the mean (or interquartile mean) over seeds, its band the 95 % bootstrap interval over seeds; thin lines are the
    single seeds. One seed has no band. References are dashed and end where the longest own curve of the task ends. Where runs went
    from an offline phase to an online one a dashed vertical line says when.
    """
    references = references or {}
    tasks = sorted(curves)
    columns = 2 if len(tasks) == 4 else min(len(tasks), 3)
    rows = math.ceil(len(tasks) / columns)
    figure = Figure(figsize=(max(4.3 * columns, 5.6), 3.2 * rows + 1.0), dpi=160, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    labels = sorted({label for task in tasks for label in curves[task]})
    names = sorted({name for task in tasks for name in references.get(task, {})})
    looks = _looks(labels)
    greys = {name: REFERENCE_COLOURS[i % len(REFERENCE_COLOURS)] for i, name in enumerate(names)}
    for position, (ax, task) in enumerate(zip(axes, tasks, strict=False)):
        own = [curve for by_seed in curves[task].values() for curve in by_seed.values()]
        end = max(curve.env_steps[-1] for curve in own)
        for name, by_seed in references.get(task, {}).items():
            _draw_reference(ax, aggregate(by_seed, statistic=statistic), greys[name], end)
        for label, by_seed in curves[task].items():
            _draw_own(ax, by_seed, aggregate(by_seed, statistic=statistic), looks[label])
        _style(ax, task, _axis(own))
        for switch in _switches(own):
            ax.axvline(switch / 1000, **SWITCH_LINE)
        if position % columns == 0:
            ax.set_ylabel(metric, color=INK)
    for ax in axes[len(tasks) :]:
        ax.set_visible(False)
    seeds = {label: {len(curves[task][label]) for task in tasks if label in curves[task]} for label in labels}
    handles = [Line2D([], [], **OWN_LINE, **looks[label], label=f"{label} ({_count(seeds[label])})") for label in labels]
    handles += [Line2D([], [], **REFERENCE_LINE, color=greys[name], label=f"{name} (reference)") for name in names]
    _legend(figure, handles)
    several = any(max(counts) > 1 for counts in seeds.values())
    switched = any(_switches(by_seed.values()) for task in tasks for by_seed in curves[task].values())
    caption = _caption(statistic, metric, several=several, references=bool(names), switched=switched)
    figure.supxlabel(textwrap.fill(caption, int(18 * figure.get_figwidth())), fontsize=7.5, color=MUTED, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part.{path.name}")
    figure.savefig(part)
    os.replace(part, path)
    return path


def draw_beside(columns: dict[str, Curves], path: Path, *, statistic: Statistic = "mean") -> Path:
    """Draws curves of several measurements side by side, a row per task and a column per measurement (by its name), and returns the path.

    Lines, bands and colours are those of `draw`.
    """
    tasks = sorted({task for curves in columns.values() for task in curves})
    labels = sorted({label for curves in columns.values() for by_label in curves.values() for label in by_label})
    looks = _looks(labels)
    size = (max(3.6 * len(columns), 5.6), 3.0 * len(tasks) + 1.0)
    figure = Figure(figsize=size, dpi=160, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(tasks), len(columns), squeeze=False)
    seeds: dict[str, set[int]] = {label: set() for label in labels}
    switched = False
    for row, task in zip(axes, tasks, strict=True):
        for ax, (name, curves) in zip(row, columns.items(), strict=True):
            found = curves.get(task, {})
            for label, by_seed in found.items():
                seeds[label].add(len(by_seed))
                _draw_own(ax, by_seed, aggregate(by_seed, statistic=statistic), looks[label])
            own = [curve for by_seed in found.values() for curve in by_seed.values()]
            _style(ax, task, _axis(own))
            for switch in _switches(own):
                ax.axvline(switch / 1000, **SWITCH_LINE)
                switched = True
            ax.set_ylabel(name, color=INK)
    handles = [Line2D([], [], **OWN_LINE, **looks[label], label=f"{label} ({_count(seeds[label])})") for label in labels]
    _legend(figure, handles)
    several = any(max(counts) > 1 for counts in seeds.values())
    caption = _caption(statistic, None, several=several, references=False, switched=switched)
    figure.supxlabel(textwrap.fill(caption, int(18 * size[0])), fontsize=7.5, color=MUTED, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part.{path.name}")
    figure.savefig(part)
    os.replace(part, path)
    return path


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """A legend above the panels, in as many columns as the longest label lets the figure hold."""
    inches = 0.75 + 0.07 * max((len(str(handle.get_label())) for handle in handles), default=0)
    columns = max(min(len(handles), int(figure.get_figwidth() / inches)), 1)
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, frameon=False, fontsize=9)


def _looks(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The colour and the stroke of each label's lines."""
    shades = len(COLOURS)
    return {
        label: {"color": COLOURS[i % shades], "linestyle": STROKES[i // shades % len(STROKES)]} for i, label in enumerate(labels)
    }


def _draw_own(ax: Axes, by_seed: dict[int, Curve], band: Band, look: dict[str, Any]) -> None:
    x, colour = band.env_steps / 1000, look["color"]
    if 1 < band.seeds <= 10:
        for curve in by_seed.values():
            ax.plot(curve.env_steps / 1000, curve.values, color=colour, linewidth=0.6, alpha=0.35, zorder=3)
    ax.fill_between(x, band.low, band.high, color=colour, alpha=0.16, linewidth=0, zorder=2)
    ax.plot(x, band.value, **OWN_LINE, **look, zorder=4, marker="o" if len(x) == 1 else None)


def _draw_reference(ax: Axes, band: Band, colour: str, end: float) -> None:
    shown = band.env_steps <= end * 1.001
    x = band.env_steps[shown] / 1000
    ax.fill_between(x, band.low[shown], band.high[shown], color=colour, alpha=0.10, linewidth=0, zorder=1)
    ax.plot(x, band.value[shown], **REFERENCE_LINE, color=colour, zorder=2)


def _switches(curves: Iterable[Curve]) -> list[int]:
    """Where curves go from offline updates to environment steps; nothing where there is only one of the two."""
    return sorted({curve.offline for curve in curves if 0 < curve.offline < curve.env_steps[-1]})


def _axis(curves: Sequence[Curve]) -> str:
    if _switches(curves):
        return "offline updates, then\nenvironment steps (thousands)"  # in two lines, which fit under a narrow panel
    return f"{'offline updates' if all(curve.offline for curve in curves) else 'environment steps'} (thousands)"


def _style(ax: Axes, task: str, axis: str) -> None:
    ax.set_title(task, loc="left", fontsize=11, fontweight="bold", color=INK)
    ax.set_xlabel(axis, color=INK)
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    ax.set_xlim(left=0)
    ax.grid(color="#E6E6E6", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(length=0, labelsize=9, colors=MUTED)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color("#BBBBBB")


def _count(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low} to {high} seeds" if low != high else f"{low} seed{'s' if low > 1 else ''}"


def _caption(statistic: Statistic, metric: str | None, *, several: bool, references: bool, switched: bool) -> str:
    """What lines, bands and dashes are; `metric` is what all panels show, None if each shows something else."""
    name = "mean" if statistic == "mean" else "interquartile mean"
    sentences = [f"Line: {name} over seeds.", "Band: 95 % bootstrap interval over seeds.", "Thin lines: single seeds."]
    if not several:
        shown = "" if metric is None else f"mean {metric} of the evaluation episodes; "
        sentences = [f"Line: {shown}one seed, hence no interval."]
    sentences += ["Dashed: published results."] * references
    return " ".join([*sentences, *["Vertical line: the online phase begins."] * switched])
