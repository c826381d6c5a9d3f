"""Slot `imagination` of a run: when the agent's model is fitted, what is imagined with it, and how that is mixed into batches (MBPO)."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import torch

from steelyard.agents.acting import ActingAgent
from steelyard.agents.errors import DivergenceError, SteelyardError
from steelyard.agents.parts.ensemble import DynamicsEnsemble, Termination
from steelyard.agents.parts.model_fit import Transitions
from steelyard.agents.types import Step
from steelyard.trainers.buffer import MemoryShortage, ReplayBuffer
from steelyard.trainers.rollout_samplers import Coin, Ramp, RealShare, RolloutSampler, recent
from steelyard.trainers.samplers import Sampler, UniformSampler
from steelyard.trainers.schedules import Every

VALUES_MOVE = 5_000
"""Updates from data after which a model that is fitted to values is fitted anew: online as many come between two fits, 250 steps of 20."""


class ImaginationError(SteelyardError):
    """Rollouts that cannot be made as asked. The message is one sentence that names the field and the remedy."""


@dataclass(frozen=True)
class NoImagination:
    """Batches are real."""

    def build(self, setting: "Setting") -> "NothingImagined":
        """What does nothing."""
        del setting
        return NothingImagined()


@dataclass(frozen=True)
class Rollouts:
    """Short rollouts of the policy in the agent's model, from real observations, into replay of their own (MBPO, Janner et al. 2019, algorithm 2)."""

    fit_interval: int = 250
    """Transitions between two fits of the model, each followed by rollouts."""
    rollouts: int = 100_000
    """Rollouts after each fit; 0 for none, where the model only gives fresh rows to batches (MAD-TD)."""
    batch: int = 10_000
    """Rollouts made at once: columns of the imagined replay. A divisor of their number, and a multiple of the model's elites."""
    horizon: Ramp = field(default_factory=Ramp)
    """Steps of a rollout, rounded down."""
    epoch: int = 1_000
    """Transitions (updates, while learning from a data set) of an epoch, in which ramps count. The first online one is epoch 1 again."""
    retained_epochs: int = 1
    """Epochs whose rollouts are kept."""
    mixing: RealShare | Coin = field(default_factory=RealShare)
    """How real and imagined rows come together."""
    actions: Literal["sampled", "mode"] = "sampled"
    """Which actions of the policy are imagined."""
    capacity: int = 20_000_000
    """Most imagined transitions that are kept."""
    offline_fit_interval: int | None = None
    """Updates between two fits while learning from a data set; 0 fits once, at the start. None is 0, but `VALUES_MOVE` where the model's objective
    asks for the agent's values, which are those of a random critic at the start."""
    offline_rollout_interval: int = 1_000
    """Updates between two rounds of rollouts while learning from a data set."""

    def __post_init__(self) -> None:
        for name in ("fit_interval", "batch", "epoch", "retained_epochs", "offline_rollout_interval"):
            if getattr(self, name) < 1:
                raise ImaginationError(f"imagination.{name} is {getattr(self, name)}; give one or more.")
        if self.rollouts < 0 or (self.offline_fit_interval or 0) < 0:
            raise ImaginationError(
                f"imagination.rollouts is {self.rollouts} and imagination.offline_fit_interval {self.offline_fit_interval}; give zero or more."
            )
        if self.rollouts % self.batch:
            raise ImaginationError(
                f"imagination.rollouts is {self.rollouts:,} and imagination.batch {self.batch:,}; give a batch that divides it."
            )
        if min(self.horizon.low, self.horizon.high) < 1:
            raise ImaginationError(
                f"imagination.horizon goes from {self.horizon.low} to {self.horizon.high}; give one step or more."
            )
        once = self.rollouts * self.longest
        if once > self.capacity:
            raise ImaginationError(
                f"imagination.horizon grows to {self.longest}, with which one round of rollouts makes {once:,} transitions, and "
                f"imagination.capacity is {self.capacity:,}; give more, or fewer rollouts, or a shorter horizon."
            )

    @property
    def longest(self) -> int:
        """The longest horizon."""
        return int(max(self.horizon.low, self.horizon.high))

    def batches_kept(self, offline: bool) -> int:
        """Batches of rollouts that are kept."""
        interval = self.offline_rollout_interval if offline else self.fit_interval
        return max(self.retained_epochs * self.epoch // interval, 1) * (self.rollouts // self.batch)

    def build(self, setting: "Setting") -> "Imaginer":
        """What fits and imagines. Raises `ImaginationError` for an agent without a model, or for batches that its elites cannot share evenly."""
        return Imaginer(self, setting)


ImaginationSlot = NoImagination | Rollouts


class Setting(NamedTuple):
    """What imagination is built for."""

    agent: ActingAgent
    """Whose model and policy."""
    buffers: Sequence[ReplayBuffer]
    """Real transitions: the model is fitted to all of them; rollouts begin in the last one that has any."""
    termination: Callable[[], Termination]
    """Gives the function that says which imagined observations are terminal."""
    batch_size: int
    """Rows of the agent's batches."""
    n_step: int
    """Steps of their windows."""
    seed: int
    """Of where rollouts begin and which imagined rows are drawn."""
    distractors: int
    """Useless components at the end of observations."""
    say: Callable[[str], None]
    """Shows a few words while a fit goes on; none to take them away."""


class Imagination(Protocol):
    """What the loop asks once per step."""

    replay: ReplayBuffer | None
    """Imagined transitions, to be saved with the run."""
    metrics: dict[str, float]
    """What to log of it."""

    def mixed(self, sampler: Sampler) -> Sampler:
        """What batches come from, given what real ones come from."""
        ...

    def imagine(self, transitions: int, *, offline: bool = False) -> None:
        """Fit and imagine, if it is time, now that so many transitions were collected (or updates made offline) since learning began."""
        ...

    def updates_before_next(self, updates: int) -> int:
        """How many updates from data may follow the first `updates` before `imagine` must be called again; one or more."""
        ...

    def refresh(self) -> None:
        """Look at replay again after it was restored."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that determines what comes next, apart from the agent and replay."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        ...


class NothingImagined:
    """The component that `NoImagination` describes."""

    replay: ReplayBuffer | None = None

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}

    def mixed(self, sampler: Sampler) -> Sampler:
        """The same."""
        return sampler

    def imagine(self, transitions: int, *, offline: bool = False) -> None:
        """Nothing."""

    def updates_before_next(self, updates: int) -> int:
        """As many as there are."""
        del updates
        return sys.maxsize

    def refresh(self) -> None:
        """Nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""


class Imaginer:
    """The component that `Rollouts` describes.

    A batch of rollouts is written as so many worlds that make `horizon` steps and are then cut; a rollout that ended writes rows that are no
    transitions. Of the ring only the newest rows are drawn, as many as the retained epochs make with the horizon of now.
    """

    def __init__(self, config: Rollouts, setting: Setting):
        model = setting.agent.get_submodule("model")
        assert isinstance(model, DynamicsEnsemble)  # the configuration says so
        self.config, self.setting, self.agent, self.model = config, setting, setting.agent, model
        model.terminates = setting.termination()
        if config.rollouts and config.batch % model.config.elites:
            raise ImaginationError(
                f"imagination.batch is {config.batch:,} and agent.model.elites {model.config.elites}: each elite predicts equally many "
                "rollouts; give a multiple of it."
            )
        if setting.agent.columns and (config.rollouts or model.config.fresh_share):
            raise ImaginationError(
                f"this agent reads {' and '.join(sorted(setting.agent.columns))} of each transition, which imagined ones do not have; "
                "leave out what asks for it (agent.cloning.critic 0, agent.calibration:uncalibrated), or the model (agent.model:no-model)."
            )
        real = setting.buffers[0]
        self.metrics: dict[str, float] = {}
        self.clocks = {"fit": Every(config.fit_interval), "rollouts": Every(config.offline_rollout_interval)}
        interval = config.offline_fit_interval
        self.offline_fit_interval = (VALUES_MOVE if model.objective.of_values else 0) if interval is None else interval
        self.clocks["offline"] = Every(self.offline_fit_interval or 1)
        self.begun, self.epoch, self.offline = False, 1, False
        self.rolled = 1
        """Steps of the newest rollouts."""
        self.drawn = 0
        """Newest rows of each column of imagined replay that are drawn from."""
        self.starts = [
            UniformSampler(buffer, max(config.batch, 1), 1, setting.agent.gamma, setting.seed) for buffer in setting.buffers
        ]
        self.replay: ReplayBuffer | None = None
        if config.rollouts:
            placement = "device" if real.device.type == "cuda" else "host"
            # A rollout has a row more than it has transitions, which `capacity` counts.
            room = -(-config.capacity // config.longest) * (config.longest + 1)
            most = max(config.batches_kept(offline) for offline in (False, True)) * (config.longest + 1)
            capacity = min(room, most * config.batch)
            try:
                self.replay = ReplayBuffer(real.spec, capacity, config.batch, placement, real.device)
            except MemoryShortage as error:
                fitting = error.largest // (config.longest + 1) * config.longest
                raise ImaginationError(
                    f"replay of imagined transitions {error.reason}; lower imagination.capacity to {fitting:,}, or "
                    "imagination.retained_epochs, or the number of rollouts."
                ) from None
            self.sampler = RolloutSampler(self.replay, setting.batch_size, setting.n_step, setting.agent.gamma, setting.seed + 1)

    def kept(self, horizon: int) -> int:
        """Rows of each column of imagined replay that are drawn from: a rollout has a row more than it has steps."""
        return self.config.batches_kept(self.offline) * (horizon + 1)

    def mixed(self, sampler: Sampler) -> Sampler:
        """Real and imagined rows together; batches as they are where there are no rollouts."""
        if self.replay is None:
            return sampler
        self.joined = self.config.mixing.mixed(sampler, self.sampler)
        self.config.mixing.begin_epoch(self.joined, self.epoch)
        return self.joined

    def imagine(self, transitions: int, *, offline: bool = False) -> None:
        """Fit and imagine at the first call and then at intervals."""
        fitting = rolling = not self.begun
        self.offline = offline
        if offline:
            rolling = self.clocks["rollouts"](transitions) or rolling
            fitting = (self.offline_fit_interval > 0 and self.clocks["offline"](transitions)) or fitting
        else:
            fitting = rolling = self.clocks["fit"](transitions) or fitting
        self.begin_epoch(transitions // self.config.epoch + 1)
        if fitting:
            self.fit()
        if rolling or fitting:
            self.roll()
        self.begun = True

    def updates_before_next(self, updates: int) -> int:
        """So many until the next multiple of an interval."""
        intervals = (self.config.offline_rollout_interval, self.offline_fit_interval)
        return min(interval - updates % interval for interval in intervals if interval)

    def begin_epoch(self, epoch: int) -> None:
        """What changes with the epoch."""
        self.epoch = epoch
        if self.replay is not None:
            self.metrics["model/real_share"] = self.config.mixing.begin_epoch(self.joined, epoch)

    def horizon(self) -> int:
        """Steps of a rollout now."""
        return int(self.config.horizon(self.epoch) + 1e-9)  # a whole number may come out as slightly less

    def fit(self) -> None:
        """Fit the model to all real transitions."""
        parts = [transitions(buffer, self.agent.device) for buffer in self.setting.buffers if len(buffer)]
        data = Transitions(*(torch.cat(column) for column in zip(*parts, strict=True)))
        record = self.model.refit(
            self.agent,  # pyright: ignore[reportArgumentType]
            data,
            lambda epoch, scores: self.setting.say(
                f"model: epoch {epoch} on {len(data.obs):,} rows, score {float(scores.mean()):.3g}"
            ),
        )
        self.setting.say("")
        best = record.scores.sort().values[: self.model.config.elites]
        self.metrics |= {
            "model/epochs": record.epochs,
            "model/loss": record.loss,
            "model/score": float(best.mean()),
            "model/rows": len(data.obs),
        }
        emphasis = self.model.objective.emphasis
        if emphasis is not None:
            self.metrics["model/state_weight"] = float(emphasis.mean())
        if emphasis is not None and self.setting.distractors:
            self.metrics["model/distractor_share"] = float(emphasis[-self.setting.distractors :].sum() / emphasis.sum())

    def roll(self) -> None:
        """Imagine rollouts from observations drawn uniformly from real replay."""
        if self.replay is None:
            return
        starts = self.starts[0] if self.offline or not len(self.setting.buffers[-1]) else self.starts[-1]
        self.rolled, reward, length = self.horizon(), 0.0, 0.0
        for _ in range(self.config.rollouts // self.config.batch):
            gained, steps = self.roll_batch(self.replay, starts.sample().obs, self.rolled)
            reward, length = reward + gained, length + steps
        self.drawn = self.kept(self.rolled)
        self.refresh()
        self.metrics |= {
            "model/horizon": self.rolled,
            "model/imagined_reward": reward / max(length, 1),
            "model/imagined_length": length / self.config.rollouts,
            "model/imagined_rows": int(self.sampler.count),
        }

    def roll_batch(self, replay: ReplayBuffer, obs: torch.Tensor, horizon: int) -> tuple[float, float]:
        """One batch of rollouts; returns the sum of their rewards and the number of their steps."""
        alive = torch.ones(len(obs), dtype=torch.bool, device=obs.device)
        reward, steps = torch.zeros((), device=obs.device), torch.zeros((), device=obs.device)
        for _ in range(horizon):
            imagined = self.model.imagine(
                self.agent,  # pyright: ignore[reportArgumentType]
                obs.to(self.agent.device),
                explore=self.config.actions == "sampled",
            )
            action, next_obs, gained, ended = (part.to(obs.device) for part in imagined)
            if not bool(next_obs.isfinite().all() & gained.isfinite().all()):
                raise DivergenceError(
                    "the dynamics model diverged: it imagined an observation or reward that is NaN or infinite; lower "
                    "agent.model.optimizer.learning_rate, or shorten imagination.horizon."
                )
            cut = torch.zeros_like(alive)
            # Worlds that ended are not reset: what follows of them are rows that are no transitions.
            replay.add(obs, action, Step(next_obs, next_obs, gained * alive, ended & alive, cut, alive, {}))
            reward, steps = reward + (gained * alive).sum(), steps + alive.sum()
            obs, alive = torch.where(alive[:, None], next_obs, obs), alive & ~ended
        replay.cut()
        return float(reward), float(steps)

    def refresh(self) -> None:
        """Draw from now on from what is in imagined replay now."""
        if self.replay is not None:
            self.sampler.refresh(self.drawn)

    def state_dict(self) -> dict[str, Any]:
        """Clocks, where rollouts begin, and what was measured last."""
        return {
            "clocks": {name: clock.state_dict() for name, clock in self.clocks.items()},
            "starts": [sampler.state_dict() for sampler in self.starts],
            "begun": self.begun,
            "epoch": self.epoch,
            "offline": self.offline,
            "rolled": self.rolled,
            "drawn": self.drawn,
            "metrics": dict(self.metrics),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        for name, clock in self.clocks.items():
            clock.load_state_dict(state["clocks"][name])
        for sampler, saved in zip(self.starts, state["starts"], strict=True):
            sampler.load_state_dict(saved)
        self.begun, self.metrics = state["begun"], dict(state["metrics"])
        self.rolled, self.drawn = state["rolled"], state["drawn"]
        self.offline = state["offline"]
        self.begin_epoch(state["epoch"])


def transitions(buffer: ReplayBuffer, device: torch.device) -> Transitions:
    """All transitions that sampling may draw, on `device`."""
    found = buffer.gather(recent(buffer, buffer.window))
    return Transitions(*(column.to(device) for column in (found.obs, found.action, found.reward, found.next_obs)))
