"""Atari 2600 games through the Arcade Learning Environment, as agents of pixels see them (Machado et al. 2018)."""

import importlib

import gymnasium as gym

from steelyard.envs.vector import EnvError

LONGEST_GAME = 108_000
"""Frames after which the emulator ends a game, half an hour of it."""


def is_atari(task: str) -> bool:
    """Whether this id is a game of the Arcade Learning Environment, such as `ALE/Pong-v5`."""
    return task.startswith("ALE/")


def register(task: str) -> None:
    """Let Gymnasium know the games. Raises `EnvError` if the package is not there."""
    try:
        ale_py = importlib.import_module("ale_py")
    except ModuleNotFoundError:
        raise EnvError(f"{task} is an Atari game; install what plays it: pip install 'steelyard[atari]'.") from None
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    gym.register_envs(ale_py)


def preprocessed(task: str, env: gym.Env, frame_skip: int, size: int) -> gym.Env:
    """Grey pictures [size, size], each the brighter of the last two of `frame_skip` frames; an episode begins with up to 30 idle frames.

    Losing a life ends nothing. Raises `EnvError` if a package is missing.
    """
    try:
        return gym.wrappers.AtariPreprocessing(env, frame_skip=frame_skip, screen_size=size)
    except gym.error.DependencyNotInstalled:
        raise EnvError(f"{task}: pictures of Atari are scaled by OpenCV; install it: pip install 'steelyard[atari]'.") from None
