"""Asterix: the player moves freely, gathers gold and keeps away from enemies, which both cross the field from side to side.

Each of the rows 1 to 8 holds one thing at most, an enemy or a piece of gold. The player starts in row 5 and column 5 and never leaves
these rows. A step goes like this:

1. Every `spawn_interval` steps a thing enters, if a row is free: at the left edge going right or at the right edge going left (each
   with probability 1/2), gold with probability 1/3, in one of the free rows.
2. The player moves.
3. What is where the player is counts: gold is taken for a reward of 1, an enemy ends the game.
4. Every `move_interval` steps all things move by one cell; those that leave the field are gone; and again what is where the player is
   counts.
5. The game gets harder about every hundred steps: the spawn interval shrinks from 10 to 1, and every second time the move
   interval from 5 to 1.

The trail is the cell that a thing comes from.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from steelyard.envs.minatar.game import (
    DOWN,
    GONE,
    INTEGER,
    LEFT,
    RIGHT,
    SIDE,
    UP,
    Game,
    cells,
    choose,
    full,
    inside,
    moved,
    numbers,
    paint,
)

ROWS = 8
"""Rows that things cross; the first of them is row 1."""
SPAWN_INTERVAL, MOVE_INTERVAL, RAMP_INTERVAL = 10, 5, 100


class AsterixState(NamedTuple):
    """The state of each world; timers count steps down."""

    row: Tensor
    """[worlds]: row of the player."""
    column: Tensor
    """[worlds]: column of the player."""
    things: Tensor
    """[worlds, 8]: column of the thing in each of the rows 1 to 8; outside the field if there is none."""
    right: Tensor
    """[worlds, 8]: 1 for things that go right, -1 for those that go left."""
    gold: Tensor
    """[worlds, 8] bool: whether the thing is gold."""
    spawn_interval: Tensor
    """[worlds]: steps between two things that enter."""
    spawn_timer: Tensor
    """[worlds]: steps until the next thing enters."""
    move_interval: Tensor
    """[worlds]: steps between two moves."""
    move_timer: Tensor
    """[worlds]: steps until the next move."""
    ramp_timer: Tensor
    """[worlds]: steps until the game gets harder."""
    ramps: Tensor
    """[worlds]: how often it got harder."""


class Asterix(Game[AsterixState]):
    """The rules of Asterix."""

    channels = ("player", "enemy", "trail", "gold")
    useful_actions = (0, LEFT, UP, RIGHT, DOWN)
    step_draws = 3

    def start(self, draws: Tensor) -> AsterixState:
        """No draws: every episode starts alike, and the first thing enters after ten steps."""
        nothing = full(draws, GONE)[:, None].expand(-1, ROWS)
        return AsterixState(
            row=full(draws, 5),
            column=full(draws, 5),
            things=nothing,
            right=nothing,
            gold=torch.zeros_like(nothing, dtype=torch.bool),
            spawn_interval=full(draws, SPAWN_INTERVAL),
            spawn_timer=full(draws, SPAWN_INTERVAL),
            move_interval=full(draws, MOVE_INTERVAL),
            move_timer=full(draws, MOVE_INTERVAL),
            ramp_timer=full(draws, RAMP_INTERVAL),
            ramps=full(draws, 0),
        )

    def step(self, state: AsterixState, action: Tensor, draws: Tensor) -> tuple[AsterixState, Tensor, Tensor]:
        """Draws: the side (left below 1/2), the kind (gold below 1/3), and which of the free rows."""
        things, right, gold = state.things, state.right, state.gold
        spawns, moves = state.spawn_timer == 0, state.move_timer == 0
        free = ~inside(things)
        place = free.cumsum(1) - 1  # of a free row among the free rows
        enters = spawns[:, None] & free & (place == choose(draws[:, 2], free.sum(1))[:, None])
        from_left = (draws[:, :1] < 1 / 2).to(INTEGER)
        things = torch.where(enters, (1 - from_left) * (SIDE - 1), things)
        right = torch.where(enters, 2 * from_left - 1, right)
        gold = torch.where(enters, draws[:, 1:2] < 1 / 3, gold)

        row, column = moved(state.row, action, UP, DOWN, 1, ROWS), moved(state.column, action, LEFT, RIGHT)
        things, taken, met = _meet(things, gold, row, column)
        things = torch.where(moves[:, None] & inside(things), things + right, things)
        things, taken_after, met_after = _meet(things, gold, row, column)

        harder = (state.ramp_timer < 0) & self.ramping
        faster = harder & (state.move_interval > 1) & (state.ramps % 2 == 1)
        new = AsterixState(
            row=row,
            column=column,
            things=things,
            right=right,
            gold=gold,
            spawn_interval=state.spawn_interval - (harder & (state.spawn_interval > 1)).to(INTEGER),
            spawn_timer=torch.where(spawns, state.spawn_interval, state.spawn_timer) - 1,
            move_interval=state.move_interval - faster.to(INTEGER),
            move_timer=torch.where(moves, state.move_interval, state.move_timer) - 1,
            ramp_timer=torch.where(harder, RAMP_INTERVAL, state.ramp_timer - 1),
            ramps=state.ramps + harder.to(INTEGER),
        )
        return new, (taken | taken_after).float(), met | met_after

    def picture(self, state: AsterixState) -> Tensor:
        """The player, and the things with the cells that they come from."""
        row, here, behind = numbers(ROWS, state.row) + 1, inside(state.things), state.things - state.right
        kind = torch.where(state.gold, 3, 1).to(INTEGER)
        marks = torch.cat([cells(kind, row, state.things), cells(2, row, behind)], 1)
        shown = torch.cat([here, here & inside(behind)], 1)
        return paint(len(self.channels), cells(0, state.row, state.column), marks, shown)


def _meet(things: Tensor, gold: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What is where the player is: things that are left, whether gold was taken, and whether an enemy was met [worlds] bool."""
    here = (things == column[:, None]) & (numbers(ROWS, row) + 1 == row[:, None])
    taken = here & gold
    return torch.where(taken, GONE, things), taken.any(1), (here & ~gold).any(1)
