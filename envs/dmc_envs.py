"""Worlds of the dm-control suite (Tassa et al. 2018), by `domain-task`, without a third-party wrapper between."""

import math
from typing import Any

import numpy as np
import torch
from dm_control import suite
from dm_control.rl.control import Environment, PhysicsError
from numpy.typing import NDArray
from torch import Tensor

from steelyard.agents.types import Spec, Step
from steelyard.envs.edge import ActionBounds, check_actions, to_float32
from steelyard.envs.painters import scene_painter
from steelyard.envs.pictures import Camera, Simulation
from steelyard.envs.pixels import Painter, Pictures
from steelyard.envs.simulator import quiet_loading
from steelyard.envs.snapshot import WorldSnapshot
from steelyard.envs.vector import EnvError

TASKS = {f"{domain}-{task}": (domain, task) for domain, task in suite.ALL_TASKS}
"""`domain-task` to the suite's names, e.g. "ball_in_cup-catch" to ("ball_in_cup", "catch")."""
_HYPHENATED = {name.replace("_", "-"): name for name in TASKS}
CAN_TERMINATE = ("lqr",)
"""Domains with terminal states; the episodes of all others only run out of time."""
DEFAULT_RENDER_SIZE = 256
USUAL_CAMERAS = {"quadruped": 2}
"""Cameras of pixel tasks where it is not the first, as DrQ-v2 has them (Yarats et al. 2022)."""


def canonical_name(task: str) -> str | None:
    """The suite's spelling of `task`; published tables write hyphens for underscores. None if there is no such task."""
    return task if task in TASKS else _HYPHENATED.get(task.replace("_", "-"))


class DmcEnv:
    """`num_envs` worlds of one suite task, stepped one after the other, under the contract of `VectorEnv`.

    Observations are the suite's arrays in its own order, end to end. A world that ended is reset by the next call, which is
    reported with `valid=False`, as Gymnasium's NEXT_STEP autoreset does.
    """

    def __init__(
        self,
        task: str,
        num_envs: int,
        *,
        action_repeat: int = 1,
        device: torch.device | str = "cpu",
        render_size: int | None = None,
    ):
        """`render_size` is the height and width of pictures in pixels, 256 by default. Raises `EnvError` for an unknown task."""
        name = canonical_name(task)
        if name is None:
            raise EnvError(f"{task!r} is no task of the dm-control suite; list them with steelyard.envs.known_tasks().")
        self.num_envs, self.device = num_envs, torch.device(device)
        self._task, self._action_repeat = name, action_repeat
        domain, kind = TASKS[name]
        with quiet_loading():
            # The seed matters for lqr alone, whose springs are random: all worlds, and every run, get the same ones.
            self._worlds: list[Environment] = [suite.load(domain, kind, task_kwargs={"random": 0}) for _ in range(num_envs)]
        self._snapshot = WorldSnapshot(_parts(self._worlds[0]))
        model = self._worlds[0].physics.model.ptr
        first = 0 if model.ncam else -1
        self._camera = Camera(name, model, render_size or DEFAULT_RENDER_SIZE, first)
        self._usual_camera = USUAL_CAMERAS.get(domain, first)
        self._ended = np.zeros(num_envs, dtype=np.bool_)
        actions, limit = self._worlds[0].action_spec(), self._worlds[0]._step_limit
        sizes = [math.prod(spec.shape) for spec in self._worlds[0].observation_spec().values()]
        low, high = (np.broadcast_to(bound, actions.shape) for bound in (actions.minimum, actions.maximum))
        self._bounds = ActionBounds(low, high, np.float64)
        self.spec = Spec(
            obs_size=sum(sizes),
            action_size=math.prod(actions.shape),
            horizon=None if math.isinf(limit) else math.ceil(math.ceil(limit) / action_repeat),
            can_terminate=domain in CAN_TERMINATE,
        )

    def reset(self, seed: int | None = None) -> Tensor:
        """Start a new episode in every world; world i gets `seed + i`. Returns [num_envs, obs_size] float32."""
        self._ended = np.zeros(self.num_envs, dtype=np.bool_)
        obs = np.empty((self.num_envs, self.spec.obs_size))
        for index, world in enumerate(self._worlds):
            if seed is not None:
                world.task.random.seed(seed + index)
            obs[index] = _flat(world.reset().observation)
        return self._tensor(to_float32(self._task, "observation", obs))

    def step(self, action: Tensor) -> Step:
        """Apply actions [num_envs, action_size] in [-1, 1], rescaled to the bounds of the task's actuators."""
        actions = self._bounds.to_world(check_actions(self._task, action, (self.num_envs, self.spec.action_size)))
        valid = ~self._ended
        observed, reward = np.empty((self.num_envs, self.spec.obs_size)), np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, dtype=np.bool_), np.zeros(self.num_envs, dtype=np.bool_)
        for index, world in enumerate(self._worlds):
            if self._ended[index]:
                observed[index] = _flat(world.reset().observation)
            else:
                observed[index], reward[index], terminated[index], truncated[index] = self._advance(index, actions[index])
        self._ended = terminated | truncated
        obs = self._tensor(to_float32(self._task, "observation", observed))
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
        """An RGB picture [height, width, 3] uint8 of world 0 from the task's first camera."""
        return self._camera.picture(*self.simulations()[0])

    def painter(self, pictures: Pictures) -> Painter:
        """What draws all worlds for an agent that learns from pixels. Raises `EnvError` if there is no such camera."""
        return scene_painter(self._task, self.simulations, pictures, self._usual_camera)

    def simulations(self) -> list[Simulation]:
        """Model and data of each world, to be drawn."""
        return [(world.physics.model.ptr, world.physics.data.ptr) for world in self._worlds]

    def state_dict(self) -> dict[str, Any] | None:
        """All that determines the future of the worlds."""
        worlds = [self._snapshot.save(_parts(world)) for world in self._worlds]
        if any(world is None for world in worlds):
            return None
        return {"worlds": worlds, "ended": torch.from_numpy(self._ended.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken. Raises `EnvError` if these are not the worlds it was taken of."""
        if len(state["worlds"]) != self.num_envs:
            raise EnvError(
                f"{self._task}: a state of {len(state['worlds'])} worlds was saved and there are {self.num_envs}; "
                "make the environment with that number of worlds, or start the run afresh with --fresh."
            )
        self.reset()
        for world, saved in zip(self._worlds, state["worlds"], strict=True):
            vars(world).update(self._snapshot.load(_parts(world), saved)["environment"])
        self._ended = state["ended"].numpy().copy()

    def close(self) -> None:
        """Release the worlds."""
        self._camera.close()
        for world in self._worlds:
            world.close()

    def _advance(self, index: int, action: NDArray[np.floating]) -> tuple[NDArray[Any], float, bool, bool]:
        """Repeat one world's action to the end of the decision or of the episode: observation, reward, terminated, truncated."""
        world, reward = self._worlds[index], 0.0
        try:
            for _ in range(self._action_repeat):
                timestep = world.step(action)
                reward += timestep.reward
                if timestep.last():
                    return _flat(timestep.observation), reward, timestep.discount == 0, timestep.discount != 0
        except PhysicsError as error:
            raise EnvError(
                f"{self._task}: the simulation of world {index} diverged ({error}); use smaller actions or leave this task out."
            ) from error
        return _flat(timestep.observation), reward, False, False

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def _flat(observation: dict[str, Any]) -> NDArray[np.float64]:
    return np.concatenate([np.ravel(value) for value in observation.values()])


def _parts(world: Environment) -> dict[str, Any]:
    """What a snapshot carries of a world: counters, task and simulator; the rest of `Physics` only indexes the simulator."""
    environment = {name: value for name, value in vars(world).items() if name not in ("_physics", "_task")}
    physics = world.physics
    return {"environment": environment, "task": world.task, "model": physics.model.ptr, "data": physics.data.ptr}
