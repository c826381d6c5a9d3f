"""Breakout: a ball that moves along diagonals breaks bricks, and the player's paddle keeps it in the field.

Three rows of bricks, 1 to 3, fill the width of the field; the paddle is one cell in the lowest row. The ball starts in row 3 at the
left or the right edge, on its way down and towards the middle.

In each step the paddle moves first, then the ball by one cell along its diagonal. A wall at the side reflects it sideways and leaves it in
the outermost column; after that, one of these happens:

- above the field: the ball stays in the top row and turns down;
- in a brick: the brick breaks for a reward of 1, and the ball stays in its row and turns down if it went up, up if it went down. A
  ball that has just broken a brick passes through others, until it comes to a cell without one;
- in the lowest row: if no brick is left, all three rows come back. If the paddle is under the column that the ball comes from, the ball
  turns up; if it is in the column that the ball goes to, the ball turns back the way it came; in both cases it stays in its row.
  Otherwise the game is over.

The trail is where the ball was before the step. There is nothing random but the side of the start, and the game does not get harder.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from steelyard.envs.minatar.game import INTEGER, LEFT, RIGHT, SIDE, Game, cells, choose, full, moved, numbers, paint

BRICK_ROWS = (1, 4)
"""First row of the bricks, and the first below them."""


class BreakoutState(NamedTuple):
    """The state of each world."""

    paddle: Tensor
    """[worlds]: column of the paddle."""
    column: Tensor
    """[worlds]: column of the ball."""
    row: Tensor
    """[worlds]: row of the ball."""
    last_column: Tensor
    """[worlds]: column of the ball one step ago."""
    last_row: Tensor
    """[worlds]: row of the ball one step ago."""
    right: Tensor
    """[worlds]: 1 for a ball that goes right, -1 for one that goes left."""
    down: Tensor
    """[worlds]: 1 for a ball that goes down, -1 for one that goes up."""
    struck: Tensor
    """[worlds] bool: whether the ball passes through bricks for now."""
    bricks: Tensor
    """[worlds, 10, 10] bool: where bricks are."""


class Breakout(Game[BreakoutState]):
    """The rules of Breakout."""

    channels = ("paddle", "ball", "trail", "brick")
    useful_actions = (0, LEFT, RIGHT)
    start_draws = 1

    def start(self, draws: Tensor) -> BreakoutState:
        """The first draw chooses the side: left below one half."""
        side = choose(draws[:, 0], 2)
        column, row = side * (SIDE - 1), full(draws, 3)
        return BreakoutState(
            paddle=full(draws, 4),
            column=column,
            row=row,
            last_column=column,
            last_row=row,
            right=1 - 2 * side,
            down=full(draws, 1),
            struck=torch.zeros_like(side, dtype=torch.bool),
            bricks=_wall(draws).expand(len(draws), SIDE, SIDE),
        )

    def step(self, state: BreakoutState, action: Tensor, draws: Tensor) -> tuple[BreakoutState, Tensor, Tensor]:
        """No draws."""
        paddle = moved(state.paddle, action, LEFT, RIGHT)
        column, row = state.column + state.right, state.row + state.down
        beside, above = (column < 0) | (column >= SIDE), row < 0
        column, row = column.clamp(0, SIDE - 1), row.clamp(min=0)
        here = cells(0, row, column).long()[:, None]
        in_brick = state.bricks.flatten(1).gather(1, here).squeeze(1) & ~above
        breaks = in_brick & ~state.struck
        at_bottom = row == SIDE - 1
        kept = at_bottom & (state.column == paddle)
        returned = at_bottom & ~kept & (column == paddle)
        bricks = state.bricks & ~(breaks[:, None, None] & (numbers(SIDE * SIDE, row) == here).view(-1, SIDE, SIDE))
        refilled = at_bottom & ~bricks.flatten(1).any(1)
        new = BreakoutState(
            paddle=paddle,
            column=column,
            row=torch.where(breaks | kept | returned, state.row, row),
            last_column=state.column,
            last_row=state.row,
            right=torch.where(beside ^ returned, -state.right, state.right),
            down=torch.where(above | breaks | kept | returned, -state.down, state.down),
            struck=in_brick,
            bricks=bricks | (refilled[:, None, None] & _wall(row)),
        )
        return new, breaks.float(), at_bottom & ~kept & ~returned

    def picture(self, state: BreakoutState) -> Tensor:
        """Paddle, ball, the place where the ball was, and bricks."""
        marks = torch.stack([cells(1, state.row, state.column), cells(2, state.last_row, state.last_column)], 1)
        picture = paint(len(self.channels), cells(0, full(state.row, SIDE - 1), state.paddle), marks, torch.ones_like(marks) > 0)
        picture[:, 3] = state.bricks
        return picture


def _wall(like: Tensor) -> Tensor:
    """[10, 1] bool: the rows that bricks fill, on the device of `like`."""
    row = torch.arange(SIDE, dtype=INTEGER, device=like.device)[:, None]
    return (row >= BRICK_ROWS[0]) & (row < BRICK_ROWS[1])
