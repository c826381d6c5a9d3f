"""Seaquest: a submarine shoots at fish and enemy submarines, picks up divers, and must come up for air before its oxygen ends.

The submarine takes two cells: its front, and behind that its back. Its front starts at the surface, in row 0 and column 5, facing
left, and stays above row 9. Enemies and divers cross the rows 1 to 8 from edge to edge. A step goes like this:

1. Every `spawn_interval` steps an enemy enters: at the left edge going right or at the right edge going left (each with probability
   1/2), a submarine with probability 1/3 and otherwise a fish, in one of the eight rows. It stays out if an enemy in that row goes
   the other way. Every 30 steps a diver enters in the same manner, wherever.
2. The submarine moves and faces the side that it moves to, or shoots if its last shot was at least five steps ago.
3. Its bullets fly by one cell. A bullet and the enemy that it comes to vanish for a reward of 1; of several, the fish that has been there
   longest, or, without fish, the submarine.
4. Divers move by one cell every six steps. One that is where the submarine is, before or after its move, is picked up while fewer than
   six are aboard.
5. Enemies move by one cell every `move_interval` + 1 steps. One that is where the submarine is, before or after its move, ends the
   game. One that moves to where a bullet is vanishes with it for a reward of 1.
   An enemy submarine fires a torpedo in its own direction every eleven steps, even in the step in which it is shot.
6. Torpedoes fly by one cell. One that is where the submarine is, before or after that, ends the game.
7. The game is over when there is no oxygen left; 200 units last for 200 steps below the surface.
8. Coming up ends the game if no diver is aboard. Otherwise oxygen is full again, one diver goes ashore and the game gets harder: the
   spawn interval shrinks from 20 to 1, and every second time the move interval from 5 to 2. With six aboard, all go ashore first, for a
   reward of 1 for each of the ten cells of the oxygen gauge that were left. The count of divers is then one below zero, and a count
   below zero lets the submarine come up as one above does: that is how the package plays, and so it is played here.

Trails are the cells that enemies and divers come from. The gauges of oxygen and of divers are in row 9.

**Lists of fixed length.** What enters is put in front of its list, and the last entry falls off the end. The lists are long enough for the
last entry to have left the field by then: bullets fly at most ten steps and follow each other after five, divers stay for sixty steps and
come every thirty, and there are 30 enemies at most, when the game is hardest (then one enters in each step, and it stays for thirty). A
torpedo shares the entry of its submarine: it is out of the field before the next one is fired.

Since bullets and enemies of the same row keep their distances, two bullets are never in one cell, and no two enemies move to the same cell in one
step. So it does not matter in which order they are looked at, but for several enemies that are in one cell when a bullet comes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from steelyard.envs.minatar.game import (
    DOWN,
    FIRE,
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

BULLETS, DIVERS, ENEMIES = 2, 2, 32
"""Lengths of the lists."""
ROWS = 8
"""Rows that enemies and divers cross; the first of them is row 1."""
OXYGEN, CREW = 200, 6
SPAWN_INTERVAL, DIVER_INTERVAL = 20, 30
MOVE_INTERVAL, SHORTEST_MOVE_INTERVAL, DIVER_MOVE_INTERVAL = 5, 2, 5
SHOT_INTERVAL, TORPEDO_INTERVAL = 5, 10


class SeaquestState(NamedTuple):
    """The state of each world; timers count steps down. What has left its list's field or was hit has a column outside the field."""

    row: Tensor
    """[worlds]: row of the submarine."""
    column: Tensor
    """[worlds]: column of its front."""
    right: Tensor
    """[worlds]: 1 if it faces right, -1 if left."""
    bullets: Tensor
    """[worlds, 3, 2]: column, row and direction (1 or -1) of its bullets."""
    divers: Tensor
    """[worlds, 4, 2]: column, row, direction, and steps until the next move."""
    enemies: Tensor
    """[worlds, 7, 32]: column, row, direction, 1 for a submarine or 0 for a fish, steps until the next move, steps until the next
    torpedo, column of the last torpedo."""
    oxygen: Tensor
    """[worlds]: units of oxygen."""
    aboard: Tensor
    """[worlds]: divers aboard."""
    surfaced: Tensor
    """[worlds] bool: whether the submarine has come up."""
    spawn_interval: Tensor
    """[worlds]: steps between two enemies that enter."""
    spawn_timer: Tensor
    """[worlds]: steps until the next enemy enters."""
    diver_timer: Tensor
    """[worlds]: steps until the next diver enters."""
    move_interval: Tensor
    """[worlds]: steps that enemies wait between two moves."""
    shot_timer: Tensor
    """[worlds]: steps until the submarine can shoot."""
    ramps: Tensor
    """[worlds]: how often the game got harder."""


class Seaquest(Game[SeaquestState]):
    """The rules of Seaquest."""

    channels = (
        "front",
        "back",
        "bullet",
        "trail",
        "torpedo",
        "fish",
        "enemy submarine",
        "oxygen",
        "divers aboard",
        "diver",
    )
    useful_actions = (0, LEFT, UP, RIGHT, DOWN, FIRE)
    step_draws = 5

    def start(self, draws: Tensor) -> SeaquestState:
        """No draws: every episode starts alike."""
        nothing = full(draws, GONE)[:, None, None]
        return SeaquestState(
            row=full(draws, 0),
            column=full(draws, 5),
            right=full(draws, -1),
            bullets=nothing.expand(-1, 3, BULLETS),
            divers=nothing.expand(-1, 4, DIVERS),
            enemies=nothing.expand(-1, 7, ENEMIES),
            oxygen=full(draws, OXYGEN),
            aboard=full(draws, 0),
            surfaced=torch.ones(len(draws), dtype=torch.bool, device=draws.device),
            spawn_interval=full(draws, SPAWN_INTERVAL),
            spawn_timer=full(draws, SPAWN_INTERVAL),
            diver_timer=full(draws, DIVER_INTERVAL),
            move_interval=full(draws, MOVE_INTERVAL),
            shot_timer=full(draws, 0),
            ramps=full(draws, 0),
        )

    def step(self, state: SeaquestState, action: Tensor, draws: Tensor) -> tuple[SeaquestState, Tensor, Tensor]:
        """Draws: of an enemy the side (left below 1/2), the kind (submarine below 1/3) and the row; of a diver the side and the row."""
        enemies = _enemy_enters(state, draws[:, :3])
        divers = _diver_enters(state, draws[:, 3:])
        fires = (action == FIRE) & (state.shot_timer == 0)
        bullets = _push(state.bullets, torch.stack([state.column, state.row, state.right], 1), fires)
        row, column = moved(state.row, action, UP, DOWN, 0, SIDE - 2), moved(state.column, action, LEFT, RIGHT)
        turned = torch.where(action == LEFT, -1, torch.where(action == RIGHT, 1, state.right)).to(INTEGER)

        bullets, enemies, shot = _bullets_fly(bullets, enemies)
        divers, aboard = _divers_swim(divers, row, column, state.aboard)
        bullets, enemies, rammed_bullet, rammed = _enemies_move(bullets, enemies, row, column, state.move_interval)
        enemies, torpedoed = _torpedoes_fly(enemies, row, column)

        below = row > 0
        comes_up = ~below & ~state.surfaced
        ashore = comes_up & (aboard != 0)
        delivered = ashore & (aboard == CREW)
        reward = shot + rammed_bullet + torch.where(delivered, _gauge(state.oxygen), 0)
        over = rammed | torpedoed | (state.oxygen <= 0) | (comes_up & (aboard == 0))
        aboard = torch.where(delivered, 0, aboard) - ashore.to(INTEGER)
        harder = ashore & self.ramping
        faster = harder & (state.move_interval > SHORTEST_MOVE_INTERVAL) & (state.ramps % 2 == 1)
        new = SeaquestState(
            row=row,
            column=column,
            right=turned,
            bullets=bullets,
            divers=divers,
            enemies=enemies,
            oxygen=torch.where(ashore, OXYGEN, state.oxygen - below.to(INTEGER)),
            aboard=aboard,
            surfaced=~below & (state.surfaced | ashore),
            spawn_interval=state.spawn_interval - (harder & (state.spawn_interval > 1)).to(INTEGER),
            spawn_timer=torch.where(state.spawn_timer == 0, state.spawn_interval, state.spawn_timer) - 1,
            diver_timer=torch.where(state.diver_timer == 0, DIVER_INTERVAL, state.diver_timer) - 1,
            move_interval=state.move_interval - faster.to(INTEGER),
            shot_timer=(torch.where(fires, SHOT_INTERVAL, state.shot_timer) - 1).clamp(min=0),
            ramps=state.ramps + harder.to(INTEGER),
        )
        return new, reward.float(), over

    def picture(self, state: SeaquestState) -> Tensor:
        """The submarine, its bullets, enemies with torpedoes, divers, trails, and the gauges."""
        x, y, right, submarine, _, _, torpedo = state.enemies.unbind(1)
        diver_x, diver_y, diver_right, _ = state.divers.unbind(1)
        bullet_x, bullet_y, _ = state.bullets.unbind(1)
        marks = (  # channel, row, column
            (1, state.row[:, None], (state.column - state.right)[:, None]),
            (2, bullet_y, bullet_x),
            (3, y, _behind(x, right)),
            (3, diver_y, _behind(diver_x, diver_right)),
            (4, y, torpedo),
            (5 + submarine, y, x),
            (9, diver_y, diver_x),
        )
        cell, shown = torch.cat([cells(*mark) for mark in marks], 1), inside(torch.cat([mark[2] for mark in marks], 1))
        picture = paint(len(self.channels), cells(0, state.row, state.column), cell, shown)
        column = numbers(SIDE, state.row)
        last = SIDE - 1
        picture[:, 7, last] = (column < _gauge(state.oxygen)[:, None]).float()
        picture[:, 8, last] = ((column >= last - state.aboard[:, None]) & (column < last)).float()
        return picture


def _gauge(oxygen: Tensor) -> Tensor:
    """Cells of the gauge [worlds] that units of oxygen fill."""
    return oxygen * SIDE // OXYGEN


def _behind(column: Tensor, right: Tensor) -> Tensor:
    """The columns that swimmers come from."""
    return torch.where(inside(column), column - right, GONE)


def _push(entries: Tensor, new: Tensor, where: Tensor) -> Tensor:
    """Lists [worlds, fields, length] with `new` [worlds, fields] in front, in the worlds `where`; the last entry falls off."""
    return torch.where(where[:, None, None], torch.cat([new[:, :, None], entries[:, :, :-1]], 2), entries)


def _crossing(side: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Column, row and direction [worlds] of what enters, from two draws [worlds]."""
    from_left = (side < 1 / 2).to(INTEGER)
    return (1 - from_left) * (SIDE - 1), 1 + choose(row, ROWS), 2 * from_left - 1


def _enemy_enters(state: SeaquestState, draws: Tensor) -> Tensor:
    column, row, right = _crossing(draws[:, 0], draws[:, 2])
    x, y, direction, *_ = state.enemies.unbind(1)
    opposed = (inside(x) & (y == row[:, None]) & (direction != right[:, None])).any(1)
    submarine, torpedo_timer = (draws[:, 1] < 1 / 3).to(INTEGER), full(draws, TORPEDO_INTERVAL)
    new = torch.stack([column, row, right, submarine, state.move_interval, torpedo_timer, full(draws, GONE)], 1)
    return _push(state.enemies, new, (state.spawn_timer == 0) & ~opposed)


def _diver_enters(state: SeaquestState, draws: Tensor) -> Tensor:
    new = torch.stack([*_crossing(draws[:, 0], draws[:, 1]), full(draws, DIVER_MOVE_INTERVAL)], 1)
    return _push(state.divers, new, state.diver_timer == 0)


def _bullets_fly(bullets: Tensor, enemies: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bullets and enemies that are left, and how many were hit [worlds]."""
    x, y, right = bullets.unbind(1)
    x = torch.where(inside(x), x + right, x)
    enemy_x, enemy_y, _, submarine, *_ = enemies.unbind(1)
    meets = _same_cell(x, y, enemy_x, enemy_y)
    # Ranks differ between enemies: fish before submarines, and of each kind those first that entered first.
    rank = 1 + numbers(ENEMIES, x) + ENEMIES * (1 - submarine)
    ranks = torch.where(meets, rank[:, None], 0)
    first = ranks.amax(2, keepdim=True)
    hit = (meets & (ranks == first)).any(1)
    x = torch.where(first.squeeze(2) > 0, GONE, x)
    return torch.stack([x, y, right], 1), _with_columns(enemies, torch.where(hit, GONE, enemy_x)), hit.sum(1)


def _divers_swim(divers: Tensor, row: Tensor, column: Tensor, aboard: Tensor) -> tuple[Tensor, Tensor]:
    """Divers that are left, and how many are aboard [worlds]."""
    x, y, right, timer = divers.unbind(1)
    moves = inside(x) & (timer == 0)
    after = torch.where(moves, x + right, x)
    here = ((x == column[:, None]) | (after == column[:, None])) & (y == row[:, None])
    before = here.cumsum(1) - here.to(INTEGER)  # the one that entered last goes first
    taken = here & (aboard[:, None] + before < CREW)
    timer = torch.where(moves, DIVER_MOVE_INTERVAL, timer - 1)
    return torch.stack([torch.where(taken, GONE, after), y, right, timer], 1), aboard + taken.sum(1, dtype=INTEGER)


def _enemies_move(
    bullets: Tensor, enemies: Tensor, row: Tensor, column: Tensor, interval: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bullets and enemies that are left, how many ran into bullets [worlds], and whether one met the submarine [worlds] bool."""
    x, y, right, submarine, timer, torpedo_timer, torpedo = enemies.unbind(1)
    there = inside(x)
    moves = there & (timer == 0)
    after = torch.where(moves, x + right, x)
    level = y == row[:, None]
    met_after = level & (after == column[:, None])
    met = (level & (x == column[:, None])) | met_after
    bullet_x, bullet_y, bullet_right = bullets.unbind(1)
    hits = _same_cell(bullet_x, bullet_y, after, y) & (moves & ~met_after)[:, None]
    hit = hits.any(1)
    fires = there & (submarine > 0) & (torpedo_timer == 0)
    enemies = torch.stack(
        [
            torch.where(hit, GONE, after),
            y,
            right,
            submarine,
            torch.where(moves, interval[:, None], timer - 1),
            torch.where(fires, TORPEDO_INTERVAL, torpedo_timer - 1),
            torch.where(fires, after, torpedo),
        ],
        1,
    )
    bullets = torch.stack([torch.where(hits.any(2), GONE, bullet_x), bullet_y, bullet_right], 1)
    return bullets, enemies, hit.sum(1), met.any(1)


def _torpedoes_fly(enemies: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Enemies with the new columns of their torpedoes, and whether one met the submarine [worlds] bool."""
    *others, torpedo = enemies.unbind(1)
    after = torch.where(inside(torpedo), torpedo + others[2], torpedo)
    here = column[:, None]
    met = (others[1] == row[:, None]) & ((torpedo == here) | (after == here))
    return torch.stack([*others, after], 1), met.any(1)


def _same_cell(bullet_x: Tensor, bullet_y: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """[worlds, bullets, enemies] bool: which bullets, if they are in the field, are in the cell of which enemies."""
    same = (bullet_x[:, :, None] == x[:, None]) & (bullet_y[:, :, None] == y[:, None])
    return same & inside(bullet_x)[:, :, None]


def _with_columns(enemies: Tensor, columns: Tensor) -> Tensor:
    return torch.cat([columns[:, None], enemies[:, 1:]], 1)
