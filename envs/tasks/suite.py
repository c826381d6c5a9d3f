# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""What the tasks of the dm-control suite (Tassa et al. 2018) share here: models, names of their parts, and starts."""

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from steelyard.envs.simulator import quiet_loading
from steelyard.envs.tasks.task import State, Task


class SuiteTask(Task):
    """A task of the suite: the observation's arrays in its order, its reward, 1000 decisions, no terminal states.

    `start` draws what dm-control draws, in its order: the same seed gives the same start, bit for bit.
    """

    domain: ClassVar[str]
    """Module of the suite that has the model."""
    camera = 0

    def __init__(self, name: str):
        with quiet_loading():
            module = importlib.import_module(f"dm_control.suite.{self.domain}")
            super().__init__(name, mujoco.MjModel.from_xml_string(*module.get_model_and_assets()))

    def generator(self, seed: int) -> np.random.RandomState:
        """The generator that dm-control draws from."""
        return np.random.RandomState(seed)

    def body(self, name: str) -> int:
        """Number of a body."""
        return self.model.body(name).id

    def sensor(self, name: str) -> slice:
        """Where the numbers of a sensor are in `sensordata`."""
        first = int(self.model.sensor(name).adr[0])
        return slice(first, first + int(self.model.sensor(name).dim[0]))

    def start(self, data: mujoco.MjData, random: np.random.RandomState) -> Mapping[str, NDArray[Any]]:
        """Joints anywhere in their range."""
        randomize_joints(self.model, data, random)
        return {}


class Moving(SuiteTask):
    """A task of the suite whose reward depends on the velocity of the body's centre of mass."""

    speed: float
    """Wanted, m/s; 0 to stand still."""
    fields = ("xpos", "xmat", "sensordata")

    def __init__(self, name: str):
        super().__init__(name)
        self._velocity = self.sensor("torso_subtreelinvel")

    def centre_velocity(self, state: State) -> Tensor:
        """[num_envs, 3] m/s."""
        return state["sensordata"][:, self._velocity]


def randomize_joints(model: mujoco.MjModel, data: mujoco.MjData, random: np.random.RandomState) -> None:
    """Limited hinges and slides anywhere in their range, other hinges at any angle, free bodies turned at random.

    Free bodies are turned by quaternions of uniform components, which are all positive, as dm-control does. Ball joints are refused.
    """
    for joint, kind in enumerate(model.jnt_type):
        address, limited = model.jnt_qposadr[joint], model.jnt_limited[joint]
        if kind == mujoco.mjtJoint.mjJNT_BALL:
            raise NotImplementedError("no task here has ball joints")
        if kind == mujoco.mjtJoint.mjJNT_FREE:
            turn = random.rand(4)
            data.qpos[address + 3 : address + 7] = turn / np.linalg.norm(turn)
        elif limited:
            data.qpos[address] = random.uniform(*model.jnt_range[joint])
        elif kind == mujoco.mjtJoint.mjJNT_HINGE:
            data.qpos[address] = random.uniform(-np.pi, np.pi)
