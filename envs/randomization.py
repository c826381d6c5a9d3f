# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""Worlds that differ from the model in masses, friction and the like, each by factors drawn from its own seed."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from steelyard.envs.draws import uniform
from steelyard.envs.vector import EnvError

if TYPE_CHECKING:  # MuJoCo loads OpenGL as it is imported, which `gl.choose_backend` must come before
    import mujoco

Range = tuple[float, float]
TOGETHER: dict[str, tuple[str, ...]] = {
    "mass": ("body_mass", "body_inertia"),
    "friction": ("geom_friction",),
    "gain": ("actuator_gainprm", "actuator_biasprm"),
    "damping": ("dof_damping",),
}
"""Fields of `MjModel` that one factor scales."""
DERIVED = (
    "body_subtreemass",
    "body_invweight0",
    "dof_invweight0",
    "tendon_invweight0",
    "tendon_length0",
    "actuator_acc0",
    "geom_rbound",
    "geom_aabb",
)
"""Fields that MuJoCo computes from others when a model is built (mj_setConst)."""
MASSES = ("body_mass", "body_inertia")
"""Fields of which MuJoCo needs more than zero for every body that moves."""
FIRST_CLOCK = -2
"""Clocks of the draws count down from here; episodes count up from 0, and -1 is the clock of the first episode's length."""


@dataclass(frozen=True)
class Randomization:
    """Factors by which each world's model differs, uniform in (lowest, highest); None leaves the model as it is.

    They are drawn when worlds are given seeds and hold until the next time: domain randomisation over worlds, not over episodes.
    """

    mass: Range | None = None
    """Lowest and highest factor, both above zero, of the masses and moments of inertia of bodies."""
    friction: Range | None = None
    """Lowest and highest factor of geoms' sliding, torsional and rolling friction. The larger of two that touch counts."""
    gain: Range | None = None
    """Lowest and highest factor of actuators' gains and, for servos, of the terms that go against them."""
    damping: Range | None = None
    """Lowest and highest factor of the damping of joints."""
    fields: tuple[tuple[str, float, float], ...] = ()
    """Other fields of MuJoCo's MjModel, each with its lowest and highest factor, such as ("dof_armature", 0.5, 2.0); on the command line
    dof_armature 0.5 2."""
    each: bool = False
    """Whether every body, geom, actuator and joint draws a factor of its own, and not one for all of the world."""
    shown: bool = False
    """Whether critics see their world's factors behind its observation, which policies do not (an asymmetric actor and critic)."""

    def __post_init__(self) -> None:
        found: set[str] = set()
        for option, names, (low, high) in self._wanted():
            if not 0 <= low <= high < np.inf:
                raise EnvError(
                    f"{option} goes from {low:g} to {high:g}; give the lowest factor and then the highest, neither negative."
                )
            if low == 0 and not set(names).isdisjoint(MASSES):
                raise EnvError(f"{option} goes from 0 on, and nothing moves without mass; give factors above zero.")
            again = found & set(names)
            if again:
                raise EnvError(f"{min(again)} is to be scaled twice; leave it out of randomization.fields.")
            found |= set(names)

    def ranges(self, task: str, model: "mujoco.MjModel") -> list[tuple[tuple[str, ...], Range]]:
        """Fields that share factors, and their range. Raises `EnvError` for a field of which the model cannot make use."""
        for option, names, _ in self._wanted():
            for name in names:
                _require_field(task, option, name, model)
            if not any(getattr(model, name).any() for name in names):
                raise EnvError(
                    f"{task}: {option} has no effect, since {names[0]} is zero everywhere in this model; leave it out."
                )
        return [(names, bounds) for _, names, bounds in self._wanted()]

    def _wanted(self) -> Iterator[tuple[str, tuple[str, ...], Range]]:
        """What was asked for: the option's name, the fields that it scales, and the range."""
        for name, names in TOGETHER.items():
            if getattr(self, name) is not None:
                yield f"randomization.{name}", names, getattr(self, name)
        for name, low, high in self.fields:
            yield f"randomization.fields {name}", (name,), (low, high)

    def names(self, task: str, model: "mujoco.MjModel") -> tuple[str, ...]:
        """Fields of `MjModel` that will differ between worlds."""
        return tuple(name for names, _ in self.ranges(task, model) for name in names)

    def derived(self, task: str, model: "mujoco.MjModel") -> tuple[str, ...]:
        """Further fields that may differ then: constants that MuJoCo computes from the others."""
        names = set(self.names(task, model))
        needed = not names.isdisjoint(type(model)._setconst_inputs)
        return tuple(name for name in DERIVED if needed and name not in names and getattr(model, name).size)

    def values(self, task: str, model: "mujoco.MjModel", keys: Tensor) -> dict[str, Tensor]:
        """Those fields [worlds, ...] float64 on the device of `keys` [worlds] int64, the worlds' seeds."""
        found: dict[str, Tensor] = {}
        for names, factor in self.factors(task, model, keys):
            for name in names:
                base = torch.from_numpy(getattr(model, name).astype(np.float64)).to(keys.device)
                found[name] = base * factor.view(*factor.shape, *[1] * (base.ndim - 1))
        return found

    def factors(self, task: str, model: "mujoco.MjModel", keys: Tensor) -> list[tuple[tuple[str, ...], Tensor]]:
        """Fields that share factors, and these factors [worlds, n] float64 of the worlds with the seeds `keys`."""
        found: list[tuple[tuple[str, ...], Tensor]] = []
        for number, (names, (low, high)) in enumerate(self.ranges(task, model)):
            count = len(getattr(model, names[0])) if self.each else 1
            draw = uniform(keys, torch.full_like(keys, FIRST_CLOCK - number), count).double()
            found.append((names, low + (high - low) * draw))
        return found

    def for_critics(self, task: str, model: "mujoco.MjModel", keys: Tensor) -> Tensor | None:
        """What critics see of the worlds' factors [worlds, n] float64: all of them, or None if they are not shown or there are none."""
        factors = [factor for _, factor in self.factors(task, model, keys)]
        return torch.cat(factors, dim=1) if self.shown and factors else None

    def constants(self, task: str, model: "mujoco.MjModel", values: dict[str, Tensor]) -> dict[str, Tensor]:
        """The fields `derived` names, [worlds, ...] float64 on the CPU, for worlds with `values`: computed by the C engine on all cores."""
        from mujoco.batch import Batch

        names = self.derived(task, model)
        if not names:
            return {}
        batch = Batch(model, len(next(iter(values.values()))))
        found = {name: batch.expand(name) for name in names}
        for name, value in values.items():
            batch.expand(name)[:] = value.cpu().numpy()
        batch.set_const()
        return {name: torch.from_numpy(array.copy()) for name, array in found.items()}


def _require_field(task: str, option: str, name: str, model: "mujoco.MjModel") -> None:
    """Raises `EnvError` unless `name` is a field of numbers that may differ between worlds and that MuJoCo does not compute itself."""
    from mujoco.batch import MODEL_FIELDS

    def numbers(name: str) -> bool:
        value = getattr(model, name, None)
        return isinstance(value, np.ndarray) and value.dtype.kind == "f"

    if not numbers(name):
        close = difflib.get_close_matches(name, [field for field in sorted(MODEL_FIELDS) if numbers(field)], n=2)
        meant = f"; did you mean {' or '.join(close)}?" if close else "; name another field, or leave it out."
        raise EnvError(f"{task}: {option} is no array of numbers in MuJoCo's MjModel{meant}")
    if name not in MODEL_FIELDS:
        raise EnvError(f"{task}: {option} is the same in all worlds, which share meshes and the like; leave it out.")
    if name in type(model)._setconst_outputs and name not in type(model)._setconst_inputs:
        raise EnvError(f"{task}: {option} is computed by MuJoCo from other fields; scale those instead.")
