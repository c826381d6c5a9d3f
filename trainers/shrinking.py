"""What `--debug` makes of a run: the same with everything small."""

import dataclasses
from typing import Any, TypeVar

from steelyard.agents import networks, parts
from steelyard.agents.networks import encoders
from steelyard.trainers import schedules
from steelyard.trainers.config import Run, Transfer
from steelyard.trainers.imagination import Rollouts

RunType = TypeVar("RunType", bound=Run)

DEBUG_WORLDS = 16
"""Worlds of a shrunk run, at most."""


def debug(run: RunType) -> RunType:
    """The same run shrunk to seconds: small networks, batches and pictures, eager, a few hundred steps."""
    agent = dataclasses.replace(small(run.agent), batch_size=16)
    if run.num_envs > DEBUG_WORLDS:  # as many decisions of few worlds as other runs have of one
        run = dataclasses.replace(run, num_envs=DEBUG_WORLDS, agent=agent, capacity=10_000)
    shrunk: dict[str, Any] = {
        "agent": agent,
        "preset": f"{run.preset}-debug",
        "env_steps": min(300 * run.action_repeat, run.env_steps),
        "random_steps": min(100, run.random_steps),
        "capacity": 10_000,
        "evaluation_interval": 150 * run.action_repeat,
        "evaluation_episodes": 1,
        "log_interval": 100 * run.action_repeat,
        "checkpoint_interval": 150 * run.action_repeat,
        "transfer_episodes": min(1, run.transfer_episodes),
        "meter_interval": min(150 * run.action_repeat, run.meter_interval),
        "threads": 1,
        "execution": dataclasses.replace(run.execution, compile=False),
    }
    if run.pictures is not None:
        shrunk["pictures"] = dataclasses.replace(run.pictures, size=min(24, run.pictures.size))
    if isinstance(run.imagination, Rollouts):
        rollouts, batch = (40, 20) if run.imagination.rollouts else (0, 20)
        shrunk["imagination"] = dataclasses.replace(run.imagination, fit_interval=100, rollouts=rollouts, batch=batch)
        shrunk["schedule"] = schedules.FixedRatio(1.0)
    if isinstance(run, Transfer):
        shrunk |= {"offline_updates": min(200, run.offline_updates), "frozen_steps": min(50, run.frozen_steps)}
    return dataclasses.replace(run, **shrunk)


def small(value: Any) -> Any:
    """A configuration with every network in it shrunk."""
    if isinstance(value, networks.MLP):
        return dataclasses.replace(value, hidden=(16,))
    if isinstance(value, parts.Ensemble):
        return dataclasses.replace(value, members=3, elites=2, hidden=(16,), epochs=3, weight_decay=value.weight_decay[:1])
    if isinstance(value, networks.SimbaV2):
        return dataclasses.replace(value, width=16, blocks=1)
    if isinstance(value, networks.Convolution):
        return dataclasses.replace(value, channels=(4,), hidden=(16,))
    if isinstance(value, networks.Bottleneck):
        return dataclasses.replace(value, features=8, hidden=(16,))
    if isinstance(value, encoders.PictureEncoder):
        return dataclasses.replace(value, channels=(4, 4), kernels=(3, 3), strides=(2, 1))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{f.name: small(getattr(value, f.name)) for f in dataclasses.fields(value)})
    return value
