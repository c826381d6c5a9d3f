"""What the five games of MinAtar (Young & Tian 2019) share: a field of 10 x 10 cells, six actions, and draws that are given.

A game here is a pure function of its state, the actions and the random numbers, over all worlds at once: no loop over worlds, nothing
read back from the device, no branch on data. So it runs on any device, and can be compiled or captured in a CUDA graph.
Columns count from the left and rows from the top.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from steelyard.agents.types import Spec

SIDE = 10
"""Rows and columns of the field."""
ACTIONS = ("stay", "left", "up", "right", "down", "fire")
"""What the choices 0 to 5 mean."""
LEFT, UP, RIGHT, DOWN, FIRE = range(1, 6)
GONE = -1
"""Column of what is no longer in the field. Whatever has left it to one side counts as gone, too."""
INTEGER = torch.int32
"""Type of positions and timers."""

State = TypeVar("State", bound=NamedTuple)


@dataclass(frozen=True)
class Settings:
    """What can be chosen about a game; the defaults are those of the package `minatar`."""

    sticky: float = 0.1
    """Probability that a world repeats its last action in place of the one that it is given."""
    ramping: bool = True
    """Whether a game becomes harder as it goes on, where it has a rule for that."""
    minimal_actions: bool = False
    """Whether only the actions that do something in this game are offered, in place of all six."""
    time_limit: int | None = 10_000
    """Steps after which an episode is cut; None for games that last until they are lost."""


class Game(ABC, Generic[State]):
    """The rules of one game; every tensor has the worlds in front."""

    channels: ClassVar[tuple[str, ...]]
    """What the channels of an observation show."""
    useful_actions: ClassVar[tuple[int, ...]]
    """The actions that do something."""
    start_draws: ClassVar[int] = 0
    """Random numbers that `start` takes for each world."""
    step_draws: ClassVar[int] = 0
    """Random numbers that `step` takes for each world."""

    def __init__(self, ramping: bool = True):
        """`ramping`: whether the game becomes harder as it goes on, where it has a rule for that."""
        self.ramping = ramping

    @abstractmethod
    def start(self, draws: Tensor) -> State:
        """The state at the start of an episode. `draws` [worlds, start_draws]: uniform in [0, 1), as `uniform` makes them."""

    @abstractmethod
    def step(self, state: State, action: Tensor, draws: Tensor) -> tuple[State, Tensor, Tensor]:
        """One step: next state, reward [worlds] float32, and whether the game is over [worlds] bool.

        `action` [worlds]: numbers from `ACTIONS`. `draws` [worlds, step_draws]: uniform in [0, 1), as `uniform` makes them.
        """

    @abstractmethod
    def picture(self, state: State) -> Tensor:
        """The observation [worlds, channels, 10, 10] float32 of zeros and ones."""

    def actions(self, settings: Settings) -> tuple[int, ...]:
        """The numbers from `ACTIONS` that an agent chooses from."""
        return self.useful_actions if settings.minimal_actions else tuple(range(len(ACTIONS)))

    def spec(self, settings: Settings) -> Spec:
        """What an agent must know of this game."""
        shape = (len(self.channels), SIDE, SIDE)
        return Spec(
            obs_size=shape[0] * SIDE * SIDE,
            action_size=len(self.actions(settings)),
            horizon=settings.time_limit,
            can_terminate=True,
            discrete=True,
            picture=shape,
        )


def choose(draw: Tensor, count: Tensor | int) -> Tensor:
    """A number from 0 to `count` - 1, all equally likely, for a uniform draw."""
    return (draw * count).to(INTEGER)


def full(draws: Tensor, value: int) -> Tensor:
    """[worlds] integers of one value, with the worlds and the device of `draws`."""
    return torch.full((len(draws),), value, dtype=INTEGER, device=draws.device)


def numbers(count: int, like: Tensor) -> Tensor:
    """0, 1, ..., count - 1 as integers on the device of `like`."""
    return torch.arange(count, dtype=INTEGER, device=like.device)


def inside(column: Tensor) -> Tensor:
    """Whether columns lie in the field, which is to say that what is there is not gone."""
    return (column >= 0) & (column < SIDE)


def moved(position: Tensor, action: Tensor, back: int, forth: int, low: int = 0, high: int = SIDE - 1) -> Tensor:
    """Positions [worlds] after the actions `back` (one less) and `forth` (one more), kept between `low` and `high`."""
    return (position + (action == forth).to(INTEGER) - (action == back).to(INTEGER)).clamp(low, high)


def cells(channel: Tensor | int, row: Tensor, column: Tensor) -> Tensor:
    """Numbers of cells in a picture, counted through its channels and rows."""
    return channel * SIDE * SIDE + row * SIDE + column


def paint(channels: int, player: Tensor, marks: Tensor, shown: Tensor) -> Tensor:
    """A picture [worlds, channels, 10, 10] float32 with ones at the cells `player` [worlds] and, where `shown`, at `marks` [worlds, n].

    What is not shown is painted once more where the player is, so that all worlds paint the same number of marks.
    """
    player = player[:, None]
    number = torch.cat([player, torch.where(shown, marks, player)], 1).long()
    blank = torch.zeros(len(player), channels * SIDE * SIDE, device=player.device)
    return blank.scatter_(1, number, 1.0).view(-1, channels, SIDE, SIDE)
