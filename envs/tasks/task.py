# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""What a task is, for every simulator that steps many worlds of MuJoCo at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelyard.agents.types import Spec
from steelyard.envs.simulator import quiet_loading
from steelyard.envs.vector import EnvError

State = Mapping[str, Tensor]
"""Name to tensor [num_envs, ...] in the simulator's precision: "qpos", "qvel", what the task names in `fields` and `model_fields`, and what
its `start` returned. Matrices (`xmat` and the like) are [num_envs, n, 3, 3]; `model_fields` are [1, ...] where all worlds share them."""


class Task:
    """A model, and what is observed, rewarded and terminal in it.

    Functions work on all worlds at once, in torch, and never wait for the device: no `.item()`, no branch on a tensor's value, no shape that
    depends on one, and no list of numbers as an index (a slice does).

    Write a subclass with `reward`, and with whatever else differs from this one: positions and velocities observed, no noise at the start,
    no terminal states. `BatchEnv` steps it with MuJoCo on CPU threads, `WarpEnv` with mujoco-warp.
    """

    frame_skip: int = 1
    """Steps of the simulator per environment step."""
    horizon: int = 1000
    """Environment steps after which an episode is cut."""
    can_terminate: bool = False
    """Whether `terminated` says anything."""
    fields: tuple[str, ...] = ()
    """Fields of `MjData` read besides qpos and qvel. `cfrc_ext` is computed after the step, as Gymnasium does."""
    model_fields: tuple[str, ...] = ()
    """Fields of `MjModel` read; randomisation makes them differ from world to world."""
    fresh: bool = True
    """Whether `fields` describe the state reached, as in dm-control, or the state before the simulator's last substep, as in Gymnasium."""
    reads_forces: bool = False
    """Whether `fields` hold forces and accelerations when an episode starts, such as touch sensors; else they are 0 there under mujoco-warp.
    Positions and velocities are always there."""
    control_type: type[np.floating] = np.float64
    """Precision in which actions are scaled to the actuators' range."""
    contacts: int = 32
    """Room for contacts per world, on average over worlds (mujoco-warp's nconmax)."""
    constraints: int = 96
    """Room for constraint rows in each world (mujoco-warp's njmax)."""
    starts: int = 4096
    """Start states that `WarpEnv` draws on the host; each episode picks one of them."""
    camera: int | str = -1
    """Name or number of the camera of `render`, -1 for a free one."""

    def __init__(self, name: str, model: mujoco.MjModel | str | Path):
        """`name`: for messages. `model`: built, or MJCF text, or the path of an MJCF file."""
        self.name = name
        self.model: mujoco.MjModel = model if isinstance(model, mujoco.MjModel) else load_model(name, model)

    def generator(self, seed: int) -> Any:
        """The host's random numbers of one world, given to `start`."""
        return np.random.default_rng(seed)

    def start(self, data: mujoco.MjData, random: Any) -> Mapping[str, NDArray[Any]]:
        """Put `data`, just reset to the model's defaults, into the state in which an episode starts.

        Returns what else the episode has, such as a target: arrays that `State` then holds in a row for each world.
        """
        return {}

    def observe(self, state: State) -> Tensor:
        """[num_envs, obs_size]."""
        return torch.cat([state["qpos"], state["qvel"]], dim=1)

    def privileged(self, state: State) -> Tensor | None:
        """[num_envs, n] what critics see behind the observation and policies do not (`Spec.policy_obs_size`); None for nothing."""
        return None

    def position(self, state: State) -> Tensor | None:
        """[num_envs] a coordinate whose rate of change is rewarded; None if there is none."""
        return None

    def reward(self, state: State, control: Tensor, velocity: Tensor) -> Tensor:
        """[num_envs] for reaching `state` with `control` [num_envs, action_size], in the model's units.

        `velocity` [num_envs]: change of `position` in this step per second; 0 without one.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method reward(state, control, velocity).")

    def terminated(self, state: State) -> Tensor | None:
        """[num_envs] bool, or None for a task without terminal states."""
        return None

    def show(self, model: mujoco.MjModel, episode: Mapping[str, NDArray[Any]]) -> None:
        """Make what `start` returned visible in the model that is drawn."""


class View:
    """What is seen of a task's worlds: its observation, and behind it what only critics see.

    Args:
        task: The task.
        factors: [num_envs, n] by which each world's model differs, for critics to see; None to hide them.
    """

    def __init__(self, task: Task, factors: Tensor | None):
        self._task, self.factors = task, factors

    def spec(self, state: State, action_repeat: int) -> Spec:
        """What an agent must know of the task."""
        whole, seen = self(state).shape[1], self._task.observe(state).shape[1]
        return Spec(
            obs_size=whole,
            action_size=self._task.model.nu,
            horizon=-(-self._task.horizon // action_repeat),
            can_terminate=self._task.can_terminate,
            policy_obs_size=seen if seen < whole else None,
        )

    def __call__(self, state: State) -> Tensor:
        """[num_envs, obs_size] observations of all worlds."""
        obs = self._task.observe(state)
        hidden = [part.to(obs.dtype) for part in (self._task.privileged(state), self.factors) if part is not None]
        return torch.cat([obs, *hidden], dim=1) if hidden else obs


def load_model(task: str, source: str | Path) -> mujoco.MjModel:
    """The model of MJCF text, or of a file. Raises `EnvError` for what MuJoCo cannot read."""
    try:
        with quiet_loading():
            if isinstance(source, str) and source.lstrip().startswith("<"):
                return mujoco.MjModel.from_xml_string(source)
            return mujoco.MjModel.from_xml_path(str(source))
    except ValueError as error:
        raise EnvError(
            f"{task}: MuJoCo cannot read the model ({' '.join(str(error).split())}); give MJCF text or a file."
        ) from error


def require_fields(task: Task) -> None:
    """Raises `EnvError` for a name in `fields` or `model_fields` that is no array of numbers with a size that the model fixes."""
    data = mujoco.MjData(task.model)
    for kind, holder, names in (("fields", data, task.fields), ("model_fields", task.model, task.model_fields)):
        for name in names:
            value = getattr(holder, name, None)
            if not isinstance(value, np.ndarray) or name.startswith(("efc_", "iefc_", "contact")):
                raise EnvError(
                    f"{task.name}: {kind} has {name!r}, which is no array of fixed size in MuJoCo's {type(holder).__name__}; "
                    "look its name up in MuJoCo's documentation."
                )


def control_range(model: mujoco.MjModel) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest controls [action_size]; infinite where an actuator has no limit."""
    limited = model.actuator_ctrllimited.astype(bool)
    low, high = model.actuator_ctrlrange.T
    return np.where(limited, low, -np.inf), np.where(limited, high, np.inf)


def shaped(name: str, value: Tensor) -> Tensor:
    """A field as `State` has it."""
    return value.unflatten(2, (3, 3)) if name.endswith("mat") and value.shape[-1] == 9 else value
