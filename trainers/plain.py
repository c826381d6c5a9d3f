"""Configurations as plain data: written as JSON beside a run's results, read back, and compared."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from steelyard.agents import networks, parts
from steelyard.agents.agent import Execution
from steelyard.agents.awac import AWAC
from steelyard.agents.bc import BC
from steelyard.agents.cql import CQL
from steelyard.agents.dqn import DQN
from steelyard.agents.drqv2 import DrQV2
from steelyard.agents.iql import IQL
from steelyard.agents.networks import augmentation, encoders, exploration, greedy, heads, normalizers, policies, scheduled_noise
from steelyard.agents.optimizer import Adam
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.envs.pixels import Pictures
from steelyard.envs.randomization import Randomization
from steelyard.trainers import imagination, rollout_samplers, samplers, schedules
from steelyard.trainers.adaptive_ratio import AdaptiveRatio
from steelyard.trainers.collecting import LocalProcesses, RayActors
from steelyard.trainers.config import ConfigError, Run, Transfer
from steelyard.trainers.durable import replace_file
from steelyard.trainers.replays import Anew, Mixed, Together
from steelyard.trainers.trajectory_samplers import TopFraction, TrajectoryWeighted

CLASSES = {
    kind.__name__ if kind is not parts.Uniform else "UniformWeighting": kind
    for kind in (
        Run,
        Transfer,
        SAC,
        TD3,
        BC,
        IQL,
        AWAC,
        CQL,
        DQN,
        DrQV2,
        Execution,
        Pictures,
        Randomization,
        Adam,
        networks.MLP,
        networks.SimbaV2,
        networks.Convolution,
        networks.Bottleneck,
        encoders.Unencoded,
        encoders.PictureEncoder,
        augmentation.Unaugmented,
        augmentation.RandomShift,
        scheduled_noise.ScheduledNoise,
        exploration.SameNoise,
        exploration.NoiseRange,
        exploration.HeldNoise,
        heads.Scalar,
        heads.Categorical,
        policies.Gaussian,
        policies.UnsquashedGaussian,
        policies.Deterministic,
        greedy.EpsilonGreedy,
        normalizers.RawObservations,
        normalizers.RunningNorm,
        normalizers.DatasetNorm,
        normalizers.UnscaledRewards,
        normalizers.ReturnScale,
        normalizers.AffineRewards,
        normalizers.ReturnRange,
        parts.Squared,
        parts.ClippedSemiGradient,
        parts.HuberBellman,
        parts.AbsoluteBellman,
        parts.Uniform,
        parts.DensityRatio,
        parts.InverseVariance,
        parts.Fixed,
        parts.Family,
        parts.NoCloning,
        parts.ActionDistance,
        parts.Greedy,
        parts.Munchausen,
        parts.Uncalibrated,
        parts.ReturnBound,
        parts.NoModel,
        parts.Ensemble,
        parts.Likelihood,
        parts.SquaredError,
        parts.ValueGradient,
        parts.ExactTaylor,
        parts.IterVAML,
        parts.NoIntervention,
        parts.Reset,
        parts.ReDo,
        parts.ShrinkAndPerturb,
        parts.PlasticityInjection,
        parts.L2Init,
        parts.SpectralRegularization,
        parts.Combined,
        samplers.Uniform,
        TrajectoryWeighted,
        TopFraction,
        imagination.NoImagination,
        imagination.Rollouts,
        rollout_samplers.Ramp,
        rollout_samplers.RealShare,
        rollout_samplers.Coin,
        Together,
        Mixed,
        Anew,
        schedules.FixedRatio,
        schedules.PerStep,
        schedules.Priming,
        AdaptiveRatio,
        LocalProcesses,
        RayActors,
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
    if isinstance(value, float) and math.isinf(value):
        return str(value)  # JSON has no infinity
    return value


def from_plain(value: Any) -> Any:
    """The inverse of `to_plain`. Raises `ConfigError` for an unknown class or field."""
    if isinstance(value, list):
        return tuple(from_plain(item) for item in value)
    if value in ("inf", "-inf"):
        return float(value)
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
    """Write the run's configuration as JSON. A kill or a full disk leaves what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, f"{json.dumps(to_plain(run), indent=2)}\n".encode())


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
