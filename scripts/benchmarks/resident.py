"""Training in worlds that live on the learner's device, from end to end, with the share of time that each part of a step takes."""

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal, cast

import torch

from benchmarks.window import Subject
from steelyard.agents.agent import Execution
from steelyard.trainers.gpu_presets import GPU
from steelyard.trainers.online import Online
from steelyard.trainers.resident_collector import ResidentCollector

NEVER = 10**15
"""Transitions before the first update where none is wanted."""


class Clock:
    """Seconds that parts of a step take, each waited for, while it is on."""

    def __init__(self, wait: Callable[[], object]):
        self.wait, self.on, self.seconds = wait, False, defaultdict[str, float](float)

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed under `name`."""

        def timed(*arguments: Any) -> Any:
            if not self.on:
                return function(*arguments)
            self.wait()
            start = time.perf_counter()
            result = function(*arguments)
            self.wait()
            self.seconds[name] += time.perf_counter() - start
            return result

        return timed

    def shares(self) -> dict[str, float]:
        """Each part's share of their time."""
        total = sum(self.seconds.values())
        return {name: seconds / total for name, seconds in self.seconds.items()}


def resident_training(
    preset: str,
    num_envs: int,
    compile: bool,
    device: Literal["cpu", "cuda"],
    precision: Literal["fp32", "bf16"] = "fp32",
    task: str = "cheetah-run",
    updates: bool = True,
) -> Subject:
    """Environment steps of training; without `updates` the policy acts and its transitions are stored, and that is all.

    Windows are measured as training runs. Behind each, for a quarter of its time, the device is waited for after each part of a step.
    """
    run = GPU[preset]
    run = dataclasses.replace(
        run,
        task=task,
        num_envs=num_envs,
        random_steps=10 * num_envs if updates else NEVER,
        first_actions="uniform" if updates else "policy",
        env_steps=10 * NEVER,
        capacity=max(run.capacity // run.num_envs, 1_000) * num_envs,
        evaluation_episodes=1,
        threads=torch.get_num_threads(),
        device=device,
        execution=Execution(precision=precision, compile=compile),
        log_to=(),
    )
    online = Online(run, Path(mkdtemp()))
    clock = Clock(torch.cuda.synchronize if device == "cuda" else lambda: None)
    collector = cast(ResidentCollector, online.collector)
    for owner, method, name in (
        (collector.env, "step", "env"),
        (collector, "act", "act"),
        (collector, "keep", "store"),
        (online.learner, "update", "update"),
    ):
        setattr(owner, method, clock.around(name, getattr(owner, method)))

    def steps(seconds: float) -> tuple[int, float]:
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            online.step()
            count += num_envs
            if online.clocks["log"](online.env_steps):
                online.log()
        clock.wait()
        return count, time.perf_counter() - start

    def subject(seconds: float) -> tuple[int, float]:
        found = steps(seconds)
        clock.on = True
        steps(seconds / 4)
        clock.on = False
        subject.shares = clock.shares()  # pyright: ignore[reportFunctionMemberAccess]
        return found

    while online.collector.transitions < 20 * num_envs:  # pyright: ignore[reportAttributeAccessIssue]
        online.step()
    return subject
