"""One world of Gymnasium: how it is found, made and wrapped. `gym_envs.py` steps several."""

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator

from steelyard.envs import atari, d4rl_worlds
from steelyard.envs.asymmetric import PolicyFirst, policy_and_critic
from steelyard.envs.pixels import Pictures
from steelyard.envs.simulator import quiet_loading
from steelyard.envs.vector import EnvError

ROBOTICS = ("AdroitHand", "AntMaze", "PointMaze", "FrankaKitchen", "Fetch", "HandReach", "HandManipulate")
"""How the ids of gymnasium-robotics begin."""


class World(gym.Wrapper):
    """One world: an action is repeated, the rewards are summed, and observations must have the declared shape."""

    def __init__(self, env: gym.Env, task: str, index: int, action_repeat: int, image_shape: tuple[int, int, int] | None = None):
        super().__init__(env)
        self.policy_obs_size: int | None = env.policy_obs_size if isinstance(env, PolicyFirst) else None
        """How much of an observation is the policy's, if the rest is for critics alone."""
        self.image_shape = image_shape
        """Height, width and channels of the picture that an observation is, flattened; None if it is none."""
        self._task, self._index, self._action_repeat = task, index, action_repeat

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As Gymnasium's; its spaces get the seed too, for worlds that draw from them themselves.

        What a world says beside that is left out, here and in steps: Gymnasium puts that of all worlds into one array per name, and
        fails where its shape or type changes.
        """
        if seed is not None:
            for seen in (self, self.env.unwrapped):
                seen.action_space.seed(seed)
                seen.observation_space.seed(seed)
        obs, _ = self.env.reset(seed=seed, options=options)
        return self._checked(obs), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As Gymnasium's; the repetition stops where the episode ends."""
        obs, total, terminated, truncated, _ = self.env.step(action)
        for _ in range(self._action_repeat - 1):
            if terminated or truncated:
                break
            obs, reward, terminated, truncated, _ = self.env.step(action)
            total = self._number(total) + self._number(reward)
        return self._checked(obs), self._number(total), bool(terminated), bool(truncated), {}

    def _number(self, reward: Any) -> float:
        """A reward as a number; an array of one element is taken for it."""
        try:
            return float(np.asarray(reward).item())
        except (TypeError, ValueError) as error:
            raise EnvError(
                f"{self._task}: world {self._index} returned {reward!r} as its reward; let its step return one number."
            ) from error

    def _checked(self, obs: Any) -> Any:
        if np.shape(obs) != self.observation_space.shape:
            raise EnvError(
                f"{self._task}: world {self._index} returned an observation of shape {np.shape(obs)} where its "
                f"observation_space declares {self.observation_space.shape}; correct the one or the other."
            )
        return obs


def make_world(task: str, index: int, action_repeat: int, render_size: int | None, pictures: Pictures | None) -> World:
    """One world with flat observations. Runs in the worker process if there is one."""
    with quiet():
        try:
            played = pictures is not None and atari.is_atari(task)
            options = _render_options(task, render_size) | ({"frameskip": 1} if played else {})
            env = gym.make(registered(task), disable_env_checker=True, **options)
            if pictures is not None and played:
                env, action_repeat = atari.preprocessed(task, env, action_repeat, pictures.size), 1
        except (gym.error.Error, ImportError) as error:
            raise EnvError(f"{task}: Gymnasium cannot make this task: {one_line(error)}") from error
        actions, observations = env.action_space, env.observation_space
        continuous = isinstance(actions, gym.spaces.Box) and np.issubdtype(actions.dtype, np.floating)
        if not continuous and not isinstance(actions, gym.spaces.Discrete):
            raise EnvError(
                f"{task}: its action space is {actions}; choose a task whose action space is a Box of floats or Discrete."
            )
        return World(_flattened(task, env), task, index, action_repeat, _image_shape(observations))


def _flattened(task: str, env: gym.Env) -> gym.Env:
    """The world with vectors for observations. Raises `EnvError` for a space without a fixed size."""
    space, pair = env.observation_space, policy_and_critic(env.observation_space)
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1:
        return env
    flat = gym.spaces.flatten_space(space)
    if not isinstance(flat, gym.spaces.Box):
        raise EnvError(
            f"{task}: observations of {space} have no fixed size and cannot be flattened into a vector; "
            "wrap the environment so that it returns a Box, Dict, Tuple or Discrete space."
        )
    return gym.wrappers.FlattenObservation(env) if pair is None else PolicyFirst(env, pair)


def _image_shape(space: gym.Space[Any]) -> tuple[int, int, int] | None:
    """Height, width and channels of observations that are pictures: one or three channels of bytes."""
    if not isinstance(space, gym.spaces.Box) or space.dtype != np.uint8 or len(space.shape) not in (2, 3):
        return None
    height, width, channels = (*space.shape, 1)[:3]
    return (height, width, channels) if channels in (1, 3) else None


def is_robotics(task: str) -> bool:
    """Whether this id needs gymnasium-robotics: the Adroit hand, mazes, Fetch, the kitchen, and D4RL's AntMaze and kitchen."""
    return task.startswith(ROBOTICS) or task in d4rl_worlds.WORLDS


def registered(task: str) -> str:
    """The id of `task` after the module before its colon, or the package that it belongs to, was imported and has registered it."""
    module, _, name = task.rpartition(":")
    if module:
        importlib.import_module(module)
    elif atari.is_atari(task):
        atari.register(task)
    elif is_robotics(task):
        try:
            importlib.import_module("gymnasium_robotics")
        except ModuleNotFoundError:
            raise EnvError(f"{task} belongs to gymnasium-robotics; install it: pip install 'steelyard[robotics]'.") from None
        d4rl_worlds.register()
    return name


def _render_options(task: str, render_size: int | None) -> dict[str, Any]:
    """What to ask of `gym.make` so that a picture can be taken later; it costs nothing until then."""
    entry_point = gym.spec(registered(task)).entry_point
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    if "rgb_array" not in getattr(creator, "metadata", {}).get("render_modes", []):
        return {}
    lineage = creator.__mro__ if isinstance(creator, type) else ()
    if render_size is not None and any(base.__module__.startswith("gymnasium.envs.mujoco") for base in lineage):
        return {"render_mode": "rgb_array", "width": render_size, "height": render_size}
    return {"render_mode": "rgb_array"}


def one_line(error: Exception) -> str:
    """What another library says, as the end of a sentence."""
    return " ".join(str(error).split()).rstrip(".") + "."


@contextmanager
def quiet() -> Iterator[None]:
    """Make worlds without Gymnasium's remarks on old versions and on the precision of boxes; other warnings are shown."""
    with warnings.catch_warnings(), quiet_loading():
        for remark in ("precision lowered", "is out of date"):
            warnings.filterwarnings("ignore", message=f".*{remark}")
        yield
