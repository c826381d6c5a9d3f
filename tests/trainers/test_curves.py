"""Reading curves from run folders and published tables, and drawing them."""

import gzip
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steelyard.trainers.curves import CurveError, Curves, read_reference, read_runs
from steelyard.trainers.figures import draw, draw_beside
from steelyard.trainers.tables import TableError


def write(root: Path, task: str, preset: str, seed: int, values: list[float]) -> Path:
    folder = root / task / preset / f"seed_{seed}"
    folder.mkdir(parents=True)
    lines = [f"{1000 * i},{i},0.5,{value},1.0,100,10" for i, value in enumerate(values)]
    (folder / "eval.csv").write_text(
        "\n".join(["env_steps,updates,seconds,eval/return,eval/return_std,eval/length,episodes", *lines, ""])
    )
    return folder


def test_runs_are_grouped_by_task_preset_and_seed(tmp_path: Path) -> None:
    write(tmp_path, "walker-run", "sac", 0, [1, 2])
    write(tmp_path, "walker-run", "sac", 3, [3, 4])
    write(tmp_path, "walker-run", "td3", 0, [5])
    folder = write(tmp_path, "hopper-hop", "sac", 0, [6])
    curves = read_runs([tmp_path])
    assert {task: {label: sorted(seeds) for label, seeds in group.items()} for task, group in curves.items()} == {
        "walker-run": {"sac": [0, 3], "td3": [0]},
        "hopper-hop": {"sac": [0]},
    }
    assert curves["walker-run"]["sac"][3].values.tolist() == [3, 4]
    assert curves["walker-run"]["sac"][3].env_steps.tolist() == [0, 1000]
    assert list(read_runs([folder, folder])) == ["hopper-hop"]


def write_offline(root: Path, preset: str, seed: int, offline: int, online: int) -> Path:
    """A run that begins with data, scored every 1,000 steps."""
    folder = root / "Hopper-v4" / preset / f"seed_{seed}"
    folder.mkdir(parents=True)
    lines = ["steps,updates,seconds,eval/return,env_steps,eval/normalized"]
    for k in range(0, offline + online + 1, 1000):
        score = 40 * min(k / offline, 1) + 50 * max(k - offline, 0) / max(online, 1) + seed
        lines.append(f"{k},{k},{k / 100},{3254 * score / 100 - 20},{max(k - offline, 0)},{score}")
    (folder / "eval.csv").write_text("\n".join([*lines, ""]))
    (folder / "config.json").write_text(f'{{"class": "Transfer", "offline_updates": {offline}, "env_steps": {online}}}')
    return folder


def test_runs_that_begin_with_data_are_read(tmp_path: Path) -> None:
    folder = write_offline(tmp_path, "iql-locomotion", 0, 4000, 2000)
    write_offline(tmp_path, "bc-locomotion", 0, 3000, 0)
    curves = read_runs([tmp_path])["Hopper-v4"]
    curve = curves["iql-locomotion"][0]
    assert curve.env_steps.tolist() == [0, 1000, 2000, 3000, 4000, 5000, 6000]
    assert (curve.offline, curves["bc-locomotion"][0].offline) == (4000, 3000)
    assert curve.values[0] == -20
    normalized = read_runs([tmp_path], "eval/normalized")["Hopper-v4"]["iql-locomotion"][0]
    assert normalized.values.tolist() == [0, 10, 20, 30, 40, 65, 90]
    with pytest.raises(TableError, match="has no column `eval/success`; it has steps, updates"):
        read_runs([tmp_path], "eval/success")
    (folder / "config.json").write_text("[]")
    with pytest.raises(CurveError, match=r"config\.json is no configuration of a run"):
        read_runs([tmp_path])
    (folder / "config.json").unlink()
    assert read_runs([folder])["Hopper-v4"]["iql-locomotion"][0].offline == 0


def drawn(curves: Curves, path: Path, monkeypatch: pytest.MonkeyPatch, **options: str) -> Figure:
    """The figure that was saved."""
    (figure,) = saved(lambda: draw(curves, path, metric=options.get("metric", "return")), monkeypatch)
    return figure


def saved(drawing: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that a drawing saves."""
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **more: (figures.append(self), save(self, *args, **more))[1])
    drawing()
    return figures


def verticals(ax: Axes) -> list[float]:
    """Where dashed lines go from the bottom to the top."""
    dashed = [
        line for line in ax.lines if np.asarray(line.get_ydata()).tolist() == [0, 1] and line.get_linestyle() not in ("-", "None")
    ]
    return [float(line.get_xdata()[0]) for line in dashed]  # pyright: ignore[reportIndexIssue, reportArgumentType]


def test_the_switch_to_the_online_phase_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        write_offline(tmp_path, "iql-locomotion", seed, 40_000, 20_000)
        write_offline(tmp_path, "cal-ql-locomotion", seed, 40_000, 20_000)
    figure = drawn(read_runs([tmp_path], "eval/normalized"), tmp_path / "a.png", monkeypatch, metric="normalised score")
    (ax,) = [ax for ax in figure.axes if ax.get_visible()]
    assert verticals(ax) == [40.0]
    assert ax.get_xlabel() == "offline updates, then\nenvironment steps (thousands)"
    assert ax.get_ylabel() == "normalised score"
    assert "Vertical line: the online phase begins." in " ".join(figure.get_supxlabel().split())


def test_the_switch_is_drawn_in_each_of_several_measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_offline(tmp_path, "iql-locomotion", 0, 40_000, 20_000)
    columns = {name: read_runs([tmp_path], name) for name in ("eval/return", "eval/normalized", "env_steps")}
    (figure,) = saved(lambda: draw_beside(columns, tmp_path / "a.png"), monkeypatch)
    assert [verticals(ax) for ax in figure.axes] == [[40.0]] * 3
    assert "one seed, hence no interval. Vertical line: the online phase begins." in " ".join(figure.get_supxlabel().split())
    renderer = figure.canvas.get_renderer()  # pyright: ignore[reportAttributeAccessIssue]
    places = [ax.xaxis.label.get_window_extent(renderer) for ax in figure.axes]
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(places))
    assert places[-1].x1 < figure.bbox.x1


@pytest.mark.parametrize("several", [False, True])
def test_the_legend_lies_within_the_picture(several: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        write(tmp_path, f"task-{number % 3}", f"iql-famo2o-locomotion-with-{number}-and-more", 0, [0, 100])
    curves = read_runs([tmp_path])
    picture = tmp_path / "a.png"
    (figure,) = saved(lambda: draw_beside({"return": curves}, picture) if several else draw(curves, picture), monkeypatch)
    renderer = figure.canvas.get_renderer()  # pyright: ignore[reportAttributeAccessIssue]
    (legend,) = figure.legends
    assert legend.get_window_extent(renderer).x1 <= figure.bbox.x1
    if not several:
        assert legend._ncols == 3  # pyright: ignore[reportAttributeAccessIssue]


def test_without_a_switch_there_is_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_offline(tmp_path, "bc-locomotion", 0, 4000, 0)
    write(tmp_path, "walker-run", "sac", 0, [0, 100])
    figure = drawn(read_runs([tmp_path]), tmp_path / "a.png", monkeypatch)
    offline, online = (ax for ax in figure.axes if ax.get_visible())
    assert verticals(offline) == verticals(online) == []
    assert offline.get_xlabel() == "offline updates (thousands)"
    assert online.get_xlabel() == "environment steps (thousands)"
    assert offline.get_ylabel() == "return"
    assert "Vertical" not in figure.get_supxlabel()


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(CurveError, match="is no folder"):
        read_runs([tmp_path / "nowhere"])
    with pytest.raises(CurveError, match=r"no eval\.csv"):
        read_runs([tmp_path])
    write(tmp_path / "a", "t", "p", 0, [1])
    write(tmp_path / "b", "t", "p", 0, [2])
    with pytest.raises(CurveError, match="the same task, preset and seed"):
        read_runs([tmp_path / "a", tmp_path / "b"])
    write(tmp_path / "c", "t", "p", 0, [])
    with pytest.raises(CurveError, match="no evaluation yet"):
        read_runs([tmp_path / "c"])
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "eval.csv").write_text("env_steps,eval/return\n")
    with pytest.raises(CurveError, match="is not a run folder"):
        read_runs([tmp_path / "d"])


def test_published_tables_with_other_column_names(tmp_path: Path) -> None:
    path = tmp_path / "published.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write(
            "exp_name,env_name,seed,metric,env_step,value\n"
            "sac,walker_run,0,avg_return,1000,20\n"
            "sac,walker_run,0,avg_return,0,10\n"
            "sac,walker_run,0,avg_success,0,1\n"
            "sac,walker_run,1,avg_return,0,30\n"
            "td3,walker_run,0,avg_return,0,40\n"
            "sac,other-task,0,avg_return,0,50\n"
        )
    curves = read_reference(path, ["walker-run"], ["sac"])
    assert list(curves) == ["walker-run"]
    assert list(curves["walker-run"]) == ["sac"]
    assert curves["walker-run"]["sac"][0].values.tolist() == [10, 20]
    assert sorted(curves["walker-run"]["sac"]) == [0, 1]
    assert sorted(read_reference(path, ["walker-run"])["walker-run"]) == ["sac", "td3"]
    plain = tmp_path / "paper.csv"
    plain.write_text("env_steps,return\n0,1\n10,2\n")
    assert read_reference(plain, ["a", "b"])["b"]["paper"][0].values.tolist() == [1, 2]
    plain.write_text("env_steps,return\n0,high\n")
    with pytest.raises(CurveError, match="line 2"):
        read_reference(plain, ["a"])
    plain.write_text("x,y\n0,1\n")
    with pytest.raises(CurveError, match="needs a column for the environment steps"):
        read_reference(plain, ["a"])


def test_a_picture_with_panels_single_seeds_and_references(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, "walker-run", "sac", seed, [0, 100 + seed, 200])
    write(tmp_path, "hopper-hop", "td3", 0, [5])
    table = tmp_path / "paper.csv"
    table.write_text("task,seed,env_steps,return\nwalker-run,0,0,0\nwalker-run,0,9000,300\n")
    curves = read_runs([tmp_path])
    path = draw(curves, tmp_path / "out" / "curve.png", references=read_reference(table, curves))
    picture = imageio.imread(path)
    assert picture.shape[0] > 300
    assert picture.shape[1] > 1.5 * picture.shape[0]
    assert picture.std() > 10
    assert [file.name for file in path.parent.iterdir()] == ["curve.png"]


def test_more_labels_than_colours_are_told_apart_by_their_strokes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        write(tmp_path, "walker-run", f"preset-{number:02}", 0, [1, number])
    drawn: set[tuple[str, str]] = set()
    plot = Axes.plot

    def watched(self: Axes, *points: Any, **look: Any) -> Any:
        if look.get("linewidth") == 2.0:
            drawn.add((look["color"], str(look["linestyle"])))
        return plot(self, *points, **look)

    monkeypatch.setattr(Axes, "plot", watched)
    draw(read_runs([tmp_path]), tmp_path / "many.png")
    assert len(drawn) == 20
