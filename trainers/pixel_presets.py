"""Recipes for pixels: DrQ-v2 for each class of the dm-control suite, and DrQ(epsilon) for games.

Sources: DrQ-v2 (Yarats et al. 2021, arXiv 2107.09645) and its released configuration; DrQ(epsilon) (Agarwal et al. 2021) with the
hyperparameters of Dopamine.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

from steelyard.agents.dqn import DQN
from steelyard.agents.drqv2 import DrQV2
from steelyard.agents.networks import MLP, Bottleneck
from steelyard.agents.networks.augmentation import RandomShift
from steelyard.agents.networks.encoders import ATARI, PictureEncoder
from steelyard.agents.networks.greedy import EpsilonGreedy
from steelyard.agents.networks.scheduled_noise import ScheduledNoise
from steelyard.agents.optimizer import Adam
from steelyard.envs import Pictures
from steelyard.trainers.adaptive_ratio import AdaptiveRatio
from steelyard.trainers.config import Run
from steelyard.trainers.schedules import FixedRatio

EASY = (
    "cartpole-balance",
    "cartpole-balance_sparse",
    "cartpole-swingup",
    "ball_in_cup-catch",
    "finger-spin",
    "hopper-stand",
    "pendulum-swingup",
    "walker-stand",
    "walker-walk",
)
MEDIUM = (
    "acrobot-swingup",
    "cartpole-swingup_sparse",
    "cheetah-run",
    "finger-turn_easy",
    "finger-turn_hard",
    "hopper-hop",
    "quadruped-walk",
    "quadruped-run",
    "reacher-easy",
    "reacher-hard",
    "walker-run",
)
HARD = ("humanoid-stand", "humanoid-walk", "humanoid-run")
LENGTHS = {"easy": (1_000_000, 100_000), "medium": (3_000_000, 500_000), "hard": (30_000_000, 2_000_000)}
"""Of each class, frames, and transitions over which the noise falls."""


def drq_v2(task: str, frames: int, decay_steps: int) -> Run:
    """What all classes have in common: two frames a decision, an update for every second decision."""
    return Run(
        task,
        DrQV2(noise=ScheduledNoise(decay_steps=decay_steps)),
        "drq-v2",
        pictures=Pictures(),
        env_steps=frames,
        action_repeat=2,
        random_steps=2_000,
        schedule=FixedRatio(0.5),
        evaluation_interval=10_000,
        checkpoint_interval=100_000,
    )


def of_class(kind: str, task: str) -> Run:
    """The released configuration of a class, with what the release has for this task alone.

    Walkers look one step ahead with batches of 512, the humanoid learns more slowly through a wider bottleneck, and quadruped-run keeps 100,000
    transitions.
    """
    run = drq_v2(task, *LENGTHS[kind])
    if is_one_of(task, HARD):
        wide = Bottleneck(features=100)
        return change(run, actor=wide, critic=wide, optimizer=Adam(8e-5))
    if task.startswith("walker"):
        return change(run, n_step=1, batch_size=512)
    return dataclasses.replace(run, capacity=100_000) if is_one_of(task, ("quadruped-run",)) else run


def of_task(task: str) -> Run:
    """The released configuration for a task of the suite; tasks of no class count as medium."""
    return of_class("easy" if is_one_of(task, EASY) else "hard" if is_one_of(task, HARD) else "medium", task)


def adaptive(task: str) -> Run:
    """The same with an adaptive ratio of updates."""
    return dataclasses.replace(of_task(task), schedule=AdaptiveRatio())


def is_one_of(task: str, names: tuple[str, ...]) -> bool:
    """Whether a task is among the named; published tables write hyphens for underscores."""
    return task.replace("_", "-") in {name.replace("_", "-") for name in names}


def change(run: Run, **fields: object) -> Run:
    """The run with other hyperparameters of its agent."""
    return dataclasses.replace(run, agent=dataclasses.replace(run.agent, **fields))


SMALL = change(
    dataclasses.replace(
        drq_v2("cartpole-swingup", 100_000, 10_000),
        preset="drq-v2-small",
        pictures=Pictures(size=48, rendering="fast"),
        action_repeat=4,
        random_steps=500,
        capacity=100_000,
        evaluation_episodes=5,
        evaluation_interval=20_000,
    ),
    encoder=PictureEncoder((16, 16, 16, 16)),
    actor=Bottleneck(hidden=(256, 256)),
    critic=Bottleneck(hidden=(256, 256)),
    augmentation=RandomShift(3),
    batch_size=64,
)
"""DrQ-v2 for a small CPU: small pictures, drawn fast, and small networks."""

DRQ_EPSILON = Run(
    "ALE/Pong-v5",
    DQN(
        encoder=ATARI,
        augmentation=RandomShift(4, intensity=0.05),
        critic=MLP((512,)),
        double=True,
        dueling=True,
        n_step=10,
        target_period=1,
        exploration=EpsilonGreedy(end=0.01, decay_steps=5_000),
        optimizer=Adam(1e-4, epsilon=1.5e-4),
        batch_size=32,
    ),
    "drq-eps",
    pictures=Pictures(stack=4),
    env_steps=400_000,
    action_repeat=4,
    random_steps=1_600,
    schedule=FixedRatio(1.0),
    evaluation_interval=80_000,
    checkpoint_interval=80_000,
)
"""DrQ(epsilon) with the 100,000 decisions of Atari-100k, of four frames each.

Not as in Dopamine: sticky actions stay on, losing a life ends nothing, and evaluations are greedy, of ten episodes, where there
one action in a thousand is random and a hundred are played."""

BY_TASK: Mapping[str, tuple[str, Callable[[str], Run]]] = {
    "drq-v2-easy": ("cartpole-swingup", functools.partial(of_class, "easy")),
    "drq-v2-medium": ("cheetah-run", functools.partial(of_class, "medium")),
    "drq-v2-hard": ("humanoid-walk", functools.partial(of_class, "hard")),
    "drq-v2-walker-walk": ("walker-walk", of_task),
    "drq-v2-walker-run": ("walker-run", of_task),
    "drq-v2-quadruped-run": ("quadruped-run", of_task),
    "drq-v2-adaptive": ("quadruped-run", adaptive),
}
"""Recipes that depend on the task: the task unless named, and what makes the recipe."""


def for_task(name: str, task: str) -> Run:
    """The recipe called `name`, for another task than its own."""
    if name not in BY_TASK:
        return dataclasses.replace(PIXELS[name], task=task)
    return dataclasses.replace(BY_TASK[name][1](task), preset=name)


PIXELS: Mapping[str, Run] = {
    **{name: for_task(name, task) for name, (task, _) in BY_TASK.items()},
    "drq-v2-small": SMALL,
    "drq-eps": DRQ_EPSILON,
}
"""Recipes for pixels. The classes of tasks are `EASY`, `MEDIUM` and `HARD`."""
