"""`Run`: everything that determines a training run, as one frozen value that is saved beside its results."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from steelyard.agents import networks, parts
from steelyard.agents.agent import Execution
from steelyard.agents.errors import SteelyardError
from steelyard.agents.networks import heads, normalizers
from steelyard.agents.optimizer import Adam
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.trainers import samplers, schedules


class ConfigError(SteelyardError):
    """A run's configuration cannot be used. The message is one sentence that names the field and the remedy."""


@dataclass(frozen=True)
class Run:
    """One training run."""

    task: str
    """What to learn: a Gymnasium id (HalfCheetah-v5), a dm-control domain-task (walker-run) or a probe."""
    agent: SAC | TD3
    """The agent and the occupants of its slots."""
    preset: str
    """Name of the recipe; names the run's folder."""
    env_steps: int = 1_000_000
    """Length of the run in raw environment steps (decisions times action repeat)."""
    seed: int = 0
    """Seeds every random stream: weights, worlds, exploration, sampling; evaluation has seeds of its own."""
    num_envs: int = 1
    """Worlds stepped together."""
    vectorization: Literal["sync", "async", "batch"] = "sync"
    """How: one after the other, in a process each, or as `mujoco.batch` on all cores (the five Gymnasium locomotion tasks)."""
    action_repeat: int = 1
    """Environment steps per decision."""
    actors: int = 0
    """Processes that collect while the learner updates, each with `num_envs` worlds; 0 collects in the learner's process, which is deterministic."""
    random_steps: int = 5_000
    """Transitions collected with uniformly random actions before the first update."""
    schedule: schedules.FixedRatio = field(default_factory=schedules.FixedRatio)
    """How many updates per transition."""
    sampler: samplers.Uniform = field(default_factory=samplers.Uniform)
    """Which rows of replay to learn from."""
    capacity: int = 1_000_000
    """Transitions that replay holds."""
    evaluation_interval: int = 10_000
    """Environment steps between evaluations."""
    evaluation_episodes: int = 10
    """Episodes of an evaluation."""
    log_interval: int = 1_000
    """Environment steps between rows of train.csv."""
    checkpoint_interval: int = 20_000
    """Environment steps between checkpoints."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the agent lives and learns; auto takes a GPU if there is one."""
    threads: int = 0
    """CPU threads of an update; 0 measures one against all and keeps the faster."""
    execution: Execution = field(default_factory=Execution)
    """Precision and compilation of updates."""
    log_to: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    """Where numbers go besides CSV; wandb needs the extra of that name."""

    def __post_init__(self) -> None:
        for name in (
            "env_steps",
            "num_envs",
            "action_repeat",
            "evaluation_interval",
            "evaluation_episodes",
            "log_interval",
            "checkpoint_interval",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; give a positive number.")
        for name in ("actors", "random_steps", "threads", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; give zero or more.")
        agent = self.agent
        for name, fine, remedy in (
            ("critics", agent.critics >= 1, "give one, or two for clipped double Q"),
            ("n_step", agent.n_step >= 1, "give one or more"),
            ("batch_size", agent.batch_size >= 1, "give one or more"),
            (
                "discount",
                agent.discount is None or 0 <= agent.discount <= 1,
                "give a number from 0 to 1, or None to choose by the horizon",
            ),
            ("target_rate", 0 < agent.target_rate <= 1, "give a number above 0 and at most 1"),
            ("policy_delay", not isinstance(agent, TD3) or agent.policy_delay >= 1, "give one or more"),
        ):
            if not fine:
                raise ConfigError(f"agent.{name} is {getattr(agent, name)}; {remedy}.")

    @property
    def total_updates(self) -> int:
        """Updates of the whole run, over which learning rates decay."""
        transitions = max(self.env_steps // self.action_repeat - self.random_steps, 1)
        return max(int(transitions * self.schedule.ratio), 1)

    @property
    def torch_device(self) -> torch.device:
        """The device that `device` names on this machine. Raises `ConfigError` if it is missing."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device is cuda, but torch sees no GPU here; use --device cpu.")
        return torch.device("cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu")

    def folder(self, root: Path) -> Path:
        """Where the run's results lie below `root`."""
        return root / self.task.replace("/", "_").replace(":", "_") / self.preset / f"seed_{self.seed}"


def debug(run: Run) -> Run:
    """The same run shrunk to seconds: small networks and batches, eager, a few hundred steps."""

    def small(network: networks.Network) -> networks.Network:
        return (
            dataclasses.replace(network, hidden=(16,))
            if isinstance(network, networks.MLP)
            else dataclasses.replace(network, width=16, blocks=1)
        )

    agent = dataclasses.replace(run.agent, actor=small(run.agent.actor), critic=small(run.agent.critic), batch_size=16)
    return dataclasses.replace(
        run,
        agent=agent,
        preset=f"{run.preset}-debug",
        env_steps=300 * run.action_repeat,
        random_steps=100,
        capacity=10_000,
        evaluation_interval=150 * run.action_repeat,
        evaluation_episodes=1,
        log_interval=100 * run.action_repeat,
        checkpoint_interval=150 * run.action_repeat,
        threads=1,
        execution=dataclasses.replace(run.execution, compile=False),
    )


CLASSES = {
    kind.__name__ if kind is not parts.Uniform else "UniformWeighting": kind
    for kind in (
        Run,
        SAC,
        TD3,
        Execution,
        Adam,
        networks.MLP,
        networks.SimbaV2,
        heads.Scalar,
        heads.Categorical,
        heads.Gaussian,
        normalizers.RawObservations,
        normalizers.RunningNorm,
        normalizers.UnscaledRewards,
        normalizers.ReturnScale,
        parts.Squared,
        parts.Uniform,
        parts.Fixed,
        parts.NoModel,
        parts.NoIntervention,
        samplers.Uniform,
        schedules.FixedRatio,
    )
}
"""Every class that may stand in a saved configuration, by its tag."""
TAGS: dict[type, str] = {kind: tag for tag, kind in CLASSES.items()}


def to_plain(value: object) -> Any:
    """Nested dataclasses as dictionaries with a `class` tag, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": TAGS[type(value)], **fields}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    return value


def from_plain(value: Any) -> Any:
    """The inverse of `to_plain`. Raises `ConfigError` for an unknown class or field."""
    if isinstance(value, list):
        return tuple(from_plain(item) for item in value)
    if not isinstance(value, dict):
        return value
    tag = value.get("class")
    if tag not in CLASSES:
        raise ConfigError(
            f"the saved configuration names the class {tag!r}, which this version does not know; use the version that wrote it."
        )
    kind = CLASSES[tag]
    known = {f.name for f in dataclasses.fields(kind)}
    unknown = sorted(set(value) - known - {"class"})
    if unknown:
        raise ConfigError(
            f"the saved configuration has the field {tag}.{unknown[0]}, which this version does not know; use the version that wrote it."
        )
    return kind(**{name: from_plain(item) for name, item in value.items() if name != "class"})


def save(run: Run, path: Path) -> None:
    """Write the run's configuration as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_plain(run), indent=2) + "\n")


def load(path: Path) -> Run:
    """Read what `save` wrote. Raises `ConfigError` if the file is missing, no JSON, or not a run's configuration."""
    try:
        run = from_plain(json.loads(path.read_text()))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; give the folder of a run (runs/TASK/PRESET/seed_N).") from None
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no configuration of a run ({error}); restore it or start anew with --fresh.") from None
    if not isinstance(run, Run):
        raise ConfigError(f"{path} does not hold the configuration of a run; restore it or start anew with --fresh.")
    return run


def first_difference(old: object, new: object, name: str = "") -> str | None:
    """Dotted name of the first field in which two configurations differ, with both values; None if they are equal."""
    if type(old) is type(new) and dataclasses.is_dataclass(old):
        for f in dataclasses.fields(old):
            found = first_difference(getattr(old, f.name), getattr(new, f.name), f"{name}.{f.name}" if name else f.name)
            if found:
                return found
        return None
    return None if old == new else f"{name} ({old} before, {new} now)"
