"""An agent from a run folder, ready to act: what evaluation and export start from."""

import dataclasses
from pathlib import Path
from typing import Literal

from steelyard.agents.acting import ActingAgent
from steelyard.agents.types import Spec
from steelyard.trainers import checkpoint
from steelyard.trainers.builders import trained_spec
from steelyard.trainers.checkpoint import CheckpointError
from steelyard.trainers.config import Run

Which = Literal["last", "best"]


def restore(folder: Path, run: Run, spec: Spec, which: Which = "last") -> tuple[ActingAgent, int]:
    """The run's agent as a checkpoint left it, on the CPU and uncompiled, and the environment steps it had seen.

    `spec`: of worlds to act in, which need not show what randomisation showed to critics in training.

    Raises `CheckpointError` if there is no such checkpoint, or if it is damaged or another run's. Replay is not read.
    """
    checkpoints = folder / "checkpoints"
    path = checkpoints / "best" if which == "best" else checkpoint.latest(checkpoints)
    if path is None or not path.exists():
        raise CheckpointError(f"{checkpoints} has no {which} checkpoint yet; train the run for longer.")
    env_steps, state = checkpoint.load(path)
    execution = dataclasses.replace(run.execution, compile=False)
    num_envs = run.num_envs * max(run.actors, 1)
    spec = trained_spec(run, spec)
    agent = run.agent.build(spec, num_envs=num_envs, total_updates=run.total_updates, seed=run.seed, execution=execution)
    with checkpoint.fitting(path):
        agent.load_state_dict(state["agent"])
    return agent, env_steps
