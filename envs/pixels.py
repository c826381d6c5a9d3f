"""Worlds seen through a camera: observations are the last few pictures, one behind another, as uint8."""

import dataclasses
import os
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelyard.agents.types import Spec, Step
from steelyard.envs.vector import EnvError, VectorEnv

Rendering = Literal["published", "fast", "rays"]


@dataclass(frozen=True)
class Pictures:
    """What an agent sees that learns from pixels."""

    size: int = 84
    """Height and width of a picture in pixels."""
    stack: int = 3
    """Newest frames that make one observation; an episode begins with copies of its first."""
    camera: int | None = None
    """Number of the camera; None: the task's usual one (dm-control: 0, and 2 for quadruped; Gymnasium: the one that follows the robot)."""
    rendering: Rendering = "published"
    """How pictures are drawn: as the simulator draws them, and so in published results; fast, without shadows, reflections and multisampling;
    or by mujoco-warp's batch ray tracer (extra `gpu`)."""

    def __post_init__(self) -> None:
        for name in ("size", "stack"):
            if getattr(self, name) < 1:
                raise EnvError(f"pictures.{name} is {getattr(self, name)}; give a positive number.")
        if self.rendering not in ("published", "fast", "rays"):
            raise EnvError(f"pictures.rendering is {self.rendering!r}; choose published, fast or rays.")

    def describe(self) -> str:
        """One line for the start of a run, such as `pictures: 84 x 84, 3 frames, published rendering through egl`."""
        through = "mujoco-warp" if self.rendering == "rays" else os.environ.get("MUJOCO_GL", "the simulator's own OpenGL")
        return f"pictures: {self.size} x {self.size}, {self.stack} frames, {self.rendering} rendering through {through}"


class Painter(Protocol):
    """Draws every world of an environment as it is now."""

    channels: int
    """3 for RGB, 1 for grey."""

    def draw(self) -> NDArray[np.uint8]:
        """[num_envs, size, size, channels] uint8."""
        ...

    def close(self) -> None:
        """Release what draws."""
        ...


class PixelEnv:
    """Any `VectorEnv` whose ended worlds are reset by the next call, with pictures in place of its observations.

    Observations [num_envs, stack * channels * size * size] are flat uint8, the oldest frame first, each frame's channels before its rows. The last
    one of an episode ends with the picture of its last state; the call that resets the world fills the stack with the first picture.
    """

    def __init__(self, world: VectorEnv, pictures: Pictures, painter: Painter):
        self._world, self._painter, self._stack = world, painter, pictures.stack
        self.num_envs, self.device = world.num_envs, world.device
        shape = (painter.channels * pictures.stack, pictures.size, pictures.size)
        self.spec: Spec = dataclasses.replace(world.spec, obs_size=int(np.prod(shape)), picture=shape, frames=pictures.stack)
        self._frames = torch.zeros(self.num_envs, self.spec.obs_size, dtype=torch.uint8, device=self.device)

    def reset(self, seed: int | None = None) -> Tensor:
        """Start a new episode in every world; world i gets `seed + i`. Returns [num_envs, obs_size] uint8."""
        self._world.reset(seed)
        self._frames = self._draw().repeat(1, self._stack)
        return self._frames

    def step(self, action: Tensor) -> Step:
        """Apply actions [num_envs, action_size] and take one picture of each world."""
        step = self._world.step(action)
        frame = self._draw()
        going_on = step.valid[:, None]
        older = torch.where(going_on, self._frames[:, frame.shape[1] :], frame.repeat(1, self._stack - 1))
        self._frames = torch.cat((older, frame), dim=1)
        return step._replace(obs=self._frames, next_obs=self._frames)

    def render(self) -> Any:
        """A picture of world 0 for people, [height, width, 3] uint8, as the worlds without `pictures` draw it."""
        return self._world.render()

    def state_dict(self) -> dict[str, Any] | None:
        """The worlds' state and the newest frames; None if the worlds cannot be saved."""
        worlds = self._world.state_dict()
        return None if worlds is None else {"worlds": worlds, "frames": self._frames.cpu().clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        self._world.load_state_dict(state["worlds"])
        self._frames = state["frames"].to(self.device)

    def close(self) -> None:
        """Release the worlds and what draws them."""
        self._painter.close()
        self._world.close()

    def _draw(self) -> Tensor:
        """The newest frames, flat: [num_envs, channels * size * size] uint8."""
        frames = torch.from_numpy(self._painter.draw()).to(self.device)
        return frames.permute(0, 3, 1, 2).flatten(1)
