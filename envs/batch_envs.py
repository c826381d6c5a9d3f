# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""Gymnasium's locomotion tasks, tasks of the dm-control suite and one's own with many worlds at once, stepped by `mujoco.batch` on CPU threads."""

import copy
from typing import Any

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch, SimulationError
from numpy.typing import NDArray
from torch import Tensor

from steelyard.agents.types import Step
from steelyard.envs.draws import first_clocks
from steelyard.envs.edge import ActionBounds, check_actions, to_float32
from steelyard.envs.generators import generator_state, load_generator
from steelyard.envs.pictures import Camera
from steelyard.envs.randomization import Randomization
from steelyard.envs.tasks import Task, build
from steelyard.envs.tasks.task import View, control_range, require_fields, shaped
from steelyard.envs.vector import EnvError

DEFAULT_RENDER_SIZE = 480
NO_STAGE, VELOCITY_STAGE = int(mujoco.mjtStage.mjSTAGE_NONE), int(mujoco.mjtStage.mjSTAGE_VEL)
SAVED = mujoco.mjtState.mjSTATE_INTEGRATION


class BatchEnv:
    """`num_envs` worlds of one task under the contract of `VectorEnv`; their states are Gymnasium's and dm-control's, bit for bit.

    A world that ended is reset in the same call: `obs` is the first of the new episode, `next_obs` the last of the old, and
    every row is valid. World i starts from the states that Gymnasium's or dm-control's world i starts from with the same seed.
    """

    def __init__(
        self,
        task: str | Task,
        num_envs: int,
        *,
        action_repeat: int = 1,
        threads: int = 0,
        device: torch.device | str = "cpu",
        render_size: int | None = None,
        randomization: Randomization | None = None,
        staggered: bool = False,
    ):
        """`task`: one of `tasks.TASKS`, or your own. `threads`: 0 for as many as the machine has.

        `render_size`: height and width of pictures, 480 by default. `randomization`: how worlds differ from the model. `staggered`: the first
        episodes are cut at different times, so that worlds do not end together.
        """
        self.num_envs, self.device = num_envs, torch.device(device)
        self._task, self._action_repeat = build(task), action_repeat
        self._name = self._task.name
        require_fields(self._task)
        self._model = copy.copy(self._task.model)
        self._forces = "cfrc_ext" in self._task.fields
        self._stage = VELOCITY_STAGE if self._task.fresh and self._task.fields else NO_STAGE
        # Contact forces are computed from the contacts of the last substep, which only a persistent batch keeps; and only such a
        # batch goes on from the stage that was computed for the observation.
        self._batch = Batch(self._model, num_envs, threads, persistent=self._forces or self._stage != NO_STAGE)
        self._camera = Camera(self._name, self._model, render_size or DEFAULT_RENDER_SIZE, self._task.camera)
        self._data = mujoco.MjData(self._model)
        self._randomization, self._staggered = randomization, staggered
        names = () if randomization is None else randomization.names(self._name, self._model)
        self._expanded = {name: self._batch.expand(name) for name in names}
        self._keys = torch.arange(num_envs)
        low, high = (bound.astype(self._task.control_type) for bound in control_range(self._model))
        self._bounds = ActionBounds(low, high, self._task.control_type)
        self._interval = self._model.opt.timestep * self._task.frame_skip
        self._generators = [self._task.generator(index) for index in range(num_envs)]
        self._elapsed = torch.zeros(num_envs, dtype=torch.int64)
        self._position = torch.zeros(num_envs, dtype=torch.float64)
        self._episode = {
            name: np.zeros((num_envs, *np.shape(value)))
            for name, value in self._task.start(mujoco.MjData(self._model), self._task.generator(0)).items()
        }
        self._state = self._views()
        self._view = View(self._task, None)
        self._randomize()
        self.spec = self._view.spec(self._state, action_repeat)

    def reset(self, seed: int | None = None) -> Tensor:
        """Start a new episode in every world; world i gets `seed + i`. Returns [num_envs, obs_size] float32."""
        if seed is not None:
            self._generators = [self._task.generator(seed + index) for index in range(self.num_envs)]
            self._keys = seed + torch.arange(self.num_envs)
            self._randomize()
        self._reset_worlds(np.arange(self.num_envs))
        if self._staggered:
            self._elapsed = first_clocks(self._keys, self._task.horizon)
        return self._tensor(self._observe())

    def step(self, action: Tensor) -> Step:
        """Apply actions [num_envs, action_size] in [-1, 1], rescaled to the range of the actuators, to every world."""
        control = self._bounds.to_world(check_actions(self._name, action, (self.num_envs, self.spec.action_size)))
        self._batch.bind("ctrl")[:] = control
        reward, terminated, truncated = self._advance(torch.from_numpy(control).double())
        obs = next_obs = self._tensor(self._observe())
        done = terminated | truncated
        if done.any():
            self._reset_worlds(done.nonzero()[:, 0].numpy())
            obs = self._tensor(self._observe())
        return Step(
            obs=obs,
            next_obs=next_obs,
            reward=self._tensor(to_float32(self._name, "reward", reward.numpy())),
            terminated=terminated.to(self.device),
            truncated=truncated.to(self.device),
            valid=torch.ones(self.num_envs, dtype=torch.bool, device=self.device),
            info={},
        )

    def render(self) -> NDArray[np.uint8]:
        """An RGB picture [height, width, 3] uint8 of world 0 from the task's camera."""
        model = self._batch.get_model(0) if self._expanded else self._model
        self._task.show(model, {name: rows[0] for name, rows in self._episode.items()})
        self._batch.get_data(0, self._data)
        mujoco.mj_forward(model, self._data)
        return self._camera.picture(model, self._data)

    def state_dict(self) -> dict[str, Any]:
        """All that determines the future of the worlds."""
        return {
            "simulation": torch.from_numpy(self._batch.state.copy()),
            "elapsed": self._elapsed.clone(),
            "position": self._position.clone(),
            "generators": [generator_state(generator) for generator in self._generators],
            "episode": {name: torch.from_numpy(rows.copy()) for name, rows in self._episode.items()},
            "keys": self._keys.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken. Raises `EnvError` if another number of worlds was saved."""
        if state["simulation"].shape != self._batch.state.shape:
            raise EnvError(
                f"{self._name}: a state of {len(state['simulation'])} worlds was saved and there are {self.num_envs}; "
                "make the environment with that number of worlds, or start the run afresh with --fresh."
            )
        self._keys = state.get("keys", self._keys).clone()  # older states come from worlds that were all alike
        self._randomize()
        self._batch.state[:] = state["simulation"].numpy()
        self._elapsed, self._position = state["elapsed"].clone(), state["position"].clone()
        for name, rows in state.get("episode", {}).items():
            self._episode[name][:] = rows.numpy()
        for generator, saved in zip(self._generators, state["generators"], strict=True):
            load_generator(generator, saved)

    def close(self) -> None:
        """Release what drew pictures; the simulator's threads end with this object."""
        self._camera.close()

    def _views(self) -> dict[str, Tensor]:
        """The worlds' `State`: live views of the simulator's arrays."""
        found: dict[str, Tensor] = {}
        for name in ("qpos", "qvel", *self._task.fields):
            if name == "cfrc_ext":
                self._contact_forces = np.zeros((self.num_envs, self._model.nbody, 6))
                found[name] = torch.from_numpy(self._contact_forces)
            else:
                found[name] = shaped(name, torch.from_numpy(_writable_view(self._batch.bind(name))))
        for name in self._task.model_fields:
            shared = torch.from_numpy(getattr(self._model, name).copy())[None]
            found[name] = torch.from_numpy(self._expanded[name]) if name in self._expanded else shared
        return found | {name: torch.from_numpy(rows) for name, rows in self._episode.items()}

    def _randomize(self) -> None:
        """Give each world the model that its seed says."""
        if self._randomization is None:
            return
        for name, value in self._randomization.values(self._name, self._model, self._keys).items():
            self._expanded[name][:] = value.numpy()
        self._batch.set_const()
        self._view.factors = self._randomization.for_critics(self._name, self._model, self._keys)

    def _advance(self, control: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step every world `action_repeat` times or to its episode's end: reward (float64), terminated, truncated."""
        reward, terminated, truncated = self._step_worlds(control, None)
        for _ in range(self._action_repeat - 1):
            going_on = ~(terminated | truncated)
            if not going_on.any():
                break
            more, ended, cut = self._step_worlds(control, going_on)
            reward = torch.where(going_on, reward + more, reward)
            terminated, truncated = terminated | (ended & going_on), truncated | (cut & going_on)
        return reward, terminated, truncated

    def _step_worlds(self, control: Tensor, which: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """One environment step of the worlds in the mask `which` (None: all). The other rows returned mean nothing."""
        ids = None if which is None else which.nonzero()[:, 0].numpy().astype(np.int32)
        try:
            self._batch.step(ids, nstep=self._task.frame_skip, stage=self._stage)
        except SimulationError as error:
            raise EnvError(f"{self._name}: {error}; use smaller actions.") from error
        if self._forces:
            self._compute_forces(range(self.num_envs) if ids is None else ids)
        position, velocity = self._task.position(self._state), torch.zeros_like(self._position)
        if position is not None:
            velocity = (position - self._position) / self._interval
            self._position = position.clone()
        self._elapsed = self._elapsed + (1 if which is None else which.long())
        reward, terminated = self._task.reward(self._state, control, velocity), self._task.terminated(self._state)
        if terminated is None:
            terminated = torch.zeros(self.num_envs, dtype=torch.bool)
        return reward, terminated, self._elapsed >= self._task.horizon

    def _reset_worlds(self, ids: NDArray[np.integer]) -> None:
        """Start new episodes in the worlds `ids` [n], each from its own generator."""
        ids = ids.astype(np.int32)
        for world in ids:
            mujoco.mj_resetData(self._model, self._data)
            for name, value in self._task.start(self._data, self._generators[world]).items():
                self._episode[name][world] = value
            mujoco.mj_getState(self._model, self._data, self._batch.state[world], SAVED)
        self._batch.forward(ids)
        if self._forces:
            self._contact_forces[ids] = 0.0  # not computed before the first step
        self._elapsed[ids] = 0
        position = self._task.position(self._state)
        if position is not None:
            self._position[ids] = position[ids]

    def _compute_forces(self, ids: range | NDArray[np.integer]) -> None:
        """`cfrc_ext` of the worlds `ids`, exactly as Gymnasium has it, for about a twentieth of the time of the step itself."""
        for world in ids:
            self._batch.get_data(int(world), self._data)
            mujoco.mj_rnePostConstraint(self._model, self._data)
            self._contact_forces[world] = self._data.cfrc_ext

    def _observe(self) -> NDArray[np.float32]:
        return to_float32(self._name, "observation", self._view(self._state).numpy())

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def _writable_view(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory marked writable, which torch insists on; MuJoCo's outputs are only ever read here."""
    view = array.view()
    view.flags.writeable = True
    return view
