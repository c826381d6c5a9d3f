# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""What draws the worlds of an environment for an agent that learns from pixels."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import mujoco
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from steelyard.envs.pictures import Camera, Simulation
from steelyard.envs.pixels import Painter, Pictures
from steelyard.envs.vector import EnvError


class SeveralScenes(Protocol):
    """Draws states of MuJoCo models that are built alike."""

    def pictures(self, simulations: Sequence[Simulation]) -> NDArray[np.uint8]:
        """RGB [simulations, size, size, 3] uint8."""
        ...

    def close(self) -> None:
        """Release what draws."""
        ...


class ScenePainter:
    """Draws worlds of MuJoCo, all with one camera."""

    channels = 3

    def __init__(self, simulations: Callable[[], Sequence[Simulation]], camera: SeveralScenes):
        self._simulations, self._camera = simulations, camera

    def draw(self) -> NDArray[np.uint8]:
        """RGB [num_envs, size, size, 3] uint8."""
        return self._camera.pictures(self._simulations())

    def close(self) -> None:
        """Release the camera."""
        self._camera.close()


class OwnPictures:
    """The pictures that worlds give of themselves, scaled to a square by means over areas."""

    def __init__(self, frames: Callable[[], Sequence[NDArray[Any]] | NDArray[Any]], size: int, channels: int = 3):
        """`frames` returns one picture [height, width, channels] of bytes per world."""
        self._frames, self._size, self.channels = frames, size, channels

    def draw(self) -> NDArray[np.uint8]:
        """[num_envs, size, size, channels] uint8."""
        frames = torch.from_numpy(np.stack(list(self._frames()))).permute(0, 3, 1, 2).float()
        if frames.shape[-2:] != (self._size, self._size):
            frames = F.interpolate(frames, (self._size, self._size), mode="area").round()
        return frames.byte().permute(0, 2, 3, 1).contiguous().numpy()

    def close(self) -> None:
        """The worlds hold what draws."""


def scene_painter(
    task: str, simulations: Callable[[], Sequence[Simulation]], pictures: Pictures, usual_camera: int | str
) -> Painter:
    """A painter for worlds of MuJoCo. Raises `EnvError` if the model has no such camera."""
    model, _ = simulations()[0]
    camera = usual_camera if pictures.camera is None else pictures.camera
    if isinstance(camera, int) and not -1 <= camera < model.ncam:
        raise EnvError(f"{task}: there is no camera {camera}; choose one of 0 to {model.ncam - 1}, or -1 for the free one.")
    if pictures.rendering == "rays":
        from steelyard.envs.rays import RayCamera

        return ScenePainter(simulations, RayCamera(task, pictures.size, camera_number(model, camera)))
    return ScenePainter(simulations, Camera(task, model, pictures.size, camera, fast=pictures.rendering == "fast"))


def is_simulation(world: object) -> bool:
    """Whether an environment of Gymnasium keeps a model and data of MuJoCo that can be drawn."""
    return isinstance(getattr(world, "model", None), mujoco.MjModel) and isinstance(getattr(world, "data", None), mujoco.MjData)


def camera_number(model: mujoco.MjModel, camera: int | str) -> int:
    """Number of a camera of the model, -1 for the free one."""
    return camera if isinstance(camera, int) else mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, camera)
