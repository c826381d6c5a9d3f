"""Names of D4RL's AntMaze and kitchen environments, which score policies trained on its data sets; `register` tells Gymnasium of them.

The names are D4RL's own, so that data set and task are called alike. AntMaze's -v0 and -v2 data sets are scored in the same worlds: the goal is drawn
at each reset, as D4RL's -v2 environments do (its -v0 environments draw it once, when they are made).
"""

from collections.abc import Mapping

import gymnasium as gym

MAZES = {"umaze": "umaze", "umaze-diverse": "umaze", "medium-play": "medium", "medium-diverse": "medium", "large-play": "large"}
MAZES |= {"large-diverse": "large"}
"""Variant of an AntMaze data set to the maze in which policies are scored; "diverse" and "play" say how the data were collected."""
KITCHENS = {
    "complete": ("microwave", "kettle", "light switch", "slide cabinet"),
    "partial": ("microwave", "kettle", "light switch", "slide cabinet"),
    "mixed": ("microwave", "kettle", "bottom burner", "light switch"),
}
"""Variant of a kitchen data set to the sub-tasks of its environment."""

ANT_MAZE, KITCHEN = "steelyard.envs.ant_maze:AntMaze", "steelyard.envs.kitchen:Kitchen"
WORLDS: Mapping[str, tuple[str, Mapping[str, object], int]] = {
    f"antmaze-{variant}-{version}": (ANT_MAZE, {"maze": maze}, 700 if maze == "umaze" else 1000)
    for variant, maze in MAZES.items()
    for version in ("v0", "v2")
} | {f"kitchen-{variant}-v0": (KITCHEN, {"elements": elements}, 280) for variant, elements in KITCHENS.items()}
"""Name to where its world is defined, its options, and the steps after which an episode is cut."""


def register() -> None:
    """Tell Gymnasium of all names, once."""
    for name, (entry_point, options, limit) in WORLDS.items():
        if name not in gym.registry:
            gym.register(name, entry_point=entry_point, max_episode_steps=limit, kwargs=dict(options))
