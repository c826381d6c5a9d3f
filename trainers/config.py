"""`Run`: everything that determines a training run, as one frozen value that is saved beside its results."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch

from steelyard.agents.agent import Execution
from steelyard.agents.awac import AWAC
from steelyard.agents.bc import BC
from steelyard.agents.cql import CQL
from steelyard.agents.dqn import DQN
from steelyard.agents.drqv2 import DrQV2
from steelyard.agents.iql import IQL
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.envs.pixels import Pictures
from steelyard.envs.randomization import Randomization
from steelyard.trainers import run_checks, samplers, schedules
from steelyard.trainers.adaptive_ratio import AdaptiveRatio
from steelyard.trainers.collecting import CollectingSlot, LocalProcesses
from steelyard.trainers.imagination import ImaginationSlot, NoImagination
from steelyard.trainers.replays import Anew, Mixed, Together
from steelyard.trainers.run_checks import ConfigError
from steelyard.trainers.trajectory_samplers import TopFraction, TrajectoryWeighted

ScheduleSlot = schedules.FixedRatio | schedules.PerStep | AdaptiveRatio | schedules.Priming
SamplerSlot = samplers.Uniform | TrajectoryWeighted | TopFraction


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
        run_checks.check(cast(Any, self))

    def check_length(self) -> None:
        """Raises `ConfigError` for a run without steps, or an agent that learns from a data set in a run that has none."""
        run_checks.check_without_data(cast(Any, self))

    @property
    def total_updates(self) -> int:
        """Updates of the whole run, over which learning rates decay."""
        transitions = max(self.env_steps // self.action_repeat - self.waiting_steps, 1)
        return self.schedule.expected(transitions, self.num_envs * max(self.actors, 1))

    @property
    def all_updates(self) -> int:
        """Updates of the whole run, in both phases where there are two."""
        return self.total_updates

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
        run_checks.check_with_data(cast(Any, self))

    @property
    def total_updates(self) -> int:
        """Updates over which learning rates decay: those offline, or those online if there are no others."""
        return self.offline_updates or super().total_updates

    @property
    def all_updates(self) -> int:
        """Updates offline, and those online if there are any."""
        return self.offline_updates + (super().total_updates if self.env_steps else 0)

    @property
    def total_steps(self) -> int:
        """Where the run ends: offline updates, then environment steps."""
        return self.offline_updates + self.env_steps

    @property
    def waiting_steps(self) -> int:
        """Transitions collected before the first update from new ones: random ones, then those of the policy learned offline."""
        return self.random_steps + self.frozen_steps
