# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""Gymnasium's five locomotion tasks with many worlds on CPU threads, through `mujoco.batch` (MuJoCo >= 3.17)."""

from pathlib import Path
from typing import Any

import gymnasium.envs.mujoco
import mujoco
import numpy as np
import torch
from mujoco.batch import Batch, SimulationError
from numpy.typing import NDArray
from torch import Tensor

from steelyard.agents.types import Spec, Step
from steelyard.envs.edge import ActionBounds, check_actions, to_float32
from steelyard.envs.pictures import Camera
from steelyard.envs.simulator import quiet_loading
from steelyard.envs.tasks import TASKS
from steelyard.envs.vector import EnvError

DEFAULT_RENDER_SIZE = 480
NO_STAGE = int(mujoco.mjtStage.mjSTAGE_NONE)


class BatchEnv:
    """`num_envs` worlds of one task under the contract of `VectorEnv`; their states are Gymnasium's, bit for bit.

    A world that ended is reset in the same call: `obs` is the first of the new episode, `next_obs` the last of the old, and
    every row is valid. World i starts from the states that Gymnasium's world i starts from with the same seed.
    """

    def __init__(
        self,
        task: str,
        num_envs: int,
        *,
        action_repeat: int = 1,
        threads: int = 0,
        device: torch.device | str = "cpu",
        render_size: int | None = None,
    ):
        """`threads`: 0 for as many as the machine has. `render_size`: height and width of pictures, 480 by default."""
        self.num_envs, self.device = num_envs, torch.device(device)
        self._name, self._task, self._action_repeat = task, TASKS[task], action_repeat
        with quiet_loading():
            assets = Path(gymnasium.envs.mujoco.__file__).parent / "assets"
            self._model = mujoco.MjModel.from_xml_path(str(assets / self._task.xml))
        # Contact forces are computed from the contacts of the last substep, which only a persistent batch keeps.
        self._batch = Batch(self._model, num_envs, threads, persistent=self._task.reads_contact_forces)
        self._camera = Camera(task, self._model, render_size or DEFAULT_RENDER_SIZE, "track")
        self._data = mujoco.MjData(self._model)
        self._start = self._data.qpos.copy()
        names = ("qpos", "qvel", *self._task.fields)
        self._state = {name: torch.from_numpy(_writable_view(self._batch.bind(name))) for name in names}
        if self._task.reads_contact_forces:
            self._forces = np.zeros((num_envs, self._model.nbody, 6))
            self._state["cfrc_ext"] = torch.from_numpy(self._forces)
        self._body_mass = torch.from_numpy(self._model.body_mass.copy())
        low, high = self._model.actuator_ctrlrange.astype(np.float32).T  # Gymnasium's action spaces are float32
        self._bounds = ActionBounds(low, high, np.float32)
        self._interval = self._model.opt.timestep * self._task.frame_skip
        self._generators = [np.random.default_rng(index) for index in range(num_envs)]
        self._elapsed = torch.zeros(num_envs, dtype=torch.int64)
        self._position = torch.zeros(num_envs, dtype=torch.float64)
        self.spec = Spec(
            obs_size=self._task.observe(self._state).shape[1],
            action_size=self._model.nu,
            horizon=-(-self._task.horizon // action_repeat),
            can_terminate=self._task.can_terminate,
        )

    def reset(self, seed: int | None = None) -> Tensor:
        """Start a new episode in every world; world i gets `seed + i`. Returns [num_envs, obs_size] float32."""
        if seed is not None:
            self._generators = [np.random.default_rng(seed + index) for index in range(self.num_envs)]
        self._reset_worlds(np.arange(self.num_envs))
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
        """An RGB picture [height, width, 3] uint8 of world 0 from the camera that follows the robot."""
        self._batch.get_data(0, self._data)
        mujoco.mj_forward(self._model, self._data)
        return self._camera.picture(self._model, self._data)

    def state_dict(self) -> dict[str, Any]:
        """All that determines the future of the worlds."""
        return {
            "simulation": torch.from_numpy(self._batch.state.copy()),
            "elapsed": self._elapsed.clone(),
            "position": self._position.clone(),
            "generators": [_generator_state(generator) for generator in self._generators],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken. Raises `EnvError` if another number of worlds was saved."""
        if state["simulation"].shape != self._batch.state.shape:
            raise EnvError(
                f"{self._name}: a state of {len(state['simulation'])} worlds was saved and there are {self.num_envs}; "
                "make the environment with that number of worlds, or start the run afresh with --fresh."
            )
        self._batch.state[:] = state["simulation"].numpy()
        self._elapsed, self._position = state["elapsed"].clone(), state["position"].clone()
        for generator, saved in zip(self._generators, state["generators"], strict=True):
            position = {name: int(number) for name, number in saved.items()}
            generator.bit_generator.state = {"bit_generator": "PCG64", "state": position, "has_uint32": 0, "uinteger": 0}

    def close(self) -> None:
        """Release what drew pictures; the simulator's threads end with this object."""
        self._camera.close()

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
            self._batch.step(ids, nstep=self._task.frame_skip)
        except SimulationError as error:
            raise EnvError(f"{self._name}: {error}; use smaller actions.") from error
        if self._task.reads_contact_forces:
            self._compute_forces(range(self.num_envs) if ids is None else ids)
        position = self._task.position(self._state, self._body_mass)
        velocity = (position - self._position) / self._interval
        self._position = position.clone()
        self._elapsed = self._elapsed + (1 if which is None else which.long())
        healthy = self._task.healthy(self._state)
        reward = self._task.reward(self._state, control, velocity, healthy)
        terminated = torch.zeros(self.num_envs, dtype=torch.bool) if healthy is None else ~healthy
        return reward, terminated, self._elapsed >= self._task.horizon

    def _reset_worlds(self, ids: NDArray[np.integer]) -> None:
        """Start new episodes in the worlds `ids` [n], each from its own generator, drawing as Gymnasium draws."""
        ids = ids.astype(np.int32)
        noise, model = self._task.reset_noise, self._model
        self._batch.reset(ids, stage=NO_STAGE)
        qpos, qvel = self._batch.bind("qpos"), self._batch.bind("qvel")
        for world in ids:
            generator = self._generators[world]
            qpos[world] = self._start + generator.uniform(-noise, noise, model.nq)
            if self._task.normal_velocities:
                qvel[world] = noise * generator.standard_normal(model.nv)
            else:
                qvel[world] = generator.uniform(-noise, noise, model.nv)
        self._batch.forward(ids)
        if self._task.reads_contact_forces:
            self._forces[ids] = 0.0  # not computed before the first step
        self._elapsed[ids] = 0
        position = self._task.position(self._state, self._body_mass)
        self._position[ids] = position[ids]

    def _compute_forces(self, ids: range | NDArray[np.integer]) -> None:
        """`cfrc_ext` of the worlds `ids`, exactly as Gymnasium has it, for about a twentieth of the time of the step itself."""
        for world in ids:
            self._batch.get_data(int(world), self._data)
            mujoco.mj_rnePostConstraint(self._model, self._data)
            self._forces[world] = self._data.cfrc_ext

    def _observe(self) -> NDArray[np.float32]:
        return to_float32(self._name, "observation", self._task.observe(self._state).numpy())

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def _writable_view(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory marked writable, which torch insists on; MuJoCo's outputs are only ever read here."""
    view = array.view()
    view.flags.writeable = True
    return view


def _generator_state(generator: np.random.Generator) -> dict[str, str]:
    """PCG64's two numbers of 128 bits, more than a checkpoint's plain integers hold; all draws here take whole 64-bit words."""
    return {name: str(number) for name, number in generator.bit_generator.state["state"].items()}
