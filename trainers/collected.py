"""What pools of actors hand over, whichever they are, and how they fail."""

from typing import NamedTuple

from steelyard.agents.errors import SteelyardError
from steelyard.agents.types import Step

TRIES = 3
"""Processes of one actor that may die one after the other without a single transition."""


class ActorError(SteelyardError):
    """An actor cannot go on, or the pool cannot be built. The message is one sentence with the remedy."""


class Episode(NamedTuple):
    """A finished episode."""

    score: float
    """Undiscounted sum of rewards."""
    length: float
    """Decisions."""
    count: int = 1
    """Episodes that these numbers are the mean of: many worlds on a device report no single ones."""


class Collected(NamedTuple):
    """What `collect` found."""

    steps: list[Step]
    """Newly completed rows, each column's in order and exactly once, as steps of all columns. A reset appears as a row of its own
    with `valid` False, whichever autoreset the worlds use. A column without a further row has `valid` False, `truncated` True and
    equal observations: there is nothing to learn from it."""
    transitions: int
    """How many valid rows these are."""
