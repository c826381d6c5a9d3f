"""The online loop: collect, learn, look, save."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from steelyard.agents.types import Metrics, Spec
from steelyard.envs import terminations
from steelyard.trainers import checkpoint, imagination, plain, run_lock, threads, transfer
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.builders import build_buffer, make_collector, make_evaluation_env, require_compiler, trained_spec
from steelyard.trainers.collected import Episode
from steelyard.trainers.config import ConfigError, Run
from steelyard.trainers.evaluation import Scores, evaluate
from steelyard.trainers.imagination import Imagination
from steelyard.trainers.interrupts import Interrupts
from steelyard.trainers.learner import Learner
from steelyard.trainers.logs import Logs, TensorBoard, WeightsAndBiases
from steelyard.trainers.looks import look
from steelyard.trainers.progress import Progress
from steelyard.trainers.samplers import Sampler
from steelyard.trainers.schedules import Every, Until

MOST = 1_000
"""Updates between two looks at clocks and signals."""
BACKENDS = {"tensorboard": TensorBoard(), "wandb": WeightsAndBiases()}

IMAGINATION_SEED = 9
"""Offset from a run's seed of where rollouts begin; the next one draws imagined rows."""


class Online:
    """One run: its worlds, agent, replay, schedule, logs and checkpoints.

    Args:
        run: The configuration.
        folder: Where results go. If a checkpoint lies there the run continues from it.
        fresh: Delete what lies there, once everything else is built, so that a run that cannot be built deletes nothing.
    """

    def __init__(self, run: Run, folder: Path, fresh: bool = False):
        self.run, self.folder = run, folder
        self.progress = Progress(run.total_steps, label=f"{run.task} {run.preset} seed {run.seed}", unit=self.unit)
        device = run.torch_device  # a missing one is said before anything is built
        self.evaluation_env = make_evaluation_env(run)
        spec, num_envs = trained_spec(run, self.evaluation_env.spec), run.num_envs * max(run.actors, 1)
        self.agent = run.agent.build(
            spec,
            num_envs=num_envs,
            total_updates=run.total_updates,
            all_updates=run.all_updates,
            seed=run.seed,
            device=device,
            execution=run.execution,
        )
        self.buffer, self.sampler = self.build_replay(spec, num_envs)
        self.schedule = run.schedule.build()
        self.schedule.begin(self.agent)
        self.backlog = 0
        self.imagination = self.build_imagination()
        self.sampler = self.imagination.mixed(self.sampler)
        self.learner = Learner(self.agent, self.sampler, folder)
        self.learner.watchers = (self.schedule,)
        self.meters: Metrics = {}
        self.collector = make_collector(run, self.agent, self.buffer)
        if fresh:
            run_lock.clear(folder)
        self.logs = Logs(folder, [BACKENDS[name] for name in run.log_to], axis=self.axis)
        self.env_steps, self.best = 0, -float("inf")
        self.clocks = {
            "log": Every(run.log_interval),
            "evaluation": Every(run.evaluation_interval),
            "checkpoint": Every(run.checkpoint_interval),
        } | ({"meter": Every(run.meter_interval)} if run.meter_interval else {})
        found = checkpoint.latest(folder / "checkpoints")
        if found:
            _, state = checkpoint.load(found)
            with checkpoint.fitting(found):
                self.load_state_dict(state)
            if self.saved_replay() is not None:
                checkpoint.load_replay(found, self.buffer)
            if self.imagination.replay is not None:
                checkpoint.load_replay(found, self.imagination.replay, imagined=True)
                self.imagination.refresh()
            # Last, because worlds that could not be saved begin new episodes in replay.
            with checkpoint.fitting(found):
                self.collector.load_state_dict(state["collector"])
        else:
            threads.use(threads.choose(run, spec))
        self.logs.resume(self.steps)

    axis: ClassVar[str] = "env_steps"
    """First column of the tables: what `steps` counts."""
    unit: ClassVar[str] = "env steps"
    """The same in words."""

    @property
    def steps(self) -> int:
        """How far the run has come."""
        return self.env_steps

    def build_replay(self, spec: Spec, num_envs: int) -> tuple[ReplayBuffer, Sampler]:
        """Replay that is collected into, and what draws batches from it."""
        run, buffer = self.run, build_buffer(self.run, spec, num_envs)
        return buffer, run.sampler.build(buffer, run.agent.batch_size, run.agent.n_step, self.agent.gamma, run.seed + 4)

    def build_imagination(self) -> Imagination:
        """What fits the agent's model and imagines with it."""
        return self.run.imagination.build(self.imagined_from((self.buffer,)))

    def imagined_from(self, buffers: Sequence[ReplayBuffer]) -> imagination.Setting:
        """What imagination is built for, given where real transitions lie."""
        run, spec = self.run, self.evaluation_env.spec
        return imagination.Setting(
            agent=self.agent,
            buffers=buffers,
            termination=lambda: terminations.termination(run.task, spec, run.distractors),
            batch_size=run.agent.batch_size,
            n_step=run.agent.n_step,
            seed=run.seed + IMAGINATION_SEED,
            distractors=run.distractors,
            say=self.say,
        )

    def say(self, words: str) -> None:
        """A few words behind the progress line."""
        self.progress.note = words
        self.progress.update(self.steps, self.agent.update_count)

    def saved_replay(self) -> ReplayBuffer | None:
        """Replay that belongs into a checkpoint; None where it can be made anew."""
        return self.buffer

    def train(self) -> None:
        """Run to the end, or until a signal; either way the last thing is a checkpoint."""
        unfinished = Until(self.run.total_steps)
        with self.progress, Interrupts() as interrupts:
            for line in self.introduction():
                self.progress.print(line)
            if self.steps == 0:
                self.evaluate()
            # What is left of the last collected step's updates belongs to the run, and so do the clocks that wait for it.
            while (unfinished(self.steps) or self.backlog) and not (interrupts.received and self.collector.rest()):
                self.step()
                self.progress.update(self.steps, self.agent.update_count)
                if self.backlog:
                    continue  # clocks look at steps whose updates are done
                if "meter" in self.clocks and self.clocks["meter"](self.steps):
                    self.measure()
                if self.clocks["log"](self.steps):
                    self.log()
                if self.clocks["evaluation"](self.steps):
                    self.evaluate()
                if self.clocks["checkpoint"](self.steps):
                    self.save()
            self.save()
            if not interrupts.received and self.run.transfer_episodes:
                self.transfer()
            if interrupts.received:
                self.progress.print(
                    f"{signal.Signals(interrupts.received).name}: saved at {self.steps:,} steps; the same command continues."
                )
        self.close()
        if interrupts.received:
            raise KeyboardInterrupt

    def introduction(self) -> list[str]:
        """Lines to print at the start."""
        seen = [] if self.run.pictures is None else [self.run.pictures.describe()]
        imagined = self.imagination.replay
        return [*seen, self.buffer.describe(), *([] if imagined is None else [f"imagined {imagined.describe()}"])]

    def step(self) -> None:
        """Collect once, imagine, and learn as often as that makes due.

        What is more than `MOST` updates waits for further calls, which collect nothing.
        """
        if not self.backlog:
            transitions = self.collector.collect()
            self.env_steps += transitions * self.run.action_repeat
            learned = self.env_steps // self.run.action_repeat - self.run.waiting_steps
            if learned >= 0:
                self.imagination.imagine(learned)
            self.backlog = self.updates_due(transitions)
            if news := self.schedule.news():
                self.progress.print(f"{self.steps:>9,} steps  {news}")
        count = min(self.backlog, MOST)
        self.learner.update(count)
        self.backlog -= count
        self.collector.publish()

    def measure(self) -> None:
        """Look at the networks with a batch like that of the next update; no random stream moves."""
        if self.agent.update_count:
            self.meters = {f"meter/{name}": value for name, value in look(self.agent, self.learner, self.sampler).items()}

    def updates_due(self, transitions: int) -> int:
        """Updates for transitions collected after those that the first update waits for."""
        collected = self.env_steps // self.run.action_repeat
        return self.schedule.updates(max(min(transitions, collected - self.run.waiting_steps), 0))

    def log(self) -> None:
        """One row of train.csv."""
        episodes = self.collector.episodes()
        self.note(episodes)
        metrics: dict[str, Any] = {f"train/{name}": value for name, value in self.learner.metrics.items()}
        metrics |= self.sampler.diagnostics() | self.schedule.diagnostics() | self.imagination.metrics | self.meters
        self.meters = {}
        if episodes:
            counts = [episode.count for episode in episodes]
            metrics["train/return"] = float(np.average([episode.score for episode in episodes], weights=counts))
            metrics["train/length"] = float(np.average([episode.length for episode in episodes], weights=counts))
            self.progress.last_return = metrics["train/return"]
        self.learner.check()
        self.logs.train(self.steps, self.agent.update_count, metrics)

    def note(self, episodes: list[Episode]) -> None:
        """Look at episodes that finished since the last row of train.csv."""

    def evaluate(self) -> None:
        """Score the deterministic policy in worlds of its own."""
        scores = evaluate(self.agent, self.evaluation_env, self.run.evaluation_episodes, self.run.seed)
        self.logs.evaluation(self.steps, self.agent.update_count, scores.metrics() | self.score(scores))
        spread = f" ± {scores.std:,.1f} over {len(scores.returns)} episodes" if len(scores.returns) > 1 else ""
        self.progress.print(f"{self.steps:>9,} steps  return {scores.mean:,.1f}{spread}")
        if scores.mean > self.best:
            self.learner.check()
            self.best = scores.mean
            checkpoint.save_best(self.folder / "checkpoints", self.steps, self.state_dict())

    def transfer(self) -> None:
        """Score the last and the best policy on the published simulator."""
        scores = transfer.transfer(self.run, self.agent, self.folder)
        self.logs.evaluation(self.steps, self.agent.update_count, transfer.columns(scores))
        last, best = scores["last"], scores["best"]
        self.progress.print(
            f"{self.steps:>9,} steps  return {last.mean:,.1f} on the published simulator (best policy {best.mean:,.1f})"
        )

    def score(self, scores: Scores) -> dict[str, float]:
        """Further columns of eval.csv."""
        return {}

    def save(self) -> None:
        """Write a checkpoint, unless a loss is not finite: on a GPU nobody may have looked since the last one."""
        self.learner.check()
        checkpoint.save(
            self.folder / "checkpoints", self.steps, self.state_dict(), self.saved_replay(), imagined=self.imagination.replay
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes, apart from replay."""
        return {
            "agent": self.agent.state_dict(),
            "collector": self.collector.state_dict(),
            "sampler": self.sampler.state_dict(),
            "schedule": self.schedule.state_dict(),
            "imagination": self.imagination.state_dict(),
            "clocks": {name: clock.state_dict() for name, clock in self.clocks.items()},
            "metrics": self.learner.metrics,
            "meters": self.meters,
            "backlog": self.backlog,
            "env_steps": self.env_steps,
            "best": self.best,
            "threads": torch.get_num_threads(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's state, apart from replay and what collects into it.

        There are as many threads as before: their number decides the order of sums.
        """
        threads.use(state["threads"])
        self.agent.load_state_dict(state["agent"])
        self.sampler.load_state_dict(state["sampler"])
        self.schedule.load_state_dict(state["schedule"])
        self.imagination.load_state_dict(state["imagination"])
        for name, clock in self.clocks.items():
            clock.load_state_dict(state["clocks"][name])
        self.learner.metrics = {name: value.to(self.agent.device) for name, value in state["metrics"].items()}
        self.meters, self.backlog = state["meters"], state["backlog"]
        self.env_steps, self.best = state["env_steps"], state["best"]

    def close(self) -> None:
        """Release worlds and files."""
        self.collector.close()
        self.evaluation_env.close()
        self.logs.close()


def train(
    run: Run,
    root: Path = Path("runs"),
    fresh: bool = False,
    make_loop: Callable[[Any, Path, bool], Online] = Online,
    patience: float = 0.0,
) -> Path:
    """Train, or continue a run that was interrupted, and return its folder.

    Args:
        run: The configuration.
        root: Folder below which `task/preset/seed_n` is made.
        fresh: Delete what an earlier run left there, once it is sure that this one can begin.
        make_loop: What trains: `Online`, or `Pipeline` for a run that begins with data.
        patience: Seconds in which another process may leave the folder.

    Raises `ConfigError` if the folder holds a run of another configuration, `InUseError` if another process works in it.
    """
    folder = run.folder(root)
    written = folder / "config.json"
    with run_lock.alone_in(folder, patience):
        if written.exists() and not fresh:
            difference = plain.first_difference(plain.load(written), run)
            if difference:
                raise ConfigError(
                    f"{folder} holds a run with another {difference}; continue it with its own options, or use --fresh or another "
                    "--preset."
                )
        require_compiler(run)
        loop = make_loop(run, folder, fresh and (written.exists() or (folder / "checkpoints").exists()))
        plain.save(run, written)
        loop.train()
    return folder
