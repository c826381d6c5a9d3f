"""Model losses on a pendulum with distractors: which of them keeps the value of what a small model predicts."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.claim import Claim, Outcome, Workshop, less
from experiments.over_seeds import mean, ratio, show
from experiments.panels import COLOURS, line, panels, save, style
from experiments.pendulum_values import FASTEST, STRONGEST, PendulumValue, advance
from experiments.threads import one_thread
from experiments.training import default_jobs
from steelyard.agents.networks.dynamics import DynamicsNetwork
from steelyard.agents.parts import ExactTaylor, Likelihood, SquaredError, ValueGradient
from steelyard.envs.distractors import START, SwitchingChaos

Array = NDArray[np.floating]
SETTING = (3, 3_000, 4_000)
"""Least seeds, steps and transitions at which the claims are judged."""
LEAK = 0.3
"""Gradient that leaks into each distractor, in units of the other components' mean; both per standard deviation of a component."""
EPISODE = 100
"""Steps after which distractors start anew."""
SOURCE = "design after Voelcker et al. 2022 (VaGraM, arXiv 2204.01464): distractors and small models; no published numbers for this task"
PLAIN, NORMALIZED, NARROW, WIDE, STANDARD = (
    "squared error, raw targets",
    "squared error, standardised targets",
    "likelihood, log variance up to 0.5",
    "likelihood, log variance up to 5",
    "likelihood, standardised targets",
)
VAGRAM = "VaGraM"
CONTROLS = {
    "VaGraM, 30 % gradient leaks into distractors": "leaking",
    "VaGraM, gradient at the change of state": "misplaced",
    "VaGraM, gradients shuffled over rows": "shuffled",
    "VaGraM, one gradient for all rows": "pooled",
}
TAYLOR = "exact Taylor"
ROWS = (PLAIN, NORMALIZED, NARROW, STANDARD, WIDE, VAGRAM, *CONTROLS, TAYLOR)
"""Every loss of the table."""
GROUPS = ((PLAIN, NORMALIZED), (NARROW, STANDARD), (WIDE,), (VAGRAM, *CONTROLS), (TAYLOR,))
"""The same, in the same order: losses with one objective, which are computed together."""


@dataclass(frozen=True)
class VagramSupervised:
    """Value-gradient weights in a model's loss (VaGraM): what errors of small models do to a known value, with useless dimensions beside."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds; each has data, distractors, initial weights and batches of its own."""
    widths: tuple[int, ...] = (8, 32)
    """Width of the two hidden layers."""
    distractors: tuple[int, ...] = (0, 5, 10, 15)
    """Numbers of distractors; the claims need 0 and 10."""
    steps: int = SETTING[1]
    """Steps of Adam."""
    transitions: int = SETTING[2]
    """Transitions to learn from; half as many more are predicted afterwards."""
    batch_size: int = 256
    """Rows of a step."""
    learning_rate: float = 1e-3
    """Adam's."""
    processes: int = 0
    """Cells of the table that are computed at the same time, one thread each; 0 takes one per core."""

    def obstacle(self) -> str | None:
        """It runs anywhere."""
        return None

    def scaled(self) -> str:
        """What is too little to judge a claim by."""
        found = less(SETTING, {"seeds": len(self.seeds), "steps": self.steps, "transitions": self.transitions})
        missing = {0, 10} - set(self.distractors)
        return ", ".join([*found, *(f"without {count} distractors" for count in sorted(missing))])

    def measure(self, workshop: Workshop) -> Outcome:
        """Fit every model and compare the values of what it predicts."""
        value = PendulumValue()
        cells = [(width, count) for width in self.widths for count in self.distractors]
        processes = min(self.processes or default_jobs(), len(cells))
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            found = [pool.submit(self.fit, value, *cell) for cell in cells]
            errors = {cell: future.result() for cell, future in zip(cells, found, strict=True)}
        still = {count: self.standing_still(value, count) for count in self.distractors}
        table: list[dict[str, object]] = [
            {
                "loss": name,
                **{
                    f"width {width}, {count} distractors": show(mean(found[ROWS.index(name)]), 2)
                    for (width, count), found in errors.items()
                },
            }
            for name in ROWS
        ]
        table.append(
            {
                "loss": "predict no change",
                **{f"width {width}, {count} distractors": show(mean(still[count]), 2) for width, count in errors},
            }
        )
        picture = self.draw(workshop.folder / "errors.png", errors)
        return Outcome(self.claims(errors), tables={"errors": table}, pictures={"errors": picture})

    def data(self, count: int, seed: int, distractors: int) -> tuple[Array, Array, Array]:
        """Observations, torques [rows, 1] and next observations: states and torques drawn uniformly, distractors from episodes of theirs."""
        generator = np.random.default_rng((seed, count))
        angle, velocity = generator.uniform(-np.pi, np.pi, count), generator.uniform(-FASTEST, FASTEST, count)
        torque = generator.uniform(-STRONGEST, STRONGEST, count)
        after = advance(angle, velocity, torque)
        obs, next_obs = (np.stack((np.cos(a), np.sin(a), v), -1) for a, v in ((angle, velocity), (after[0], after[1])))
        if distractors:
            system = SwitchingChaos(distractors, seed=seed)
            z = torch.from_numpy(START * generator.standard_normal((-(-count // EPISODE), distractors)))
            states = [z := system.advance(z) for _ in range(EPISODE + 1)]
            before, later = (torch.stack(part, 1).flatten(0, 1)[:count].numpy() for part in (states[:-1], states[1:]))
            obs, next_obs = np.concatenate((obs, before), -1), np.concatenate((next_obs, later), -1)
        return obs, torque[:, None], next_obs

    def standing_still(self, value: PendulumValue, distractors: int) -> Array:
        """[seeds] error of predicting that nothing changes."""
        fresh = [self.data(self.transitions // 2, seed, distractors) for seed in self.seeds]
        return np.array([rms(value.of(obs) - value.of(next_obs)) for obs, _, next_obs in fresh])

    @one_thread()
    def fit(self, value: PendulumValue, width: int, distractors: int) -> Array:
        """[losses, seeds] root mean squared error of the value of predicted next states, all models fitted as one batched program."""
        size, seeds, losses = 3 + distractors, len(self.seeds), len(ROWS)
        columns = [self.data(self.transitions, seed, distractors) for seed in self.seeds]
        inputs = np.stack([np.concatenate((obs, torque), -1) for obs, torque, _ in columns])
        centre, spread = inputs.mean(1, keepdims=True), inputs.std(1, keepdims=True)
        change = np.stack([after - obs for obs, _, after in columns])
        x, target = tensor((inputs - centre) / spread), tensor(change)
        shift, scale = target.mean(1, keepdim=True), target.std(1, keepdim=True)
        slopes = self.slopes(value, columns)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seeds[0])
            model = DynamicsNetwork(size + 1, 2 * size, (width, width), losses * seeds)
        adam = torch.optim.Adam(model.parameters(), self.learning_rate)
        generator, member = torch.Generator().manual_seed(self.seeds[0]), torch.arange(seeds)[:, None]
        objectives = self.objectives(size)
        standardised = torch.tensor([name in (NORMALIZED, STANDARD) for name in ROWS])[:, None, None, None]
        known = torch.stack([slopes.get(name, torch.zeros_like(target)) for name in ROWS])
        for _ in range(self.steps):
            rows = torch.randint(self.transitions, (seeds, self.batch_size), generator=generator)
            output = model(x[member, rows].repeat(losses, 1, 1)).unflatten(0, (losses, seeds))
            raw = target[member, rows]
            wanted = torch.where(standardised, (raw - shift) / scale, raw)
            slope = known[:, member, rows].unsqueeze(-2)
            loss, start = torch.zeros(()), 0
            for group, objective in zip(GROUPS, objectives, strict=True):
                part = slice(start, start := start + len(group))
                loss = loss + objective(*(given[part].flatten(0, 1) for given in (output, wanted, slope))).mean(-1).sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
        fresh = [self.data(self.transitions // 2, seed, distractors) for seed in self.seeds]
        inputs = np.stack([np.concatenate((obs, torque), -1) for obs, torque, _ in fresh])
        with torch.no_grad():
            predicted = model(tensor((inputs - centre) / spread).repeat(losses, 1, 1)).unflatten(0, (losses, seeds))[..., :size]
            predicted = torch.where(standardised, predicted * scale + shift, predicted).numpy()
        found = [
            [rms(value.of(obs + predicted[place, seed]) - value.of(after)) for seed, (obs, _, after) in enumerate(fresh)]
            for place in range(losses)
        ]
        return np.array(found)

    def objectives(self, size: int) -> list[Callable[[Tensor, Tensor, Tensor], Tensor]]:
        """For each group: [models, batch] of outputs [models, batch, 2 size], targets and slopes.

        Value-aware ones are shown a reward of zero, which is predicted.
        """
        one, late = torch.ones(size + 1), torch.tensor(1)

        def squared(output: Tensor, target: Tensor, slope: Tensor) -> Tensor:
            return SquaredError().build(size).loss(output[..., :size], target, one[:-1], slope, late)

        def likelihood(high: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
            objective = Likelihood(high=high).build(size)
            return lambda output, target, slope: objective.loss(output, target, one[:-1], slope, late)

        def aware(objective: ValueGradient | ExactTaylor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
            part = objective.build(size + 1)

            def loss(output: Tensor, target: Tensor, slope: Tensor) -> Tensor:
                nothing = torch.zeros_like(target[..., :1])
                predicted, wanted = (torch.cat((given, nothing), -1) for given in (output[..., :size], target))
                return part.loss(predicted, wanted, one, slope, late)

            return loss

        return [squared, likelihood(0.5), likelihood(5.0), aware(ValueGradient(warmup_fits=0)), aware(ExactTaylor())]

    def slopes(self, value: PendulumValue, columns: list[tuple[Array, Array, Array]]) -> dict[str, Tensor]:
        """[seeds, rows, size] gradients of the value by the losses that use them: as they ought to be, and in the ways that they ought not."""
        right = np.stack([value.gradient(after) for _, _, after in columns])
        wrong = {
            "leaking": right.copy(),
            "misplaced": np.stack([value.gradient(after - obs) for obs, _, after in columns]),
            "shuffled": np.stack([each[np.random.default_rng(0).permutation(len(each))] for each in right]),
            "pooled": np.broadcast_to(np.sqrt((right**2).mean(1, keepdims=True)), right.shape).copy(),
        }
        spread = np.stack([after.std(0) for _, _, after in columns])[:, None]
        felt = (np.abs(right) * spread)[..., :3].mean((1, 2))[:, None, None]
        wrong["leaking"][..., 3:] = LEAK * felt / spread[..., 3:]
        return {VAGRAM: tensor(right), TAYLOR: tensor(right)} | {name: tensor(wrong[kind]) for name, kind in CONTROLS.items()}

    def claims(self, errors: dict[tuple[int, int], Array]) -> list[Claim]:
        """For each width: beside squared error with 10 distractors and with none, and how flat."""
        claims, place = [], {name: number for number, name in enumerate(ROWS)}
        for width in self.widths:
            if (width, 10) not in errors or (width, 0) not in errors:
                continue
            many, none = errors[width, 10], errors[width, 0]
            worst = max((errors[width, count][place[VAGRAM]] for count in self.distractors), key=np.mean)
            claims += [
                self.claim(
                    f"Width {width}, 10 distractors: VaGraM's value error is a fraction of the squared error's, targets standardised.",
                    many[place[VAGRAM]],
                    many[place[NORMALIZED]],
                    0.25,
                ),
                self.claim(
                    f"Width {width}, no distractors: VaGraM's value error is at most half of the squared error's, raw targets.",
                    none[place[VAGRAM]],
                    none[place[PLAIN]],
                    0.5,
                ),
                self.claim(
                    f"Width {width}: VaGraM hardly depends on the number of distractors (its worst against none).",
                    worst,
                    none[place[VAGRAM]],
                    2.0,
                ),
            ]
        return claims

    def claim(self, sentence: str, numerator: Array, denominator: Array, most: float) -> Claim:
        """Errors [seeds] of the same seeds, whose ratio is to be small."""
        found = ratio(numerator, denominator)
        return Claim(
            sentence=sentence,
            source=SOURCE,
            expected=f"ratio of the errors at most {most:g}",
            measured=f"{show(mean(numerator), 2)} / {show(mean(denominator), 2)} = {show(found, 2)}",
            seeds=len(self.seeds),
            holds=found.value <= most and not self.scaled(),
            note=f"Scaled down ({self.scaled()})." if self.scaled() else "",
        )

    def draw(self, path: Path, errors: dict[tuple[int, int], Array]) -> Path:
        """Errors over the number of distractors, a panel for each width."""
        figure, axes = panels(len(self.widths))
        shown = (PLAIN, NORMALIZED, NARROW, WIDE, VAGRAM)
        for ax, width in zip(axes, self.widths, strict=True):
            for name, colour in zip(shown, COLOURS, strict=False):
                values = np.stack([errors[width, count][ROWS.index(name)] for count in self.distractors])
                line(ax, self.distractors, values, name, colour)
            ax.set_yscale("log")
            style(ax, f"width {width}", "distractors", "RMSE of the value")
        caption = (
            f"Root mean squared error of the value of predicted next states after {self.steps:,} steps on {self.transitions:,} "
            f"transitions; mean over {len(self.seeds)} seeds with a 95 % band."
        )
        return save(figure, path, caption, axes)


def tensor(array: Array) -> Tensor:
    """float32."""
    return torch.from_numpy(np.ascontiguousarray(array)).float()


def rms(errors: Array) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(errors**2)))
