"""D4RL's AntMaze for evaluation, out of Gymnasium's ant and the walls of gymnasium-robotics.

Made like D4RL's environments (its package 1.1, `locomotion/`; Fu et al. 2020), from which gymnasium-robotics' own AntMaze differs in what a policy
trained on D4RL's data would notice:

- D4RL's ant has a time step of 0.02 s (0.1 s per decision, Gymnasium's: 0.05 s), motors of 30 Nm (150 Nm) and softer contacts;
- its maze is mirrored (rows run along +y), and the start is the origin; a flipped map and a translation give the same coordinates;
- episodes begin at the start cell with the ant's usual noise; the goal lies 0 to 1.5 m from its cell in x and y; within 0.5 m of
  it (0.45 m) the reward is 1 and the episode over. An ant on its back goes on.

Not checked against D4RL's files, which were not at hand: whether the newer simulator moves the ant as MuJoCo 2.0 did.
"""

import os
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import gymnasium.envs.mujoco as mujoco_envs
import numpy as np
from gymnasium.envs.mujoco.ant_v4 import AntEnv
from gymnasium_robotics.envs.maze import maps
from gymnasium_robotics.envs.maze.maze_v4 import Maze
from numpy.typing import NDArray

Cell = tuple[int, int]
SCALE = 4.0
"""Width of a cell in metres."""
HEIGHT = 0.5
"""Height of walls in cells."""
GOAL_RADIUS = 0.5
LAYOUTS: dict[str, tuple[list[list[int]], Cell, Cell]] = {
    "umaze": (maps.U_MAZE, (1, 1), (3, 1)),
    "medium": (maps.MEDIUM_MAZE, (1, 1), (6, 6)),
    "large": (maps.LARGE_MAZE, (1, 1), (7, 9)),
}
"""Maze to its walls, start cell and goal cell (row, column), as D4RL evaluates (its maps *_TEST)."""


class Ant(AntEnv):
    """Gymnasium's ant at D4RL's ten decisions a second."""

    metadata: ClassVar[dict[str, Any]] = AntEnv.metadata | {"render_fps": 10}


class AntMaze(gym.Env):
    """One world. Observations are D4RL's 29 numbers: 15 positions (x and y of the torso first, from the start) and 14 velocities; no goal."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, maze: str, render_mode: str | None = None):
        """`maze`: a key of `LAYOUTS`."""
        walls, start, goal = LAYOUTS[maze]
        self.render_mode = render_mode
        path, layout = _write_model(walls[::-1])
        try:
            self.ant = Ant(
                xml_file=str(path),
                exclude_current_positions_from_observation=False,
                reset_noise_scale=0.1,
                render_mode=render_mode,
            )
        finally:
            os.unlink(path)
        self.origin = layout.cell_rowcol_to_xy(np.array([len(walls) - 1 - start[0], start[1]]))
        self.goal_cell = SCALE * np.array([goal[1] - start[1], goal[0] - start[0]])
        self.goal = self.goal_cell.copy()
        self.ant.init_qpos[:2] = self.origin
        self.action_space, self.observation_space = self.ant.action_space, self.ant.observation_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """A new goal, and the ant at the start."""
        super().reset(seed=seed)
        self.goal = self.goal_cell + self.np_random.uniform(0, 0.25 * SCALE, 2) + self.np_random.uniform(0, 0.125 * SCALE, 2)
        site = self.ant.model.site("target").id
        self.ant.model.site_pos[site] = [*(self.goal + self.origin), HEIGHT / 2 * SCALE]
        obs, _ = self.ant.reset(seed=int(self.np_random.integers(2**31)))
        return self._relative(obs), {}

    def step(self, action: NDArray[Any]) -> tuple[NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        """Torques [8] in Nm; reward 1 and the end at the goal."""
        obs = self._relative(self.ant.step(action)[0])
        reached = bool(np.linalg.norm(obs[:2] - self.goal) <= GOAL_RADIUS)
        return obs, float(reached), reached, False, {"success": reached}

    def render(self) -> Any:
        """A picture of the ant's surroundings."""
        return self.ant.render()

    def close(self) -> None:
        """Release the simulator."""
        self.ant.close()

    def _relative(self, obs: NDArray[np.float64]) -> NDArray[np.float64]:
        obs = obs.copy()
        obs[:2] -= self.origin
        return obs


def _write_model(walls: list[list[int]]) -> tuple[Path, Maze]:
    """A file with D4RL's ant between `walls`, for the caller to remove, and the maze's coordinates."""
    tree = ET.parse(Path(mujoco_envs.__file__).parent / "assets" / "ant.xml")
    for path, values in (
        ("option", {"timestep": "0.02"}),
        ("default/geom", {"solref": ".02 1", "solimp": ".8 .8 .01"}),
        ("actuator/motor", {"ctrlrange": "-30 30", "gear": "1"}),
    ):
        for element in tree.getroot().findall(path):
            element.attrib.update(values)
    with tempfile.TemporaryDirectory() as folder:
        ant = Path(folder) / "ant.xml"
        tree.write(ant)
        maze, written = Maze.make_maze(str(ant), walls, SCALE, HEIGHT)
    return Path(written), maze
