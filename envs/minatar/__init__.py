"""The five games of MinAtar (Young & Tian 2019) as rules on tensors: many worlds at once, on any device, without the package."""

from typing import Any

from steelyard.envs.minatar.asterix import Asterix
from steelyard.envs.minatar.breakout import Breakout
from steelyard.envs.minatar.freeway import Freeway
from steelyard.envs.minatar.game import Game, Settings
from steelyard.envs.minatar.seaquest import Seaquest
from steelyard.envs.minatar.space_invaders import SpaceInvaders

__all__ = ["GAMES", "Game", "Settings"]

GAMES: dict[str, type[Game[Any]]] = {
    "minatar-asterix": Asterix,
    "minatar-breakout": Breakout,
    "minatar-freeway": Freeway,
    "minatar-seaquest": Seaquest,
    "minatar-space_invaders": SpaceInvaders,
}
"""Task id to the rules of the game. After the hyphen comes the name that the package gives it."""
