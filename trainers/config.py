"""`Run`: everything that determines a training run, as one frozen value that is saved beside its results."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from steelyard.agents import networks, parts
from steelyard.agents.agent import Execution
from steelyard.agents.awac import AWAC
from steelyard.agents.bc import BC
from steelyard.agents.cql import CQL
from steelyard.agents.dqn import DQN
from steelyard.agents.drqv2 import DrQV2
from steelyard.agents.errors import SteelyardError
from steelyard.agents.iql import IQL
from steelyard.agents.networks import encoders, normalizers
from steelyard.agents.networks.exploration import HeldNoise, NoiseRange
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.envs.pixels import Pictures
from steelyard.envs.randomization import Randomization
from steelyard.trainers import samplers, schedules
from steelyard.trainers.adaptive_ratio import AdaptiveRatio
from steelyard.trainers.collecting import CollectingSlot, LocalProcesses
from steelyard.trainers.evaluation import FRESH_SEEDS
from steelyard.trainers.imagination import ImaginationSlot, NoImagination, Rollouts
from steelyard.trainers.replays import Anew, Mixed, Together
from steelyard.trainers.trajectory_samplers import TopFraction, TrajectoryWeighted


class ConfigError(SteelyardError):
    """A run's configuration cannot be used. The message is one sentence that names the field and the remedy."""


ScheduleSlot = schedules.FixedRatio | schedules.PerStep | AdaptiveRatio | schedules.Priming
SamplerSlot = samplers.Uniform | TrajectoryWeighted | TopFraction

AGENT_RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("critics", lambda value: value >= 1, "give one, or two for clipped double Q"),
    ("n_step", lambda value: value >= 1, "give one or more"),
    ("batch_size", lambda value: value >= 1, "give one or more"),
    ("discount", lambda value: 0 <= value <= 1, "give a number from 0 to 1, or None to choose by the horizon"),
    ("target_rate", lambda value: 0 < value <= 1, "give a number above 0 and at most 1"),
    ("policy_delay", lambda value: value >= 1, "give one or more"),
    ("target_delay", lambda value: value >= 1, "give one or more"),
    ("expectile", lambda value: 0 < value < 1, "give a number between 0 and 1"),
    ("samples", lambda value: value >= 1, "give one or more"),
    ("target_period", lambda value: value >= 1, "give one or more"),
    ("initial_temperature", lambda value: 0 < value < math.inf, "give a positive number"),
    ("exploration_noise", lambda value: value >= 0, "give zero or more"),
    ("target_noise", lambda value: value >= 0, "give zero or more"),
    ("target_noise_clip", lambda value: value >= 0, "give zero or more"),
    ("target_subset", lambda value: value >= 1, "give one or more, or None for all critics"),
)
"""Hyperparameters that agents may have: name, whether a value is possible, and what to give instead."""

NEEDS_DATA: tuple[tuple[str, type, str], ...] = (
    ("observations", normalizers.DatasetNorm, "agent.observations:running-norm"),
    ("rewards", normalizers.ReturnRange, "agent.rewards:return-scale"),
    ("calibration", parts.ReturnBound, "agent.calibration:uncalibrated"),
)
"""What only a run that begins with data can have in the slots of its agent: slot, occupant, and another for the slot."""


@dataclass(frozen=True)
class Run:
    """One training run."""

    task: str
    """What to learn: a Gymnasium id (HalfCheetah-v5), a dm-control domain-task (walker-run) or a probe."""
    agent: SAC | TD3 | BC | IQL | AWAC | CQL | DQN | DrQV2
    """The agent and the occupants of its slots."""
    preset: str
    """Name of the recipe; names the run's folder."""
    env_steps: int = 1_000_000
    """Length of the run in raw environment steps (decisions times action repeat)."""
    seed: int = 0
    """Seeds every random stream: weights, worlds, exploration, sampling; evaluation has seeds of its own."""
    num_envs: int = 1
    """Worlds stepped together."""
    vectorization: Literal["sync", "async", "batch", "warp"] = "sync"
    """How: one after the other, in a process each, as `mujoco.batch` on all cores, or by mujoco-warp on the learner's device, from whose memory no
    transition then leaves (extra gpu)."""
    action_repeat: int = 1
    """Environment steps per decision."""
    pictures: Pictures | None = None
    """What the agent sees if it learns from pixels; None: the task's own observations."""
    distractors: int = 0
    """Numbers appended to each observation that move chaotically and that nothing depends on (VaGraM's test of models): 0, 5, 10, 15."""
    randomization: Randomization | None = None
    """How the worlds of training differ from the model in masses, friction and the like (`batch` and `warp`); those of evaluation never do."""
    actors: int = 0
    """Processes that collect while the learner updates, each with `num_envs` worlds; 0 collects in the learner's process, which is deterministic."""
    collecting: CollectingSlot = field(default_factory=LocalProcesses)
    """Where the actors live: in processes of this machine, or, through Ray, on others too."""
    random_steps: int = 5_000
    """Transitions collected before the first update."""
    first_actions: Literal["uniform", "policy"] = "uniform"
    """Actions of these transitions: uniformly random, or drawn from the policy, which is untrained then unless data came first."""
    acting: Literal["sampled", "mode"] = "sampled"
    """Actions after them: drawn from the policy, or its mode (mbrl-lib and VaGraM, whose exploration is in the model)."""
    schedule: ScheduleSlot = field(default_factory=schedules.FixedRatio)
    """How many updates per transition."""
    sampler: SamplerSlot = field(default_factory=samplers.Uniform)
    """Which rows of replay to learn from."""
    imagination: ImaginationSlot = field(default_factory=NoImagination)
    """Whether the agent's model is fitted and imagined with, and how that comes into batches."""
    capacity: int = 1_000_000
    """Transitions that replay holds, the end of an episode counted as one more."""
    evaluation_interval: int = 10_000
    """Environment steps between evaluations."""
    evaluation_episodes: int = 10
    """Episodes of an evaluation."""
    transfer_episodes: int = 0
    """Episodes in which the last and the best policy are scored on the published simulator (`sync`) when the run has ended, for runs whose own worlds
    are another; 0 for none."""
    log_interval: int = 1_000
    """Environment steps between rows of train.csv."""
    checkpoint_interval: int = 20_000
    """Environment steps between checkpoints."""
    meter_interval: int = 0
    """Environment steps (offline: updates) between measurements of the networks' units, ranks, norms and singular values, which train.csv gets as
    `meter/...`; 0 for none. One takes as long as a few eager updates and changes nothing."""
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
            "num_envs",
            "action_repeat",
            "capacity",
            "evaluation_interval",
            "evaluation_episodes",
            "log_interval",
            "checkpoint_interval",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; give a positive number.")
        for name in ("actors", "distractors", "random_steps", "threads", "seed", "meter_interval", "transfer_episodes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; give zero or more.")
        if self.preset in ("", ".", "..") or set(self.preset) & set("/\\\0"):
            raise ConfigError(f"preset is {self.preset!r}, which names the run's folder; give a word without slashes.")
        if self.seed >= FRESH_SEEDS:
            raise ConfigError(f"seed is {self.seed}; give a number below {FRESH_SEEDS}.")
        self.check_length()
        self.check_model()
        self.check_worlds()
        for name, fine, remedy in AGENT_RULES:
            value = getattr(self.agent, name, None)
            if value is not None and not fine(value):
                raise ConfigError(f"agent.{name} is {value}; {remedy}.")

    def check_model(self) -> None:
        """Raises `ConfigError` for a model that nothing fits, imagination without a model, or what actors in other processes cannot do."""
        modelled = isinstance(getattr(self.agent, "model", None), parts.Ensemble)
        if modelled != isinstance(self.imagination, Rollouts):
            given, missing = ("agent.model", "imagination:rollouts") if modelled else ("imagination", "agent.model:ensemble")
            raise ConfigError(f"{given} is given without what it needs; add {missing}, or leave it out.")
        if not self.actors and self.collecting != LocalProcesses():
            raise ConfigError(f"collecting is {type(self.collecting).__name__}, but actors is 0; say how many with --actors.")
        if self.actors and (self.first_actions, self.acting) != ("uniform", "sampled"):
            raise ConfigError("actors in other processes begin with uniform actions and then draw the policy's; use --actors 0.")

    def check_worlds(self) -> None:
        """Raises `ConfigError` for worlds that cannot be had in this way, and for replay too small for their number."""
        if self.randomization is not None and self.vectorization not in ("batch", "warp"):
            raise ConfigError("randomization is given, and only many worlds at once differ; use --vectorization warp or batch.")
        if self.vectorization == "warp":
            for name, given in (
                ("pictures", self.pictures is not None),
                ("distractors", self.distractors),
                ("actors", self.actors),
            ):
                if given:
                    raise ConfigError(
                        f"{name} are given, which worlds on the learner's device do not have; use --vectorization sync."
                    )
        exploration = getattr(self.agent, "exploration", None)
        if self.actors and isinstance(exploration, NoiseRange | HeldNoise):
            raise ConfigError(
                f"agent.exploration is {type(exploration).__name__}, and actors in other processes keep no noise of each world; use --actors 0."
            )
        n_step, worlds = getattr(self.agent, "n_step", 1), self.num_envs * max(self.actors, 1)
        if worlds > 1 and self.capacity < worlds * (n_step + 1):
            raise ConfigError(
                f"capacity is {self.capacity:,}, less than n_step + 1 = {n_step + 1} transitions of each of {worlds:,} worlds; "
                f"give at least {worlds * (n_step + 1):,}, or fewer worlds."
            )
        stored = min(self.capacity, self.env_steps // self.action_repeat)
        if self.resident and self.agent.batch_size > stored:
            raise ConfigError(
                f"agent.batch_size is {self.agent.batch_size:,}, and replay never holds more than {stored:,} transitions; "
                "give a smaller batch, more env_steps or a larger capacity."
            )

    def check_length(self) -> None:
        """Raises `ConfigError` for a run without steps, or an agent that learns from a data set in a run that has none."""
        if self.env_steps < 1:
            raise ConfigError(f"env_steps is {self.env_steps}; give a positive number.")
        for name, kind, remedy in NEEDS_DATA:
            if isinstance(getattr(self.agent, name, None), kind):
                raise ConfigError(
                    f"agent.{name} is {kind.__name__}, which takes its numbers from a data set, and this run has none; "
                    f"use {remedy}, or train from data (train_d4rl.py)."
                )

    @property
    def total_updates(self) -> int:
        """Updates of the whole run, over which learning rates decay."""
        transitions = max(self.env_steps // self.action_repeat - self.waiting_steps, 1)
        return self.schedule.expected(transitions, self.num_envs * max(self.actors, 1))

    @property
    def uniform_steps(self) -> int:
        """Transitions collected with uniformly random actions."""
        return self.random_steps if self.first_actions == "uniform" else 0

    @property
    def explored_steps(self) -> float:
        """Transitions after which the policy's mode acts."""
        return math.inf if self.acting == "sampled" else self.waiting_steps

    @property
    def waiting_steps(self) -> int:
        """Transitions collected before the first update from new ones."""
        return self.random_steps

    @property
    def total_steps(self) -> int:
        """Where the run ends: environment steps."""
        return self.env_steps

    @property
    def evaluation_vectorization(self) -> Literal["sync", "batch", "warp"]:
        """How evaluation steps its worlds: in this process, as a batch or on the device if training does."""
        return "sync" if self.vectorization == "async" else self.vectorization

    @property
    def resident(self) -> bool:
        """Whether the worlds live on the learner's device."""
        return self.vectorization == "warp"

    @property
    def torch_device(self) -> torch.device:
        """The device that `device` names on this machine. Raises `ConfigError` if it is missing."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device is cuda, but torch sees no GPU here; use --device cpu.")
        return torch.device("cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu")

    def folder(self, root: Path) -> Path:
        """Where the run's results lie below `root`."""
        return root / self.task.replace("/", "_").replace(":", "_") / self.preset / f"seed_{self.seed}"


@dataclass(frozen=True)
class Transfer(Run):
    """A run that begins with data: updates offline, then, if there are environment steps, more of them online."""

    dataset: str = ""
    """A D4RL name, a D4RL-schema HDF5 file, minari:ID, or a folder of recordings."""
    offline_updates: int = 1_000_000
    """Updates from the data set before the first environment step."""
    replay: Together | Mixed | Anew = field(default_factory=Together)
    """Where online batches come from: data and new transitions together, a fixed share of each, or new transitions alone."""
    frozen_steps: int = 0
    """Transitions collected with the policy learned offline before the first online update (WSRL)."""
    reward_of_failure: float | None = None
    """For Cal-QL on sparse tasks: reward, as the agent sees it, of each step of a failed episode (AntMaze 10 r - 5: -5). An episode of nothing
    else counts as failing for ever, with the return reward_of_failure / (1 - gamma) at each step."""

    def check_length(self) -> None:
        """Raises `ConfigError` for a run without updates or without data, of pictures, or one that other processes collect for."""
        if not self.dataset:
            raise ConfigError("dataset is not given; name a D4RL data set, an HDF5 file or minari:ID with --dataset.")
        if self.offline_updates < 0 or self.env_steps < 0 or self.offline_updates + self.env_steps < 1:
            raise ConfigError(
                f"offline_updates is {self.offline_updates} and env_steps is {self.env_steps}; give one of them a positive number."
            )
        if self.frozen_steps < 0:
            raise ConfigError(f"frozen_steps is {self.frozen_steps}; give zero or more.")
        if self.pictures is not None:
            raise ConfigError("pictures are given, but data sets hold other observations; leave pictures out.")
        if self.resident:
            raise ConfigError(
                "vectorization is warp, and a run that begins with data steps its worlds in host memory; use sync or batch."
            )
        if self.actors:
            raise ConfigError(f"actors is {self.actors}; a run that begins with data collects in its own process, give 0.")

    @property
    def total_updates(self) -> int:
        """Updates over which learning rates decay: those offline, or those online if there are no others."""
        return self.offline_updates or super().total_updates

    @property
    def total_steps(self) -> int:
        """Where the run ends: offline updates, then environment steps."""
        return self.offline_updates + self.env_steps

    @property
    def waiting_steps(self) -> int:
        """Transitions collected before the first update from new ones: random ones, then those of the policy learned offline."""
        return self.random_steps + self.frozen_steps


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
