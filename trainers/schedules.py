"""The schedule slot: how many gradient updates now. And the two clocks of a loop, `Every` and `Until`."""

from dataclasses import dataclass
from fractions import Fraction
from math import floor, isfinite
from typing import Any, Protocol

from torch import Tensor

from steelyard.agents.errors import SteelyardError
from steelyard.agents.types import Batch


class ScheduleError(SteelyardError):
    """A schedule was given a number that it cannot keep. The message is one sentence with the remedy."""


class Schedule:
    """Turns collected transitions into gradient updates that are due. It may watch the agent's updates (`Watcher`)."""

    ratio: Fraction
    """Updates per transition that are in force."""

    def updates(self, transitions: int) -> int:
        """How many updates are due now that `transitions` more have been collected."""
        raise NotImplementedError

    def begin(self, agent: Any) -> None:
        """Look at the agent whose updates are counted, once it is complete. Raises `ScheduleError` for one that this schedule cannot serve."""

    def watches(self, update: int) -> bool:
        """Whether the batch of update number `update`, the next one, is to be shown."""
        return False

    def watch(self, agent: Any, batch: Batch, noise: Tensor) -> None:
        """See the prepared batch and the noise of the update that comes."""

    def diagnostics(self) -> dict[str, float]:
        """What a log should say of the schedule; nothing if there is nothing to say."""
        return {}

    def news(self) -> str | None:
        """What happened since the last call that a reader of the progress line should know, once."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """The running credit and what else decides, as plain data."""
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        raise NotImplementedError


class ScheduleConfig(Protocol):
    """What stands in the slot: a frozen value that builds its schedule."""

    def build(self) -> Schedule:
        """A schedule without credit."""
        ...

    def expected(self, transitions: int, num_envs: int) -> int:
        """Updates that learning rates decay over, of a run with so many transitions of `num_envs` worlds."""
        ...


@dataclass(frozen=True)
class FixedRatio:
    """The same number of updates for every collected transition."""

    ratio: float = 1.0
    """Gradient updates per collected transition (one decision of one world), usually 0.25 to 16; fractions are kept exactly."""

    def build(self) -> "FixedRatioSchedule":
        """A counter without credit."""
        return FixedRatioSchedule(self.ratio)

    def expected(self, transitions: int, num_envs: int) -> int:
        """All updates of the run."""
        return max(int(transitions * self.ratio), 1)


@dataclass(frozen=True)
class PerStep:
    """The same number of updates after every step of all worlds together, however many they are."""

    updates: float = 8.0
    """Gradient updates per step of all worlds; fractions such as 0.5 are kept exactly."""

    def build(self) -> "PerStepSchedule":
        """A counter without credit; it learns from the agent how many worlds there are."""
        return PerStepSchedule(self.updates)

    def expected(self, transitions: int, num_envs: int) -> int:
        """All updates of the run."""
        return max(int(transitions * exact(self.updates, "updates") / num_envs), 1)


def exact(ratio: float, name: str = "ratio") -> Fraction:
    """The ratio as a fraction, through its decimal text: 0.3 means three tenths, not the binary number a little below them.

    Raises `ScheduleError` unless it is positive and finite.
    """
    if not (isfinite(ratio) and ratio > 0):
        raise ScheduleError(f"{name} is {ratio}; give a positive number of updates per transition, such as 1 or 0.25.")
    return Fraction(str(ratio))


class FixedRatioSchedule(Schedule):
    """Over any N transitions since the start exactly `floor(N ratio)` updates, without the drift of floating-point sums."""

    def __init__(self, ratio: float):
        self.ratio = exact(ratio)
        self.credit = Fraction(0)

    def updates(self, transitions: int) -> int:
        """How many updates are due now that `transitions` more have been collected."""
        self.credit += transitions * self.ratio
        due = floor(self.credit)
        self.credit -= due
        return due

    def state_dict(self) -> dict[str, Any]:
        """The credit, below one update, as two integers."""
        return {"numerator": self.credit.numerator, "denominator": self.credit.denominator}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the saved credit."""
        self.credit = Fraction(state["numerator"], state["denominator"])


class PerStepSchedule(FixedRatioSchedule):
    """Over any N transitions exactly `floor(N updates / worlds)` updates."""

    def __init__(self, updates: float):
        super().__init__(updates)
        self.each = exact(updates, "updates")

    def begin(self, agent: Any) -> None:
        """A transition counts for one over the number of worlds."""
        self.ratio = self.each / agent.setting.num_envs


@dataclass(frozen=True)
class Priming:
    """Many updates on the first transitions, then a fixed ratio: heavy priming (Nikishin et al. 2022, arXiv 2205.07802, section 3.1)."""

    updates: int = 100_000
    """Updates that are made at once when the first transitions are there, before another step of the worlds."""
    transitions: int = 1
    """How many of them there must be, beside the random ones that the first update waits for."""
    ratio: float = 1.0
    """Updates per transition from then on."""

    def __post_init__(self) -> None:
        for name in ("updates", "transitions"):
            if getattr(self, name) < 1:
                raise ScheduleError(f"{name} is {getattr(self, name)}; give one or more.")

    def build(self) -> "PrimingSchedule":
        """A counter without credit."""
        return PrimingSchedule(self)

    def expected(self, transitions: int, num_envs: int) -> int:
        """All updates of the run."""
        return self.updates + max(int((transitions - self.transitions) * self.ratio), 0)


class PrimingSchedule(FixedRatioSchedule):
    """The schedule that `Priming` describes."""

    def __init__(self, config: Priming):
        super().__init__(config.ratio)
        self.config, self.waiting = config, config.transitions

    def updates(self, transitions: int) -> int:
        """Nothing until there are enough transitions, then all of the priming at once, then the ratio's."""
        if self.waiting == 0:
            return super().updates(transitions)
        rest = max(transitions - self.waiting, 0)
        self.waiting = max(self.waiting - transitions, 0)
        return 0 if self.waiting else self.config.updates + super().updates(rest)

    def state_dict(self) -> dict[str, Any]:
        """The credit, and how many transitions priming waits for."""
        return super().state_dict() | {"waiting": self.waiting}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the saved state."""
        super().load_state_dict(state)
        self.waiting = state["waiting"]


class Every:
    """True whenever a counter has reached or passed a further multiple of `interval`: `if every(env_steps): ...`.

    The counter may jump over multiples (several worlds, action repeat); passing several at once counts once.
    """

    def __init__(self, interval: int):
        if interval < 1:
            raise ScheduleError(f"interval is {interval}; give a positive number of steps.")
        self.interval = interval
        self.reached = 0

    def __call__(self, count: int) -> bool:
        """Whether a multiple lies between the last call that returned True (or the start) and `count`."""
        multiple = count // self.interval
        passed = multiple > self.reached
        self.reached = max(multiple, self.reached)
        return passed

    def state_dict(self) -> dict[str, Any]:
        """The multiple reached."""
        return {"reached": self.reached}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the saved multiple."""
        self.reached = state["reached"]


@dataclass(frozen=True)
class Until:
    """True while a counter is below `limit`: `while until(env_steps): ...`."""

    limit: int
    """The count at which to stop."""

    def __call__(self, count: int) -> bool:
        """Whether `count` is still below the limit."""
        return count < self.limit
