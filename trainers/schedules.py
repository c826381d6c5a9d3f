"""The schedule slot: how many gradient updates now. And the two clocks of a loop, `Every` and `Until`."""

from dataclasses import dataclass
from fractions import Fraction
from math import floor, isfinite
from typing import Any, Protocol

from steelyard.agents.errors import SteelyardError


class ScheduleError(SteelyardError):
    """A schedule was given a number that it cannot keep. The message is one sentence with the remedy."""


class Schedule(Protocol):
    """Turns collected transitions into gradient updates that are due."""

    def updates(self, transitions: int) -> int:
        """How many updates are due now that `transitions` more have been collected."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The running credit, as plain data."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        ...


class ScheduleConfig(Protocol):
    """What stands in the slot: a frozen value that builds its schedule."""

    def build(self) -> Schedule:
        """A schedule without credit."""
        ...


@dataclass(frozen=True)
class FixedRatio:
    """The same number of updates for every collected transition."""

    ratio: float = 1.0
    """Gradient updates per collected transition (one decision of one world), usually 0.25 to 16; fractions are kept exactly."""

    def build(self) -> "FixedRatioSchedule":
        """A counter without credit."""
        return FixedRatioSchedule(self.ratio)


class FixedRatioSchedule:
    """Over any N transitions since the start exactly `floor(N ratio)` updates, without the drift of floating-point sums."""

    def __init__(self, ratio: float):
        if not (isfinite(ratio) and ratio > 0):
            raise ScheduleError(f"ratio is {ratio}; give a positive number of updates per transition, such as 1 or 0.25.")
        # Through the decimal text: 0.3 means three tenths, not the binary number a little below them.
        self.ratio = Fraction(str(ratio))
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
