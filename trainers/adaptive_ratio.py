"""Adaptive replay ratio (Ma et al. 2024, arXiv 2310.07418): a low ratio until the critic has its plasticity back, then a high one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from steelyard.agents.meters import active_share, critic_activities, dormant_share, value_layers
from steelyard.agents.types import Batch
from steelyard.trainers.schedules import FixedRatioSchedule, ScheduleError, exact


@dataclass(frozen=True)
class AdaptiveRatio:
    """A low ratio of updates to transitions that becomes high, once and for ever, when the critic's fraction of active units has settled.

    The defaults are the published rule for dm-control with action repeat 2, where an episode has 500 transitions: checks every 50 episodes, of
    the mean over the last one. The fraction is that of the critic's perceptrons, on the batches that it is trained with, before each gradient step.
    """

    low: float = 0.5
    """Updates per transition at first."""
    high: float = 2.0
    """The same after the switch."""
    interval: int = 25_000
    """Transitions between two checks, more than an episode has, counted from the first update; the released code counts episodes from the start of
    the run, so that with `random_steps` its checks come so many transitions earlier."""
    window: int = 500
    """Of these the last so many, whose updates are measured; as many as `interval` for the mean over all of it, which is safer with small
    networks and batches."""
    threshold: float = 0.001
    """Largest change between two checks that switches; twice the noise between checks is a choice for networks of less than a thousand units."""
    checks: int = 1
    """Checks before the first that may switch count as too early; one is the published rule."""
    margin: float = 0.0
    """How far the fraction must have recovered above its lowest value so far. With 0, the published rule, a flat minimum switches as well; 0.02
    is safer."""
    meter: Literal["active", "dormant"] = "active"
    """`active` is the published signal. `dormant`, one minus the share of dormant units, serves networks without plain ReLU layers (SimbaV2, SiLU,
    tanh, normalisation after ReLU), for which the fraction of active units says nothing."""
    every: int = 1
    """Of the updates that are to be measured, each so-manieth is. One costs a pass of the critic."""

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            exact(getattr(self, name), name)
        for name in ("interval", "window", "checks", "every"):
            if getattr(self, name) < 1:
                raise ScheduleError(f"{name} is {getattr(self, name)}; give one or more.")
        if self.window > self.interval:
            raise ScheduleError(f"window is {self.window}, longer than the interval of {self.interval}; give at most as much.")
        for name in ("threshold", "margin"):
            if not 0 <= getattr(self, name) < 1:
                raise ScheduleError(f"{name} is {getattr(self, name)}; give a share of units, zero or more.")

    def build(self) -> "AdaptiveRatioSchedule":
        """A schedule that begins with the low ratio."""
        return AdaptiveRatioSchedule(self)

    def expected(self, transitions: int, num_envs: int) -> int:
        """Updates of a run that never switches: learning rates reach their final value at its end or, after a switch, before it."""
        return max(int(transitions * self.low), 1)

    def switch_index(self, series: Sequence[float]) -> int | None:
        """Index of the value at which a run with this series of measurements switches; None if it does not.

        The first value is the reference before the first check: the very first batch's. The reference of each check is the value of the one before.
        """
        for index in range(max(self.checks, 1), len(series)):
            settled = abs(series[index] - series[index - 1]) <= self.threshold
            if settled and series[index] >= min(series[: index + 1]) + self.margin:
                return index
        return None


class AdaptiveRatioSchedule(FixedRatioSchedule):
    """The schedule that `AdaptiveRatio` describes. Sums of measurements stay on the device; they are read at checks, and for checkpoints."""

    def __init__(self, config: AdaptiveRatio):
        super().__init__(config.low)
        self.config = config
        self.transitions, self.start = 0, 0
        self.first: Tensor | None = None
        self.total: Tensor | None = None
        self.measured = 0
        self.series: list[float] = []
        self.switched_at: int | None = None
        self.told = True

    def begin(self, agent: Any) -> None:
        """Raises `ScheduleError` if the critic's layers have no meaning for the meter."""
        layers = value_layers(agent.critic) if hasattr(agent, "critic") else []
        fit = [layer for layer in layers if (layer.counted if self.config.meter == "active" else layer.scored)]
        if fit:
            return
        if self.config.meter == "active" and any(layer.scored for layer in layers):
            raise ScheduleError(
                "the fraction of active units says nothing of this critic, which has no plain ReLU layers (its activation is another one, or "
                "a normalisation follows it); use --schedule.meter dormant, or a critic of ReLU layers."
            )
        raise ScheduleError(
            "an adaptive ratio watches the hidden layers of the critic, and this agent has none that say when they are dormant (of CReLU "
            "half of the outputs are always positive); use a fixed ratio, or a critic of ReLU layers."
        )

    def updates(self, transitions: int) -> int:
        """How many updates are due; a check comes first if the transitions before completed an interval."""
        if self.transitions - self.start >= self.config.interval:
            self.check()
        self.transitions += transitions
        return super().updates(transitions)

    def check(self) -> None:
        """Compare the mean of the window with the check before, and begin the next interval. Without a measurement nothing is compared."""
        self.start += (self.transitions - self.start) // self.config.interval * self.config.interval
        if self.measured and self.total is not None and self.first is not None:
            if not self.series:
                self.series = [float(self.first)]
            self.series.append(float(self.total) / self.measured)
            if self.switched_at is None and self.config.switch_index(self.series) is not None:
                self.switched_at, self.told = self.transitions, False
                self.ratio = exact(self.config.high)
        self.total, self.measured = None, 0

    def watches(self, update: int) -> bool:
        """The very first batch, and those of the window."""
        return self.first is None or (self.in_window and update % self.config.every == 0)

    @property
    def in_window(self) -> bool:
        """Whether the newest transitions lie in the last part of the interval."""
        return self.transitions - self.start > self.config.interval - self.config.window

    def watch(self, agent: Any, batch: Batch, noise: Tensor) -> None:
        """Measure the critic on a batch that it is about to be trained with."""
        activities = critic_activities(agent, batch, noise)
        if self.config.meter == "active":
            value = active_share([activity for activity in activities if activity.layer.counted])
        else:
            value = 1 - dormant_share([activity for activity in activities if activity.layer.scored])
        if self.first is None:
            self.first = value
        if self.in_window:
            self.total = value.double() if self.total is None else self.total + value
            self.measured += 1

    def diagnostics(self) -> dict[str, float]:
        """The ratio in force, the newest measurement that was compared, and when the switch came."""
        found = {"schedule/ratio": float(self.ratio)}
        if self.series:
            found[f"schedule/{self.signal}"] = self.series[-1]
            found["schedule/checks"] = len(self.series) - 1
        if self.switched_at is not None:
            found["schedule/switched_at"] = self.switched_at
        return found

    @property
    def signal(self) -> str:
        """What is measured, as a log calls it."""
        return "active" if self.config.meter == "active" else "awake"

    def news(self) -> str | None:
        """The switch."""
        if self.told or self.switched_at is None:
            return None
        self.told = True
        return (
            f"update ratio {self.config.low:g} -> {self.config.high:g}: {self.signal} units of the critic {self.series[-2]:.4f}, then "
            f"{self.series[-1]:.4f} ({self.switched_at:,} transitions since the first update)"
        )

    def state_dict(self) -> dict[str, Any]:
        """The credit, the place in the interval, and all measurements. Reading the sums waits for the device."""
        return super().state_dict() | {
            "transitions": self.transitions,
            "start": self.start,
            "first": None if self.first is None else float(self.first),
            "total": None if self.total is None else float(self.total),
            "measured": self.measured,
            "series": self.series.copy(),
            "switched_at": self.switched_at,
            "told": self.told,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the saved state, with the ratio that was in force."""
        super().load_state_dict(state)
        for name in ("transitions", "start", "measured", "series", "switched_at", "told"):
            setattr(self, name, state[name])
        self.first = None if state["first"] is None else torch.tensor(state["first"])
        self.total = None if state["total"] is None else torch.tensor(state["total"], dtype=torch.float64)
        self.ratio = exact(self.config.low if self.switched_at is None else self.config.high)
