"""Freeway: a chicken crosses eight lanes of traffic, again and again, until the time is over.

The chicken stays in column 4 and starts in row 9; the rows 1 to 8 have one car each. A car of pace k moves by one cell every k + 1 steps,
k from 1 to 5, and comes back at the other edge when it leaves the field. At the start of an episode all cars stand in column 0, and
pace and direction of each are drawn (all paces alike, left and right alike); whenever the chicken reaches the top they are drawn anew,
while the cars stay where they are. A step goes like this:

1. The chicken moves up or down by one row, if that is the action and at least three steps have passed since it moved last (or, where the
   edge held it back, since it tried).
2. In row 0, it gets a reward of 1 and is put back to row 9; paces, directions and waiting times of the cars are drawn anew.
3. The cars move. If one is where the chicken is, before or after its move, the chicken is put back to row 9.
4. The 2501st step of an episode is its last.

The trail is the cell that a car comes from, in one of five channels for its pace. The game does not get harder.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from steelyard.envs.minatar.game import DOWN, INTEGER, SIDE, UP, Game, cells, choose, full, moved, numbers, paint

LANES = 8
"""Rows with a car; the first of them is row 1."""
PACES = 5
COLUMN, START_ROW = 4, 9
WAIT, STEPS = 3, 2500


class FreewayState(NamedTuple):
    """The state of each world; timers count steps down."""

    row: Tensor
    """[worlds]: row of the chicken."""
    wait: Tensor
    """[worlds]: steps until the chicken may move."""
    steps_left: Tensor
    """[worlds]: steps until the end; the game is over when there are fewer than none."""
    cars: Tensor
    """[worlds, 8]: column of the car in each of the rows 1 to 8."""
    right: Tensor
    """[worlds, 8]: 1 for cars that go right, -1 for those that go left."""
    pace: Tensor
    """[worlds, 8]: steps that each car waits between two moves."""
    car_wait: Tensor
    """[worlds, 8]: steps until each car moves."""


class Freeway(Game[FreewayState]):
    """The rules of Freeway."""

    channels = ("chicken", "car", "pace 1", "pace 2", "pace 3", "pace 4", "pace 5")
    useful_actions = (0, UP, DOWN)
    start_draws = 2 * LANES
    step_draws = 2 * LANES

    def start(self, draws: Tensor) -> FreewayState:
        """Draws: the pace of each car, then the direction of each (left below one half)."""
        pace, right = _traffic(draws)
        return FreewayState(
            row=full(draws, START_ROW),
            wait=full(draws, WAIT),
            steps_left=full(draws, STEPS),
            cars=torch.zeros_like(pace),
            right=right,
            pace=pace,
            car_wait=pace,
        )

    def step(self, state: FreewayState, action: Tensor, draws: Tensor) -> tuple[FreewayState, Tensor, Tensor]:
        """Draws as in `start`; they count only if the chicken reaches the top."""
        goes = (state.wait == 0) & ((action == UP) | (action == DOWN))
        row = torch.where(goes, moved(state.row, action, UP, DOWN), state.row)
        wait = torch.where(goes, WAIT, state.wait)

        across = row == 0
        pace, right = _traffic(draws)
        pace = torch.where(across[:, None], pace, state.pace)
        right = torch.where(across[:, None], right, state.right)
        car_wait = torch.where(across[:, None], pace, state.car_wait)
        row = torch.where(across, START_ROW, row)

        drives = car_wait == 0
        cars = torch.where(drives, (state.cars + right) % SIDE, state.cars)
        lane = numbers(LANES, row) + 1 == row[:, None]
        hit = (lane & ((state.cars == COLUMN) | (cars == COLUMN))).any(1)
        steps_left = state.steps_left - 1
        new = FreewayState(
            row=torch.where(hit, START_ROW, row),
            wait=(wait - 1).clamp(min=0),
            steps_left=steps_left,
            cars=cars,
            right=right,
            pace=pace,
            car_wait=torch.where(drives, pace, car_wait - 1),
        )
        return new, across.float(), steps_left < 0

    def picture(self, state: FreewayState) -> Tensor:
        """The chicken, and the cars with the cells that they come from."""
        row = numbers(LANES, state.row) + 1
        marks = torch.cat([cells(1, row, state.cars), cells(1 + state.pace, row, (state.cars - state.right) % SIDE)], 1)
        chicken = cells(0, state.row, full(state.row, COLUMN))
        return paint(len(self.channels), chicken, marks, torch.ones_like(marks, dtype=torch.bool))


def _traffic(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Paces and directions [worlds, 8] from draws [worlds, 16]."""
    return 1 + choose(draws[:, :LANES], PACES), torch.where(draws[:, LANES:] < 1 / 2, -1, 1).to(INTEGER)
