"""Tasks that many worlds at once can have, on CPU threads (`BatchEnv`) or on a device (`WarpEnv`): observations, rewards, ends and starts."""

from collections.abc import Callable

from steelyard.envs.tasks.cartpole import Balance, BalanceSparse, SwingUp, SwingUpSparse
from steelyard.envs.tasks.humanoid import HumanoidRun, HumanoidStand, HumanoidWalk
from steelyard.envs.tasks.locomotion import LOCOMOTION
from steelyard.envs.tasks.planar import CheetahRun, HopperHop, HopperStand, WalkerRun, WalkerStand, WalkerWalk
from steelyard.envs.tasks.reacher import ReacherEasy, ReacherHard
from steelyard.envs.tasks.rewards import tolerance
from steelyard.envs.tasks.task import State, Task
from steelyard.envs.vector import EnvError

__all__ = ["LOCOMOTION", "SUITE", "TASKS", "State", "Task", "build", "tolerance"]

SUITE: dict[str, Callable[[str], Task]] = {
    "cartpole-balance": Balance,
    "cartpole-balance_sparse": BalanceSparse,
    "cartpole-swingup": SwingUp,
    "cartpole-swingup_sparse": SwingUpSparse,
    "cheetah-run": CheetahRun,
    "hopper-hop": HopperHop,
    "hopper-stand": HopperStand,
    "humanoid-run": HumanoidRun,
    "humanoid-stand": HumanoidStand,
    "humanoid-walk": HumanoidWalk,
    "reacher-easy": ReacherEasy,
    "reacher-hard": ReacherHard,
    "walker-run": WalkerRun,
    "walker-stand": WalkerStand,
    "walker-walk": WalkerWalk,
}
"""Tasks of the dm-control suite, by `domain-task`."""
TASKS: dict[str, Callable[[str], Task]] = {**LOCOMOTION, **SUITE}
"""Every task that has a batched form."""


def build(task: str | Task) -> Task:
    """The task of that name, or `task` itself if it is one. Raises `EnvError` with the list if there is no such task."""
    if isinstance(task, Task):
        return task
    if task not in TASKS:
        raise EnvError(f"{task} has no batched form; use vectorization='sync', or one of {', '.join(TASKS)}.")
    return TASKS[task](task)
