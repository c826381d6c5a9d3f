"""Worlds to train in: `make` builds any of them under one contract, `VectorEnv`."""

import difflib
from typing import TYPE_CHECKING

import torch

from steelyard.envs.contract import check_contract
from steelyard.envs.gl import check_backend, choose_backend
from steelyard.envs.pixels import Pictures, PixelEnv
from steelyard.envs.randomization import Randomization
from steelyard.envs.vector import EnvError, VectorEnv

if TYPE_CHECKING:
    from steelyard.envs.dmc_envs import DmcEnv
    from steelyard.envs.gym_envs import GymEnv

__all__ = ["EnvError", "Pictures", "Randomization", "VectorEnv", "check_contract", "known_tasks", "make", "shown_factors"]

VECTORIZATIONS = ("sync", "async", "batch", "warp")

choose_backend()  # before any adapter imports MuJoCo


def make(
    task: str,
    num_envs: int,
    *,
    action_repeat: int = 1,
    vectorization: str = "sync",
    device: torch.device | str = "cpu",
    render_size: int | None = None,
    pictures: Pictures | None = None,
    distractors: int = 0,
    threads: int = 0,
    staggered: bool = False,
    randomization: Randomization | None = None,
) -> VectorEnv:
    """`num_envs` worlds of `task`.

    `task`: a Gymnasium id ("HalfCheetah-v5", or "module:id" to import the module that registers it), a dm-control
    "domain-task" ("walker-run", "ball_in_cup-catch"), one of D4RL's AntMaze and kitchen environments ("antmaze-umaze-v2"), a game of MinAtar
    ("minatar-breakout"), or a probe ("probe-constant").
    `action_repeat`: environment steps per decision; rewards are summed, and a repetition stops where its episode ends.
    `vectorization`: "sync" steps the worlds one after the other, "async" steps Gymnasium's in processes of their own,
    "batch" steps many worlds on threads (the tasks of `steelyard.envs.tasks.TASKS`), or as tensors on `device` (MinAtar's games), "warp" steps
    thousands on `device`, a GPU or the CPU (the same tasks; extra `gpu`).
    `device`: where observations and rewards go. `render_size`: height and width in pixels of what `render` draws; None: the world's own.
    `pictures`: observations are pictures, as uint8, and not the world's own (dm-control, and Gymnasium's worlds that draw themselves).
    `distractors`: numbers appended to the observation that nothing depends on (`Distracted`).
    `threads`: of "batch" vectorization on a CPU; 0 for as many as the machine has.
    `staggered`: first episodes are cut at different times, so that worlds do not end together ("batch" and "warp"; not for evaluation).
    `randomization`: how the worlds' masses, friction and the like differ from the model ("batch" and "warp").

    Raises `EnvError` for an unknown task, with suggestions, and for a combination that does not exist.
    """
    if distractors and pictures:
        raise EnvError(f"{task}: distractors are appended to numbers, and pictures were asked for; choose one of the two.")
    if distractors:
        from steelyard.envs.distractors import Distracted

        options = {"action_repeat": action_repeat, "vectorization": vectorization, "device": device, "render_size": render_size}
        world = make(task, num_envs, **options, threads=threads, staggered=staggered, randomization=randomization)
        return Distracted(world, distractors)
    if num_envs < 1 or action_repeat < 1 or (render_size is not None and render_size < 1):
        raise EnvError(f"{task}: num_envs, action_repeat and render_size must be at least 1.")
    if vectorization not in VECTORIZATIONS:
        raise EnvError(f"{task}: vectorization {vectorization!r} is unknown; choose one of {', '.join(VECTORIZATIONS)}.")
    if pictures is not None:
        _require_drawable(task, vectorization)
    many = {"action_repeat": action_repeat, "device": device, "render_size": render_size}
    many |= {"staggered": staggered, "randomization": randomization}
    if (staggered or randomization) and (vectorization not in ("batch", "warp") or task.startswith("minatar-")):
        raise EnvError(
            f"{task}: staggered episodes and randomization need vectorization='batch' or 'warp', and one of {', '.join(_batched())}."
        )
    if vectorization == "warp":
        check_backend()
        from steelyard.envs.warp_envs import WarpEnv

        return WarpEnv(_require_batched(task, vectorization), num_envs, **many)
    if task.startswith("probe-"):
        return _make_probe(task, num_envs, action_repeat, vectorization, device)
    if task.startswith("minatar-"):
        return _make_minatar(task, num_envs, action_repeat, vectorization, device, render_size)
    check_backend()
    if vectorization == "batch":
        from steelyard.envs.batch_envs import BatchEnv

        return BatchEnv(_require_batched(task, vectorization), num_envs, threads=threads, **many)
    # Adapters are imported when they are needed: dm-control alone takes a second.
    if _is_gymnasium(task):
        if pictures is None:
            return _make_gymnasium(task, num_envs, action_repeat, vectorization, device, render_size)
        from steelyard.envs.gym_envs import GymEnv

        world = GymEnv(task, num_envs, action_repeat=action_repeat, device=device, render_size=render_size, pictures=pictures)
        return _seen(world, pictures)
    from steelyard.envs.dmc_envs import DmcEnv, canonical_name

    if canonical_name(task) is None:
        raise EnvError(f"there is no task {task!r}; {_suggestion(task)}")
    if vectorization != "sync":
        raise EnvError(f"{task}: dm-control's worlds have no {vectorization!r} vectorization; use vectorization='sync'.")
    world = DmcEnv(task, num_envs, action_repeat=action_repeat, device=device, render_size=render_size)
    return world if pictures is None else _seen(world, pictures)


def shown_factors(task: str, randomization: Randomization) -> int:
    """How many numbers `randomization` puts behind observations of `task`, for critics to see."""
    from steelyard.envs.tasks import build

    built = build(_require_batched(task, "batch"))
    factors = randomization.for_critics(task, built.model, torch.zeros(1, dtype=torch.int64))
    return 0 if factors is None else factors.shape[1]


def known_tasks() -> list[str]:
    """Every task id that `make` takes, sorted, but for those that only a user's module registers.

    Gymnasium's ids are listed as they are registered; those whose actions are neither a box of floats nor choices are refused when they are made.
    """
    import gymnasium as gym

    from steelyard.envs.d4rl_worlds import WORLDS
    from steelyard.envs.dmc_envs import TASKS
    from steelyard.envs.minatar import GAMES
    from steelyard.envs.probes import PROBES

    # Versions that moved to other packages are registered with a function that says so in place of a class.
    present = [task for task, spec in gym.registry.items() if isinstance(spec.entry_point, (str, type))]
    return sorted({*present, *TASKS, *GAMES, *PROBES, *WORLDS})


def _batched() -> list[str]:
    from steelyard.envs.tasks import TASKS

    return list(TASKS)


def _require_batched(task: str, vectorization: str) -> str:
    """The name under which `task` has a batched form. Raises `EnvError` if it has none."""
    names = {name.replace("_", "-"): name for name in _batched()}
    if task.replace("_", "-") in names:
        return names[task.replace("_", "-")]
    if task not in known_tasks():
        raise EnvError(f"there is no task {task!r}; {_suggestion(task)}")
    raise EnvError(f"{task} has no {vectorization} form; use vectorization='sync', or one of {', '.join(_batched())}.")


def _require_drawable(task: str, vectorization: str) -> None:
    for prefix, kind in (("probe-", "probes"), ("minatar-", "MinAtar's games")):
        if task.startswith(prefix):
            raise EnvError(f"{task}: {kind} have no pictures to learn from; leave pictures out, or choose a dm-control task.")
    if vectorization != "sync":
        raise EnvError(
            f"{task}: with pictures there is no {vectorization!r} vectorization; use 'sync', and actors for more processes."
        )


def _seen(world: "DmcEnv | GymEnv", pictures: Pictures) -> VectorEnv:
    """`world` with pictures for observations; closed if that is refused."""
    try:
        return PixelEnv(world, pictures, world.painter(pictures))
    except EnvError:
        world.close()
        raise


def _is_gymnasium(task: str) -> bool:
    import gymnasium as gym

    from steelyard.envs.atari import is_atari
    from steelyard.envs.gym_worlds import is_robotics

    return ":" in task or task in gym.registry or is_robotics(task) or is_atari(task)


def _make_gymnasium(
    task: str, num_envs: int, action_repeat: int, vectorization: str, device: torch.device | str, render_size: int | None
) -> VectorEnv:
    from steelyard.envs.gym_envs import GymEnv

    asynchronous = vectorization == "async"
    return GymEnv(task, num_envs, action_repeat=action_repeat, asynchronous=asynchronous, device=device, render_size=render_size)


def _make_probe(task: str, num_envs: int, action_repeat: int, vectorization: str, device: torch.device | str) -> VectorEnv:
    from steelyard.envs.probes import PROBES

    if task not in PROBES:
        raise EnvError(f"there is no task {task!r}; the probes are {', '.join(PROBES)}.")
    if action_repeat != 1 or vectorization != "sync":
        raise EnvError(f"{task}: probe worlds are batched already; use action_repeat=1 and vectorization='sync'.")
    return PROBES[task](num_envs, device=device)


def _make_minatar(
    task: str, num_envs: int, action_repeat: int, vectorization: str, device: torch.device | str, render_size: int | None
) -> VectorEnv:
    from steelyard.envs.minatar import GAMES

    if task not in GAMES:
        raise EnvError(f"there is no task {task!r}; the games of MinAtar are {', '.join(GAMES)}.")
    if action_repeat != 1:
        raise EnvError(f"{task}: every frame of MinAtar's games is a decision; use action_repeat=1.")
    if vectorization == "batch":
        from steelyard.envs.minatar.batch import MinAtarBatch

        return MinAtarBatch(task, num_envs, device=device, render_size=render_size)
    if vectorization != "sync":
        raise EnvError(f"{task}: MinAtar's games have no {vectorization!r} vectorization; use 'sync' or 'batch'.")
    from steelyard.envs.minatar_envs import MinAtarEnv

    return MinAtarEnv(task, num_envs, device=device, render_size=render_size)


def _suggestion(task: str) -> str:
    known = known_tasks()
    folded = {name.lower(): name for name in known}
    close = [folded[name] for name in difflib.get_close_matches(task.lower().replace("_", "-"), folded, n=3, cutoff=0.6)]
    if close:
        return f"did you mean {' or '.join(close)}?"
    return "name a Gymnasium id (HalfCheetah-v5), a dm-control task (walker-run) or module:id for your own."
