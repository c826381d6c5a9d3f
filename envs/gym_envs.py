"""Worlds of Gymnasium: any registered id, stepped one after the other or in other processes."""

import functools
import importlib
import math
import multiprocessing
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState
from numpy.typing import NDArray
from torch import Tensor

from steelyard.agents.types import Spec, Step
from steelyard.envs import atari, d4rl_worlds
from steelyard.envs.edge import ActionBounds, Choices, check_actions, to_float32
from steelyard.envs.painters import OwnPictures, is_simulation, scene_painter
from steelyard.envs.pictures import RenderThread, close_at_exit
from steelyard.envs.pixels import Painter, Pictures
from steelyard.envs.simulator import quiet_loading
from steelyard.envs.snapshot import WorldSnapshot
from steelyard.envs.vector import EnvError

NEVER_TERMINATE = ("HalfCheetah", "HumanoidStandup", "Pendulum", "Pusher", "Reacher", "Swimmer")
"""Gymnasium's continuous tasks that have no terminal states; every other id is taken to have some."""


ROBOTICS = ("AdroitHand", "AntMaze", "PointMaze", "FrankaKitchen", "Fetch", "HandReach", "HandManipulate")
"""How the ids of gymnasium-robotics begin."""


class GymEnv:
    """`num_envs` worlds of one Gymnasium id under the contract of `VectorEnv`.

    A world that ended is reset by the next call (Gymnasium's NEXT_STEP autoreset), which is reported with `valid=False`.
    Observations of any other space than a vector of floats are flattened by Gymnasium's `FlattenObservation`. Where actions are choices they
    are given one-hot.
    """

    def __init__(
        self,
        task: str,
        num_envs: int,
        *,
        action_repeat: int = 1,
        asynchronous: bool = False,
        device: torch.device | str = "cpu",
        render_size: int | None = None,
        pictures: Pictures | None = None,
    ):
        """`task` is a registered id or `module:id`. `asynchronous` runs each world in a process of its own.

        `render_size` is the height and width of pictures in pixels; None keeps the world's own. `pictures`: what an agent of pixels is to
        see, so that Atari's games are played as is usual for it. Raises `EnvError` if the
        task is not known or its actions are neither a box of real numbers nor a few choices.
        """
        self.num_envs, self.device = num_envs, torch.device(device)
        self._task, self._render_size = task, render_size
        makers = [functools.partial(_make_world, task, index, action_repeat, render_size, pictures) for index in range(num_envs)]
        with _quiet():
            if asynchronous:
                self._vector = _start_processes(task, makers)
            else:
                self._vector = SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)
        self._drawing, self._drawn = RenderThread(task), False
        self._ended = np.zeros(num_envs, dtype=np.bool_)
        actions, observations = self._vector.single_action_space, self._vector.single_observation_space
        assert isinstance(observations, gym.spaces.Box)  # _make_world saw to it
        self._action_shape = actions.shape or ()
        self._actions, action_size = _action_map(task, actions)
        limit = atari.LONGEST_GAME if atari.is_atari(task) else gym.spec(_registered(task)).max_episode_steps
        self.spec = Spec(
            obs_size=observations.shape[0],
            action_size=action_size,
            horizon=None if limit is None else math.ceil(limit / action_repeat),
            can_terminate=not task.split(":")[-1].startswith(NEVER_TERMINATE),
            discrete=isinstance(actions, gym.spaces.Discrete),
        )
        self._observed = np.zeros((num_envs, self.spec.obs_size), dtype=np.float32)
        self._snapshot = WorldSnapshot(self._vector.envs[0]) if isinstance(self._vector, SyncVectorEnv) else None

    def reset(self, seed: int | None = None) -> Tensor:
        """Start a new episode in every world; world i gets `seed + i`. Returns [num_envs, obs_size] float32."""
        with self._alive():
            obs, _ = self._vector.reset(seed=seed)
        self._ended = np.zeros(self.num_envs, dtype=np.bool_)
        self._observed = to_float32(self._task, "observation", obs)
        return self._tensor(self._observed)

    def step(self, action: Tensor) -> Step:
        """Apply actions [num_envs, action_size]: in [-1, 1], rescaled to the bounds of the action space, or one-hot choices."""
        array = check_actions(self._task, action, (self.num_envs, self.spec.action_size))
        valid = ~self._ended
        with self._alive():
            scaled = self._actions.to_world(array).reshape(self.num_envs, *self._action_shape)
            observed, reward, terminated, truncated, info = self._vector.step(scaled)
        self._ended = terminated | truncated
        self._observed = to_float32(self._task, "observation", observed)
        obs = self._tensor(self._observed)
        return Step(
            obs=obs,
            next_obs=obs,
            reward=self._tensor(to_float32(self._task, "reward", reward)),
            terminated=self._tensor(terminated),
            truncated=self._tensor(truncated),
            valid=self._tensor(valid),
            info=info,
        )

    def render(self) -> NDArray[np.uint8]:
        """An RGB picture [height, width, 3] uint8 of world 0. Raises `EnvError` if the world cannot draw one."""
        return _resized(self._own_pictures(worlds=1)[0], self._render_size)

    def painter(self, pictures: Pictures) -> Painter:
        """What draws all worlds for an agent that learns from pixels.

        Observations that are pictures stay what they are. Worlds of MuJoCo are seen by the camera that follows the robot, or a free one; others
        draw themselves. Raises `EnvError` if there is no such camera, or if worlds that draw themselves are to be drawn otherwise.
        """
        assert isinstance(self._vector, SyncVectorEnv)  # `make` saw to it
        worlds: list[Any] = [world.unwrapped for world in self._vector.envs]
        if is_simulation(worlds[0]):
            return scene_painter(self._task, lambda: [(world.model, world.data) for world in worlds], pictures, "track")
        if pictures.rendering != "published" or pictures.camera is not None:
            raise EnvError(f"{self._task} draws its own pictures; leave pictures.rendering and pictures.camera as they are.")
        image = self._vector.envs[0].get_wrapper_attr("image_shape")
        if image is not None:
            return OwnPictures(lambda: self._observed.reshape(self.num_envs, *image), pictures.size, channels=image[2])
        return OwnPictures(self._own_pictures, pictures.size)

    def _own_pictures(self, worlds: int | None = None) -> list[NDArray[np.uint8]]:
        """RGB [height, width, 3] uint8 that the first `worlds` worlds, or all, draw of themselves. Raises `EnvError` if they cannot."""
        try:
            with self._alive():
                frames = self._drawing.call(functools.partial(_rendered, self._vector, worlds))
        except gym.error.DependencyNotInstalled as error:
            raise EnvError(f"{self._task}: no picture can be rendered: {_one_line(error)}") from error
        if not self._drawn:
            self._drawn = True
            close_at_exit(self._vector)
        if not isinstance(frames[0], np.ndarray):
            raise EnvError(f"{self._task}: its worlds offer no render mode 'rgb_array', so there is no picture to take.")
        return list(frames)

    def state_dict(self) -> dict[str, Any] | None:
        """All that determines the future of the worlds; None for worlds in other processes or with state out of sight."""
        if self._snapshot is None or isinstance(self._vector, AsyncVectorEnv):
            return None
        worlds = [self._snapshot.save(world) for world in self._vector.envs]
        if any(world is None for world in worlds):
            return None
        return {"worlds": worlds, "ended": torch.from_numpy(self._ended.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken. Raises `EnvError` if these are not the worlds it was taken of."""
        if self._snapshot is None or isinstance(self._vector, AsyncVectorEnv) or len(state["worlds"]) != self.num_envs:
            raise EnvError(
                f"{self._task}: a state of {len(state['worlds'])} worlds in one process was saved; make the environment "
                "with that number of worlds and vectorization='sync', or start the run afresh with --fresh."
            )
        self.reset()  # worlds may build parts of themselves in their first reset
        for world, saved in zip(self._vector.envs, state["worlds"], strict=True):
            self._snapshot.load(world, saved)
        self._ended = state["ended"].numpy().copy()
        self._vector._autoreset_envs = self._ended.copy()  # Gymnasium offers no public way to say which worlds have ended

    def close(self) -> None:
        """Release the worlds and end their processes."""
        if isinstance(self._vector, AsyncVectorEnv):
            self._vector.close(terminate=True)
        else:
            self._vector.close()
        self._drawing.close()

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        """`array` on the device. Gymnasium writes rewards and flags into fresh arrays, and observations were copied."""
        return torch.from_numpy(array).to(self.device)

    @contextmanager
    def _alive(self) -> Iterator[None]:
        """Name the world whose process has died."""
        try:
            yield
        except (EOFError, ConnectionError) as error:
            if not isinstance(self._vector, AsyncVectorEnv):
                raise
            processes = self._vector.processes
            for process in processes:
                process.join(timeout=0.2)  # the pipe closes a moment before the exit code is there
            self._vector._state = AsyncState.DEFAULT  # else close() would wait for the answer that never comes
            dead = [f"{index} (exit code {p.exitcode})" for index, p in enumerate(processes) if not p.is_alive()]
            raise EnvError(
                f"{self._task}: the process of world {', '.join(dead) or 'unknown'} died; "
                "look for its message above, check the memory left, and start the run again."
            ) from error


class World(gym.Wrapper):
    """One world: an action is repeated, the rewards are summed, and observations must have the declared shape."""

    def __init__(self, env: gym.Env, task: str, index: int, action_repeat: int, image_shape: tuple[int, int, int] | None = None):
        super().__init__(env)
        self.image_shape = image_shape
        """Height, width and channels of the picture that an observation is, flattened; None if it is none."""
        self._task, self._index, self._action_repeat = task, index, action_repeat

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As Gymnasium's; its spaces get the seed too, for worlds that draw from them themselves."""
        if seed is not None:
            self.action_space.seed(seed)
            self.observation_space.seed(seed)
        obs, info = self.env.reset(seed=seed, options=options)
        return self._checked(obs), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As Gymnasium's; the repetition stops where the episode ends."""
        obs, total, terminated, truncated, info = self.env.step(action)
        for _ in range(self._action_repeat - 1):
            if terminated or truncated:
                break
            obs, reward, terminated, truncated, info = self.env.step(action)
            total = self._number(total) + self._number(reward)
        return self._checked(obs), self._number(total), bool(terminated), bool(truncated), info

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


def _make_world(task: str, index: int, action_repeat: int, render_size: int | None, pictures: Pictures | None) -> World:
    """One world with flat observations. Runs in the worker process if there is one."""
    with _quiet():
        try:
            played = pictures is not None and atari.is_atari(task)
            options = _render_options(task, render_size) | ({"frameskip": 1} if played else {})
            env = gym.make(_registered(task), disable_env_checker=True, **options)
            if pictures is not None and played:
                env, action_repeat = atari.preprocessed(task, env, action_repeat, pictures.size), 1
        except (gym.error.Error, ImportError) as error:
            raise EnvError(f"{task}: Gymnasium cannot make this task: {_one_line(error)}") from error
        actions, observations = env.action_space, env.observation_space
        continuous = isinstance(actions, gym.spaces.Box) and np.issubdtype(actions.dtype, np.floating)
        if not continuous and not isinstance(actions, gym.spaces.Discrete):
            raise EnvError(
                f"{task}: its action space is {actions}; choose a task whose action space is a Box of floats or Discrete."
            )
        flat = isinstance(observations, gym.spaces.Box) and len(observations.shape) == 1
        if not flat:
            env = gym.wrappers.FlattenObservation(env)
        if not isinstance(env.observation_space, gym.spaces.Box):
            raise EnvError(
                f"{task}: observations of {observations} have no fixed size and cannot be flattened into a vector; "
                "wrap the environment so that it returns a Box, Dict, Tuple or Discrete space."
            )
        return World(env, task, index, action_repeat, _image_shape(observations))


def _image_shape(space: gym.Space[Any]) -> tuple[int, int, int] | None:
    """Height, width and channels of observations that are pictures: one or three channels of bytes."""
    if not isinstance(space, gym.spaces.Box) or space.dtype != np.uint8 or len(space.shape) not in (2, 3):
        return None
    height, width, channels = (*space.shape, 1)[:3]
    return (height, width, channels) if channels in (1, 3) else None


def _rendered(vector: SyncVectorEnv | AsyncVectorEnv, worlds: int | None) -> Sequence[Any]:
    """What the first `worlds` worlds, or all, render."""
    if isinstance(vector, SyncVectorEnv):
        return [world.render() for world in vector.envs[:worlds]]
    return vector.call("render")[:worlds]


def _action_map(task: str, space: gym.Space[Any]) -> tuple[ActionBounds | Choices, int]:
    """What turns an agent's actions into those of a space, and their size."""
    if isinstance(space, gym.spaces.Discrete):
        return Choices(task, int(space.start)), int(space.n)
    assert isinstance(space, gym.spaces.Box)  # _make_world saw to it
    low, high = space.low.ravel(), space.high.ravel()
    # A component without both bounds is not rescaled but cut off: something of [-1, 1] must be left of it.
    for index in np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)) & ~(np.maximum(low, -1) < np.minimum(high, 1))):
        raise EnvError(
            f"{task}: component {index} of its actions goes from {low[index]:g} to {high[index]:g}, which cannot be rescaled and has "
            "next to nothing in [-1, 1]; give it two finite bounds (gymnasium.wrappers.TransformAction)."
        )
    return ActionBounds(low, high, space.dtype), math.prod(space.shape)


def _start_processes(task: str, makers: list[functools.partial[World]]) -> AsyncVectorEnv:
    """One process for each world.

    Forking this process could deadlock in a lock that a thread of OpenGL, CUDA or OpenMP holds; so a server without threads is
    forked instead, which imports this module once for all workers.
    """
    multiprocessing.set_forkserver_preload([__name__])
    try:
        return AsyncVectorEnv(makers, copy=False, context="forkserver", autoreset_mode=AutoresetMode.NEXT_STEP)
    except (EOFError, ConnectionError) as error:
        raise EnvError(
            f"{task}: the processes of its worlds died while they started; see their message above, and if this is a script "
            "of your own, make the environment under `if __name__ == '__main__':`, since each process imports the script."
        ) from error


def is_robotics(task: str) -> bool:
    """Whether this id needs gymnasium-robotics: the Adroit hand, mazes, Fetch, the kitchen, and D4RL's AntMaze and kitchen."""
    return task.startswith(ROBOTICS) or task in d4rl_worlds.WORLDS


def _registered(task: str) -> str:
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
    entry_point = gym.spec(_registered(task)).entry_point
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    if "rgb_array" not in getattr(creator, "metadata", {}).get("render_modes", []):
        return {}
    lineage = creator.__mro__ if isinstance(creator, type) else ()
    if render_size is not None and any(base.__module__.startswith("gymnasium.envs.mujoco") for base in lineage):
        return {"render_mode": "rgb_array", "width": render_size, "height": render_size}
    return {"render_mode": "rgb_array"}


def _resized(frame: NDArray[np.uint8], size: int | None) -> NDArray[np.uint8]:
    """`frame` at `size` x `size` pixels by nearest neighbours, for worlds that choose their own picture's size."""
    if size is None or frame.shape[:2] == (size, size):
        return frame
    rows, columns = (np.arange(size) * length // size for length in frame.shape[:2])
    return frame[rows][:, columns]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") + "."


@contextmanager
def _quiet() -> Iterator[None]:
    """Make worlds without Gymnasium's remarks on old versions and on the precision of boxes; other warnings are shown."""
    with warnings.catch_warnings(), quiet_loading():
        for remark in ("precision lowered", "is out of date"):
            warnings.filterwarnings("ignore", message=f".*{remark}")
        yield
