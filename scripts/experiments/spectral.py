"""Sixty regressions one after the other: which penalties keep a small network trainable."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.claim import Claim, Outcome, Workshop, less
from experiments.kept import kept
from experiments.over_seeds import mean, show
from experiments.panels import COLOURS, bars, line, panels, save, style
from experiments.threads import one_thread
from steelyard.agents.agent import seeded
from steelyard.agents.meters import singular_values
from steelyard.agents.networks import MLP
from steelyard.agents.networks.hidden import watched
from steelyard.agents.networks.matrices import matrices
from steelyard.agents.parts import SpectralRegularization
from steelyard.agents.types import Spec

Array = NDArray[np.float64]
ROWS = ("none", "L2 1e-4", "L2 1e-3", "spectral 1e-3", "spectral 1e-2", "spectral 0.1")
PROTOTYPE: dict[str, tuple[str, ...]] = {
    "none": ("0.000", "0.000", "0.358", "10.7, 15.0, 1.5", "0.60"),
    "L2 1e-4": ("0.000", "0.000", "0.001", "7.4, 7.4, 2.2", "0.28"),
    "L2 1e-3": ("0.000", "0.000", "0.000", "3.6, 3.6, 3.1", "0.26"),
    "spectral 1e-3": ("0.001", "0.001", "0.001", "2.8, 2.9, 2.2", "0.01"),
    "spectral 1e-2": ("0.030", "0.028", "0.032", "2.3, 2.3, 2.1", "0.00"),
    "spectral 0.1": ("1.1", "1.0", "1.0", "2.0, 2.0, 1.8", "0.00"),
}
"""A prototype in another program: mean squared error of the first, middle and last tasks, largest singular values, dead second-layer units."""
SETTING = (3, 60, 300)
"""Least seeds, tasks and steps at which the claims are judged."""
LEAST_RATIO, MOST_DEAD = 20.0, 0.05
SOURCE = "Lewandowski et al. 2025, arXiv 2406.06811: spectral regularisation sustains trainability; a prototype for the numbers"


@dataclass(frozen=True)
class Spectral:
    """Sixty random regressions in turn: without a penalty a network loses its trainability, with a spectral one it keeps units and errors."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of weights and tasks, trained side by side."""
    tasks: int = SETTING[1]
    """Regressions, one after the other on the same network and optimiser."""
    steps: int = SETTING[2]
    """Steps of Adam on each, with all of its points."""
    points: int = 128
    """Points of a task."""
    inputs: int = 16
    """Their dimensions."""
    width: int = 48
    """Width of both hidden layers."""
    learning_rate: float = 3e-3
    """Adam's."""

    def obstacle(self) -> str | None:
        """It runs anywhere."""
        return None

    def scaled(self) -> str:
        """What is too little to judge a claim by."""
        return ", ".join(less(SETTING, {"seeds": len(self.seeds), "tasks": self.tasks, "steps": self.steps}))

    def measure(self, workshop: Workshop) -> Outcome:
        """Train every row, one after the other."""
        found: dict[str, Array] = {}
        with one_thread():
            for name in ROWS:
                path = workshop.folder / f"{name.replace(' ', '_')}.npz"
                found[name] = kept(path, (self, name), lambda name=name: self.train(name))
        table: list[dict[str, object]] = [self.row(name, values) for name, values in found.items()]
        picture = self.draw(workshop.folder / "regressions.png", found)
        return Outcome(self.claims(found), tables={"regressions": table}, pictures={"regressions": picture})

    def train(self, name: str) -> Array:
        """[tasks + 4, seeds]: the error at the end of each task, then three largest singular values and the share of dead units at the end."""
        members = len(self.seeds)
        problem = Problem([self.network(seed) for seed in self.seeds])
        penalty = problem.penalty(name)
        optimizer = torch.optim.Adam(problem.parameters(), self.learning_rate)
        streams = [torch.Generator().manual_seed(1_000 + seed) for seed in self.seeds]
        errors: list[Tensor] = []
        x = torch.empty(0)
        for _ in range(self.tasks):
            x = torch.stack([torch.randn(self.points, self.inputs, generator=stream) for stream in streams])
            y = torch.stack([torch.randn(self.points, 1, generator=stream) for stream in streams])
            for _ in range(self.steps):
                optimizer.zero_grad()
                loss = (problem(x) - y).square().mean((1, 2)).sum() + penalty()
                loss.backward()
                optimizer.step()
            errors.append((problem(x).detach() - y).square().mean((1, 2)))
        sizes = [singular_values(matrix.weight().detach()).amax(-1) for matrix in matrices(problem.network)]
        with watched(problem.network) as recorders:
            problem(x)
        second = recorders[0].activities()[1].values
        dead = (second <= 0).all(1).float().mean(-1)
        return torch.stack([*errors, *sizes, dead]).double().numpy().reshape(-1, members)

    def network(self, seed: int) -> nn.Module:
        """One network of its own seed."""
        with seeded(seed):
            return MLP((self.width, self.width), gain=2**0.5, output_gain=1.0).build(self.inputs, (1,), 1)

    def spans(self) -> list[slice]:
        """The first five tasks, five in the middle, the last five."""
        middle = self.tasks // 3
        return [slice(0, 5), slice(middle, middle + 5), slice(self.tasks - 5, self.tasks)]

    def row(self, name: str, values: Array) -> dict[str, object]:
        """One line of the table."""
        early, middle, late = (show(mean(values[span].mean(0)), 2) for span in self.spans())
        return {
            "regulariser": name,
            "first five tasks": early,
            "middle": middle,
            "last five": late,
            "largest singular values": ", ".join(f"{value:.1f}" for value in values[-4:-1].mean(1)),
            "dead units": f"{values[-1].mean():.2f}",
            "prototype: last five; singular values; dead": "; ".join(PROTOTYPE[name][2:]),
        }

    def claims(self, found: dict[str, Array]) -> list[Claim]:
        """The error without a penalty, and the units with one."""
        last = self.spans()[-1]
        none, spectral = (found[name][last].mean(0) for name in ("none", "spectral 1e-3"))
        ratio, dead = none.mean() / max(spectral.mean(), 1e-12), found["spectral 1e-3"][-1]
        note = f"Scaled down ({self.scaled()})." if self.scaled() else ""
        common: dict[str, Any] = {"source": SOURCE, "seeds": len(self.seeds), "note": note}
        return [
            Claim(
                sentence="Without a penalty the last regressions are fitted far worse than with a spectral one of 1e-3.",
                expected=f"at least {LEAST_RATIO:.0f} times the error (prototype 0.358 against 0.001)",
                measured=f"{ratio:.3g} times: {show(mean(none))} against {show(mean(spectral))}",
                holds=bool(ratio >= LEAST_RATIO) and not note,
                **common,
            ),
            Claim(
                sentence="The spectral penalty keeps the units alive.",
                expected=f"dead share of the second layer below {MOST_DEAD:.0%} (prototype 1 %)",
                measured=f"{show(mean(100 * dead))} %, without a penalty {show(mean(100 * found['none'][-1]))} %",
                holds=bool(dead.mean() < MOST_DEAD) and not note,
                **common,
            ),
        ]

    def draw(self, path: Path, found: dict[str, Array]) -> Path:
        """Error per task, and dead units at the end."""
        figure, (left, right) = panels(2)
        colours: dict[str, str] = dict(zip(ROWS, COLOURS, strict=False))
        for name, values in found.items():
            line(left, np.arange(1, self.tasks + 1), np.maximum(values[: self.tasks], 1e-7), name, colours[name])
        left.set_yscale("log")
        style(left, "error at the end of each task", "task", "mean squared error")
        bars(right, list(found), [100 * values[-1] for values in found.values()], list(colours.values()))
        style(right, "dead units of the second layer", "% after the last task")
        return save(
            figure,
            path,
            "Line: mean over seeds, band: 95 % interval. Bar: mean, points: single seeds. A network that always says zero has an error of 1.",
            legend=[left],
        )


class Problem(nn.Module):
    """Networks of several seeds as one batched module, with what a plasticity part asks of an agent."""

    losses = ("network",)

    def __init__(self, networks: list[nn.Module]):
        super().__init__()
        self.network = networks[0]
        self.network.members = len(networks)  # pyright: ignore
        if len(networks) > 1:
            with torch.no_grad():
                for name in [name for name, _ in self.network.named_parameters()]:
                    owner = self.network.get_submodule(name.rpartition(".")[0])
                    stacked = torch.cat([network.get_parameter(name) for network in networks])
                    setattr(owner, name.rpartition(".")[2], nn.Parameter(stacked))

    def forward(self, x: Tensor) -> Tensor:
        """Predictions [seeds, points, 1] for points [seeds, points, inputs]."""
        return self.network(x)[0]

    def penalty(self, name: str) -> Callable[[], Tensor]:
        """What is added to the sum of the seeds' losses: nothing, L2, or the spectral regularisation as agents have it, output included."""
        kind, _, strength = name.partition(" ")
        if kind == "none":
            return lambda: torch.zeros(())
        if kind == "L2":
            return lambda: float(strength) * torch.stack([p.square().sum() for p in self.parameters()]).sum()
        part = SpectralRegularization(float(strength), output=True).build(Spec(1, 1))
        part.begin(cast(Any, self))

        def spectral() -> Tensor:
            with torch.no_grad():
                part.refresh(cast(Any, self))
            return cast(Tensor, part.regularizer(cast(Any, self), "network"))

        return spectral
