"""D4RL's Franka kitchen for evaluation, on the robot and the models of gymnasium-robotics.

Observations, noise, rewards and end are those of D4RL's environments (its package 1.1, `kitchen/`; Gupta et al. 2019, Fu et al.
2020): 9 positions of the robot, 21 of the objects and a goal of 30 numbers, which is zero but for the environment's sub-tasks;
each position disturbed by a tenth of its amplitude; 1 for each sub-task when it is first completed, over when all are. The two
packages' models were compared: joints, their order, ranges and damping, and the robot's motors are equal.

gymnasium-robotics' own `FrankaKitchen-v1` observes less noise and no goal vector, and its version 1.4.2 fails with MuJoCo 3.17
(it looks for a NumPy number among MuJoCo's enumerations, which no longer equal it); so its robot is used here and its kitchen is
not.

Not checked against D4RL's files, which were not at hand. Rewards of D4RL's *data* are the number of sub-tasks complete at
present, which is another reward than the one its environment pays and policies are scored by.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium_robotics.envs.franka_kitchen.franka_env import FrankaRobot
from gymnasium_robotics.envs.franka_kitchen.kitchen_env import BONUS_THRESH, OBS_ELEMENT_GOALS, OBS_ELEMENT_INDICES
from numpy.typing import NDArray

MODEL = "../assets/kitchen_franka/kitchen_assets/kitchen_env_model.xml"
ROBOT, OBJECTS = 9, 21
"""Numbers of positions of the robot's and of the objects' joints."""
START = np.array(
    [
        *(0.148388023, -1.76848573, 1.84390296, -2.47685760, 0.260252026, 0.712533105, 1.59515394, 0.0479267505, 0.0371350919),
        *(-2.66279850e-04, -5.18043486e-05, 3.12877220e-05, -4.51199853e-05, -3.90842156e-06, -4.22629655e-05),
        *(6.28065475e-05, 4.04984708e-05, 4.62730939e-04, -2.26906415e-04, -4.65501369e-04),
        *(-6.44129196e-03, -1.77048263e-03, 1.08009684e-03),
        *(-0.269397440, 0.350383255, 1.61944683, 1.00618764, 4.06395120e-03, -6.62095997e-03, -2.68278933e-04),
    ]
)
"""Positions at the start: the robot's, knobs and burners, light, cabinets and microwave, kettle (D4RL's numbers)."""
NOISE = 0.1
"""Share of its amplitude by which a position is disturbed when it is observed."""
AMPLITUDE = np.array([0.1] * 9 + [0.005] * 2 + [0.0005] * 6 + [0.005] * 3 + [0.1] * 3 + [0.005] * 3 + [0.1] * 3 + [0.005])
"""Amplitude of each position's noise [30], in metres or radians (the robot's configuration file in both packages)."""


class Kitchen(FrankaRobot):
    """One world. Observations are D4RL's 60 numbers: positions of the robot [9] and the objects [21], and the goal [30]."""

    def __init__(self, elements: tuple[str, ...], **options: Any):
        """`elements`: the sub-tasks, as gymnasium-robotics names them. `options`: render_mode, width, height."""
        super().__init__(model_path=MODEL, **options)
        self.init_qpos, self.init_qvel = START.copy(), np.zeros(self.model.nv)
        self.elements, self.remaining = elements, list(elements)
        self.goal = np.zeros(ROBOT + OBJECTS)
        for element in elements:
            self.goal[OBS_ELEMENT_INDICES[element]] = OBS_ELEMENT_GOALS[element]
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2 * (ROBOT + OBJECTS),), np.float64)

    def reset_model(self) -> NDArray[np.float64]:
        """The robot at rest, everything closed or off."""
        self.remaining = list(self.elements)
        return super().reset_model()

    def step(self, action: NDArray[Any]) -> tuple[NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        """Joint velocities [9] in [-1, 1], in units of 2 rad/s."""
        obs, *_ = super().step(action)
        completed = [element for element in self.remaining if self._distance(obs, element) < BONUS_THRESH]
        self.remaining = [element for element in self.remaining if element not in completed]
        return obs, float(len(completed)), not self.remaining, False, {"remaining": len(self.remaining)}

    def _distance(self, obs: NDArray[np.float64], element: str) -> float:
        index = OBS_ELEMENT_INDICES[element]
        return float(np.linalg.norm(obs[index] - self.goal[index]))

    def _get_obs(self) -> NDArray[np.float64]:
        """What `FrankaRobot` asks for after each step; its velocity control starts from the robot's positions as they were observed."""
        positions = self.data.qpos + NOISE * AMPLITUDE * self.np_random.uniform(-1.0, 1.0, ROBOT + OBJECTS)
        self._last_robot_qpos = positions[:ROBOT].copy()
        return np.concatenate([positions, self.goal])
