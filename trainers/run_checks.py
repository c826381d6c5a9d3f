"""What a run's configuration must fulfil before anything is built."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from steelyard.agents import parts
from steelyard.agents.errors import SteelyardError
from steelyard.agents.networks import normalizers
from steelyard.agents.networks.exploration import HeldNoise, NoiseRange
from steelyard.trainers.collecting import LocalProcesses
from steelyard.trainers.evaluation import FRESH_SEEDS
from steelyard.trainers.imagination import Rollouts

if TYPE_CHECKING:
    from steelyard.trainers.config import Run, Transfer


class ConfigError(SteelyardError):
    """A run's configuration cannot be used. The message is one sentence that names the field and the remedy."""


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
    ("largest_weight", lambda value: value > 0, "give a positive number"),
    ("softness", lambda value: value > 0, "give a positive number"),
    ("conservatism", lambda value: value >= 0, "give zero or more"),
    ("online_conservatism", lambda value: value >= 0, "give zero or more, or None to keep conservatism"),
    ("lagrange_gap", math.isfinite, "give a number, or None for a fixed weight"),
    ("smallest_gap", lambda value: value < math.inf, "give a number, or minus infinity for no bound"),
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


def check(run: "Run") -> None:
    """Raises `ConfigError` for numbers that no run can have, and for whatever the other checks here refuse."""
    for name in (
        "num_envs",
        "action_repeat",
        "capacity",
        "evaluation_interval",
        "evaluation_episodes",
        "log_interval",
        "checkpoint_interval",
    ):
        if getattr(run, name) < 1:
            raise ConfigError(f"{name} is {getattr(run, name)}; give a positive number.")
    for name in ("actors", "distractors", "random_steps", "threads", "seed", "meter_interval", "transfer_episodes"):
        if getattr(run, name) < 0:
            raise ConfigError(f"{name} is {getattr(run, name)}; give zero or more.")
    if run.preset in ("", ".", "..") or set(run.preset) & set("/\\\0"):
        raise ConfigError(f"preset is {run.preset!r}, which names the run's folder; give a word without slashes.")
    if run.seed >= FRESH_SEEDS:
        raise ConfigError(f"seed is {run.seed}; give a number below {FRESH_SEEDS}.")
    run.check_length()
    check_model(run)
    check_worlds(run)
    for name, fine, remedy in AGENT_RULES:
        value = getattr(run.agent, name, None)
        if value is not None and not fine(value):
            raise ConfigError(f"agent.{name} is {value}; {remedy}.")


def check_model(run: "Run") -> None:
    """Raises `ConfigError` for a model that nothing fits, imagination without a model, or what actors in other processes cannot do."""
    modelled = isinstance(getattr(run.agent, "model", None), parts.Ensemble)
    if modelled != isinstance(run.imagination, Rollouts):
        given, missing = ("agent.model", "imagination:rollouts") if modelled else ("imagination", "agent.model:ensemble")
        raise ConfigError(f"{given} is given without what it needs; add {missing}, or leave it out.")
    exploration = getattr(run.agent, "exploration", None)
    if modelled and isinstance(exploration, NoiseRange | HeldNoise):
        raise ConfigError(
            f"agent.exploration is {type(exploration).__name__}, and imagined rollouts keep no noise of each world; use "
            "agent.exploration:same-noise, or leave the model out."
        )
    if not run.actors and run.collecting != LocalProcesses():
        raise ConfigError(f"collecting is {type(run.collecting).__name__}, but actors is 0; say how many with --actors.")
    if run.actors and (run.first_actions, run.acting) != ("uniform", "sampled"):
        raise ConfigError("actors in other processes begin with uniform actions and then draw the policy's; use --actors 0.")


def check_worlds(run: "Run") -> None:
    """Raises `ConfigError` for worlds that cannot be had in this way, and for replay too small for their number."""
    if run.randomization is not None and run.vectorization not in ("batch", "warp"):
        raise ConfigError("randomization is given, and only many worlds at once differ; use --vectorization warp or batch.")
    if run.vectorization == "warp":
        for name, given in (
            ("pictures", run.pictures is not None),
            ("distractors", run.distractors),
            ("actors", run.actors),
        ):
            if given:
                raise ConfigError(
                    f"{name} are given, which worlds on the learner's device do not have; use --vectorization sync."
                )
    exploration = getattr(run.agent, "exploration", None)
    if run.actors and isinstance(exploration, NoiseRange | HeldNoise):
        raise ConfigError(
            f"agent.exploration is {type(exploration).__name__}, and actors in other processes keep no noise of each world; use --actors 0."
        )
    n_step, worlds = getattr(run.agent, "n_step", 1), run.num_envs * max(run.actors, 1)
    if worlds > 1 and run.capacity < worlds * (n_step + 1):
        raise ConfigError(
            f"capacity is {run.capacity:,}, less than n_step + 1 = {n_step + 1} transitions of each of {worlds:,} worlds; "
            f"give at least {worlds * (n_step + 1):,}, or fewer worlds."
        )
    stored = min(run.capacity, run.env_steps // run.action_repeat)
    if run.resident and run.agent.batch_size > stored:
        raise ConfigError(
            f"agent.batch_size is {run.agent.batch_size:,}, and replay never holds more than {stored:,} transitions; "
            "give a smaller batch, more env_steps or a larger capacity."
        )


def check_without_data(run: "Run") -> None:
    """Raises `ConfigError` for a run without steps, or an agent that learns from a data set in a run that has none."""
    if run.env_steps < 1:
        raise ConfigError(f"env_steps is {run.env_steps}; give a positive number.")
    for name, kind, remedy in NEEDS_DATA:
        if isinstance(getattr(run.agent, name, None), kind):
            raise ConfigError(
                f"agent.{name} is {kind.__name__}, which takes its numbers from a data set, and this run has none; "
                f"use {remedy}, or train from data (train_d4rl.py)."
            )


def check_with_data(run: "Transfer") -> None:
    """Raises `ConfigError` for a run without updates or without data, of pictures, or one that other processes collect for."""
    if not run.dataset:
        raise ConfigError("dataset is not given; name a D4RL data set, an HDF5 file or minari:ID with --dataset.")
    if run.offline_updates < 0 or run.env_steps < 0 or run.offline_updates + run.env_steps < 1:
        raise ConfigError(
            f"offline_updates is {run.offline_updates} and env_steps is {run.env_steps}; give one of them a positive number."
        )
    if run.frozen_steps < 0:
        raise ConfigError(f"frozen_steps is {run.frozen_steps}; give zero or more.")
    if run.pictures is not None:
        raise ConfigError("pictures are given, but data sets hold other observations; leave pictures out.")
    if run.resident:
        raise ConfigError(
            "vectorization is warp, and a run that begins with data steps its worlds in host memory; use sync or batch."
        )
    if run.actors:
        raise ConfigError(f"actors is {run.actors}; a run that begins with data collects in its own process, give 0.")
