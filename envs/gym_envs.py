"""Worlds of Gymnasium: any registered id, stepped one after the other or in other processes."""

import functools
import math
import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState
from numpy.typing import NDArray
from torch import Tensor

from steelyard.agents.types import Spec, Step
from steelyard.envs import atari
from steelyard.envs.edge import ActionBounds, Choices, bounded, check_actions, to_float32
from steelyard.envs.gym_worlds import World, make_world, one_line, quiet, registered
from steelyard.envs.painters import OwnPictures, is_simulation, scene_painter
from steelyard.envs.pictures import RenderThread, close_at_exit
from steelyard.envs.pixels import Painter, Pictures
from steelyard.envs.snapshot import WorldSnapshot
from steelyard.envs.vector import EnvError

NEVER_TERMINATE = ("HalfCheetah", "HumanoidStandup", "Pendulum", "Pusher", "Reacher", "Swimmer")
"""Gymnasium's continuous tasks that have no terminal states; every other id is taken to have some."""


class GymEnv:
    """`num_envs` worlds of one Gymnasium id under the contract of `VectorEnv`.

    A world that ended is reset by the next call (Gymnasium's NEXT_STEP autoreset), which is reported with `valid=False`.
    Observations of any other space than a vector of floats are flattened by Gymnasium's `FlattenObservation`; of a Dict of the two parts "actor"
    (or "policy") and "critic" the policy sees the first alone, and critics both. Where actions are choices they are given one-hot.
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
        makers = [functools.partial(make_world, task, index, action_repeat, render_size, pictures) for index in range(num_envs)]
        with quiet():
            if asynchronous:
                self._vector = _start_processes(task, makers)
            else:
                self._vector = SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)
        self._drawing, self._drawn = RenderThread(task), False
        self._ended = np.zeros(num_envs, dtype=np.bool_)
        actions, observations = self._vector.single_action_space, self._vector.single_observation_space
        assert isinstance(observations, gym.spaces.Box)  # make_world saw to it
        self._action_shape = actions.shape or ()
        self._actions, action_size = _action_map(task, actions)
        limit = atari.LONGEST_GAME if atari.is_atari(task) else gym.spec(registered(task)).max_episode_steps
        self.spec = Spec(
            obs_size=observations.shape[0],
            action_size=action_size,
            horizon=None if limit is None else math.ceil(limit / action_repeat),
            can_terminate=not task.split(":")[-1].startswith(NEVER_TERMINATE),
            discrete=isinstance(actions, gym.spaces.Discrete),
            policy_obs_size=self._vector.get_attr("policy_obs_size")[0],
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
            observed, reward, terminated, truncated, _ = self._vector.step(scaled)
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
            info={},
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
            raise EnvError(f"{self._task}: no picture can be rendered: {one_line(error)}") from error
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


def _rendered(vector: SyncVectorEnv | AsyncVectorEnv, worlds: int | None) -> Sequence[Any]:
    """What the first `worlds` worlds, or all, render."""
    if isinstance(vector, SyncVectorEnv):
        return [world.render() for world in vector.envs[:worlds]]
    return vector.call("render")[:worlds]


def _action_map(task: str, space: gym.Space[Any]) -> tuple[ActionBounds | Choices, int]:
    """What turns an agent's actions into those of a space, and their size."""
    if isinstance(space, gym.spaces.Discrete):
        return Choices(task, int(space.start)), int(space.n)
    assert isinstance(space, gym.spaces.Box)  # make_world saw to it
    low, high = space.low.ravel(), space.high.ravel()
    # A component without both bounds is not rescaled but cut off: something of [-1, 1] must be left of it.
    for index in np.flatnonzero(~bounded(low, high) & ~(np.maximum(low, -1) < np.minimum(high, 1))):
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


def _resized(frame: NDArray[np.uint8], size: int | None) -> NDArray[np.uint8]:
    """`frame` at `size` x `size` pixels by nearest neighbours, for worlds that choose their own picture's size."""
    if size is None or frame.shape[:2] == (size, size):
        return frame
    rows, columns = (np.arange(size) * length // size for length in frame.shape[:2])
    return frame[rows][:, columns]
