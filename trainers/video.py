"""One episode as an MP4 file."""

import os
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import torch
from numpy.typing import NDArray

from steelyard.agents.errors import SteelyardError
from steelyard.envs.vector import EnvError, VectorEnv
from steelyard.trainers.evaluation import LONGEST_EPISODE, Actor, evaluation_seed


class VideoError(SteelyardError):
    """No video can be made here. Training and evaluation do not depend on it: catch this and go on."""


@torch.no_grad()
def film(agent: Actor, env: VectorEnv, path: Path, seed: int, *, every: int = 1, frames_per_second: int = 30) -> Path:
    """Plays one deterministic episode in world 0 and writes what it looks like to `path` (H.264, even width and height).

    It is the first episode that `evaluate` plays with this `seed`. Each `every`-th decision is a frame, which shows the state in
    which the decision is taken. The file appears when it is complete.

    Raises `VideoError` if the machine cannot draw (no OpenGL) or cannot encode (no ffmpeg).
    """
    obs = env.reset(evaluation_seed(seed))
    frame = _first_frame(env)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part.mp4")
    try:
        writer = imageio.get_writer(
            part,
            format="FFMPEG",
            fps=frames_per_second,
            codec="libx264",
            quality=7,
            macro_block_size=2,  # pyright: ignore
        )
    except (ImportError, OSError, ValueError) as error:
        raise VideoError(f"no video encoder is at hand ({error}); run `pip install 'imageio[ffmpeg]'`.") from error
    with writer:
        writer.append_data(_even(frame))
        for decision in range(1, env.spec.horizon or LONGEST_EPISODE):
            step = env.step(agent.act(obs.to(agent.device), explore=False).to(env.device))
            if step.valid[0] and (step.terminated[0] or step.truncated[0]):
                break
            obs = step.obs
            if decision % every == 0:
                writer.append_data(_even(env.render()))
    os.replace(part, path)
    return path


def _first_frame(env: VectorEnv) -> NDArray[np.uint8]:
    import mujoco  # here, because it loads OpenGL as it is imported

    # Only here does a missing OpenGL show; mujoco's own error is what glfw raises without a display.
    try:
        return env.render()
    except (EnvError, mujoco.FatalError) as error:  # pyright: ignore[reportAttributeAccessIssue]
        raise VideoError(f"no video: {' '.join(str(error).split())}") from error


def _even(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """H.264 stores colour at half resolution, so an odd last row or column is cut."""
    height, width = frame.shape[:2]
    return frame[: height - height % 2, : width - width % 2]
