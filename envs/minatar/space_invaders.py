"""Space Invaders: a cannon shoots at a block of aliens that marches from side to side, comes down at the edges, and shoots back.

The block has rows 0 to 3 and columns 2 to 7 and starts to the left; the cannon is in row 9 and starts in column 5. A step goes like this:

1. The cannon moves, or shoots if its last shot was at least five steps ago: a bullet one row above it.
2. Bullets fly by one row, the player's up and the aliens' down. The game is over if one of theirs hits the cannon.
3. The game is over if an alien is where the cannon is, before or after the aliens' move. They move by one cell every `move_interval` steps,
   or every n steps if only n aliens are left and that is less. If an alien stands at the edge that they go to, they go down by one
   row in place of that and turn round; if one was in the lowest row already, the game is over.
4. Every ten steps an alien shoots, the lowest in the column that is nearest to the cannon (the left one of two that are equally near).
   Its bullet appears in its own cell.
5. Aliens and the player's bullets in the same cell vanish, for a reward of 1 each.
6. When none is left, a new block appears, and the move interval shrinks from 12 to 6, by one each time.

What leaves the field at the bottom and was not lost with the game comes back at the top. The aliens have a second channel, one for each direction.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from steelyard.envs.minatar.game import FIRE, INTEGER, LEFT, RIGHT, SIDE, Game, full, moved, numbers

MOVE_INTERVAL, SHORTEST_MOVE_INTERVAL = 12, 6
SHOT_INTERVAL, ALIEN_SHOT_INTERVAL = 5, 10
LOWEST = SIDE - 1
"""The row of the cannon."""


class SpaceInvadersState(NamedTuple):
    """The state of each world; timers count steps down."""

    cannon: Tensor
    """[worlds]: column of the cannon."""
    aliens: Tensor
    """[worlds, 10, 10] bool: where aliens are."""
    bullets: Tensor
    """[worlds, 10, 10] bool: where the player's bullets are."""
    alien_bullets: Tensor
    """[worlds, 10, 10] bool: where the aliens' bullets are."""
    right: Tensor
    """[worlds]: 1 if the aliens go right, -1 if they go left."""
    move_interval: Tensor
    """[worlds]: most steps between two moves of the aliens."""
    move_timer: Tensor
    """[worlds]: steps until the aliens move."""
    alien_shot_timer: Tensor
    """[worlds]: steps until an alien shoots."""
    shot_timer: Tensor
    """[worlds]: steps until the cannon can shoot."""


class SpaceInvaders(Game[SpaceInvadersState]):
    """The rules of Space Invaders."""

    channels = ("cannon", "alien", "alien going left", "alien going right", "bullet", "alien bullet")
    useful_actions = (0, LEFT, RIGHT, FIRE)

    def start(self, draws: Tensor) -> SpaceInvadersState:
        """No draws: every episode starts alike."""
        nothing = torch.zeros(len(draws), SIDE, SIDE, dtype=torch.bool, device=draws.device)
        return SpaceInvadersState(
            cannon=full(draws, 5),
            aliens=_block(draws).expand_as(nothing),
            bullets=nothing,
            alien_bullets=nothing,
            right=full(draws, -1),
            move_interval=full(draws, MOVE_INTERVAL),
            move_timer=full(draws, MOVE_INTERVAL),
            alien_shot_timer=full(draws, ALIEN_SHOT_INTERVAL),
            shot_timer=full(draws, 0),
        )

    def step(self, state: SpaceInvadersState, action: Tensor, draws: Tensor) -> tuple[SpaceInvadersState, Tensor, Tensor]:
        """No draws."""
        column = numbers(SIDE, action)
        fires = (action == FIRE) & (state.shot_timer == 0)
        cannon = moved(state.cannon, action, LEFT, RIGHT)
        at_cannon = column == cannon[:, None]
        # A new bullet has flown by one row already. Since the action is a shot, the cannon has not moved.
        bullets = torch.cat([state.bullets[:, 1:LOWEST], torch.zeros_like(state.bullets[:, :2])], 1)
        bullets[:, LOWEST - 1] = at_cannon & fires[:, None]
        alien_bullets = torch.cat([torch.zeros_like(state.alien_bullets[:, :1]), state.alien_bullets[:, :LOWEST]], 1)
        over = (alien_bullets[:, LOWEST] & at_cannon).any(1)

        over = over | (state.aliens[:, LOWEST] & at_cannon).any(1)
        aliens, right, landed = _march(state.aliens, state.right, state.move_timer == 0)
        over = over | landed | (aliens[:, LOWEST] & at_cannon).any(1)

        shoots = state.alien_shot_timer == 0
        alien_bullets = alien_bullets | (shoots[:, None, None] & _nearest(aliens, cannon))
        killed = aliens & bullets
        aliens, bullets = aliens & ~killed, bullets & ~killed

        count = state.aliens.flatten(1).sum(1, dtype=INTEGER)
        next_move = torch.where(state.move_timer == 0, torch.minimum(count, state.move_interval), state.move_timer)
        cleared = ~aliens.flatten(1).any(1)
        faster = cleared & (state.move_interval > SHORTEST_MOVE_INTERVAL) & self.ramping
        new = SpaceInvadersState(
            cannon=cannon,
            aliens=aliens | (cleared[:, None, None] & _block(draws)),
            bullets=bullets,
            alien_bullets=alien_bullets,
            right=right,
            move_interval=state.move_interval - faster.to(INTEGER),
            move_timer=next_move - 1,
            alien_shot_timer=torch.where(shoots, ALIEN_SHOT_INTERVAL, state.alien_shot_timer) - 1,
            shot_timer=(torch.where(fires, SHOT_INTERVAL, state.shot_timer) - 1).clamp(min=0),
        )
        return new, killed.flatten(1).sum(1).float(), over

    def picture(self, state: SpaceInvadersState) -> Tensor:
        """Cannon, aliens (once more by their direction), and bullets."""
        picture = torch.zeros(len(state.cannon), len(self.channels), SIDE, SIDE, device=state.cannon.device)
        picture[:, 0, LOWEST] = (numbers(SIDE, state.cannon) == state.cannon[:, None]).float()
        picture[:, 1] = state.aliens
        picture[:, 2] = state.aliens & (state.right < 0)[:, None, None]
        picture[:, 3] = state.aliens & (state.right > 0)[:, None, None]
        picture[:, 4], picture[:, 5] = state.bullets, state.alien_bullets
        return picture


def _block(like: Tensor) -> Tensor:
    """[10, 10] bool: where a new block of aliens is, on the device of `like`."""
    index = numbers(SIDE, like)
    return (index < 4)[:, None] & (index >= 2) & (index < 8)


def _march(aliens: Tensor, right: Tensor, moves: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The aliens' move in the worlds where it is due: aliens, direction, and whether they have come down [worlds] bool."""
    edge = torch.where(right[:, None] < 0, aliens[:, :, 0], aliens[:, :, SIDE - 1]).any(1)
    turns = moves & edge
    aside = torch.where((right < 0)[:, None, None], aliens.roll(-1, 2), aliens.roll(1, 2))
    aside = torch.where(moves[:, None, None], aside, aliens)
    landed = turns & aliens[:, LOWEST].any(1)
    return torch.where(turns[:, None, None], aliens.roll(1, 1), aside), torch.where(turns, -right, right), landed


def _nearest(aliens: Tensor, cannon: Tensor) -> Tensor:
    """[worlds, 10, 10] bool: the lowest alien in the column nearest to the cannon; of two such columns, the left one."""
    column = numbers(SIDE, cannon)
    distance = 2 * (column - cannon[:, None]).abs() + (column > cannon[:, None])
    distance = torch.where(aliens.any(1), distance, 2 * SIDE)
    nearest = column == distance.argmin(1)[:, None]
    lowest = (aliens * (column + 1)[:, None]).amax(1) - 1  # -1 in columns without aliens
    return nearest[:, None] & (column[:, None] == lowest[:, None])
