# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""Worlds that differ from the model in masses, friction and the like, each by factors drawn from its own seed."""

from dataclasses import dataclass

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from torch import Tensor

from steelyard.envs.draws import uniform
from steelyard.envs.vector import EnvError

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
FIRST_CLOCK = -2
"""Clocks of the draws count down from here; episodes count up from 0, and -1 is the clock of the first episode's length."""


@dataclass(frozen=True)
class Randomization:
    """Factors by which each world's model differs, uniform in (lowest, highest); None leaves the model as it is.

    They are drawn when worlds are given seeds and hold until the next time: domain randomisation over worlds, not over episodes.
    """

    mass: Range | None = None
    """Of bodies: masses and moments of inertia."""
    friction: Range | None = None
    """Of geoms: sliding, torsional and rolling friction. The larger of two that touch counts."""
    gain: Range | None = None
    """Of actuators: gains and, for servos, the terms that go against them."""
    damping: Range | None = None
    """Of joints."""
    fields: tuple[tuple[str, float, float], ...] = ()
    """Other fields of MuJoCo's MjModel with their ranges, such as ("dof_armature", 0.5, 2.0)."""
    each: bool = False
    """Whether every body, geom, actuator and joint draws a factor of its own, and not one for all of the world."""
    shown: bool = False
    """Whether critics see their world's factors behind its observation, which policies do not (an asymmetric actor and critic)."""

    def ranges(self, task: str, model: mujoco.MjModel) -> list[tuple[tuple[str, ...], Range]]:
        """Fields that share factors, and their range. Raises `EnvError` for a range or a field that makes no sense."""
        named = [(TOGETHER[name], getattr(self, name)) for name in TOGETHER if getattr(self, name) is not None]
        wanted = [*named, *(((name,), (low, high)) for name, low, high in self.fields)]
        for names, (low, high) in wanted:
            if not 0 <= low <= high < np.inf:
                raise EnvError(f"{task}: {names[0]} cannot be scaled by {low} to {high}; give (lowest, highest), not negative.")
            value = getattr(model, names[0], None)
            if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
                raise EnvError(
                    f"{task}: randomization.fields has {names[0]!r}, which is no array of numbers in MuJoCo's MjModel."
                )
        return wanted

    def names(self, task: str, model: mujoco.MjModel) -> tuple[str, ...]:
        """Fields of `MjModel` that will differ between worlds."""
        return tuple(name for names, _ in self.ranges(task, model) for name in names)

    def derived(self, task: str, model: mujoco.MjModel) -> tuple[str, ...]:
        """Further fields that may differ then: constants that MuJoCo computes from the others."""
        names = set(self.names(task, model))
        needed = not names.isdisjoint(mujoco.MjModel._setconst_inputs)
        return tuple(name for name in DERIVED if needed and name not in names and getattr(model, name).size)

    def values(self, task: str, model: mujoco.MjModel, keys: Tensor) -> dict[str, Tensor]:
        """Those fields [worlds, ...] float64 on the device of `keys` [worlds] int64, the worlds' seeds."""
        found: dict[str, Tensor] = {}
        for names, factor in self.factors(task, model, keys):
            for name in names:
                base = torch.from_numpy(getattr(model, name).astype(np.float64)).to(keys.device)
                found[name] = base * factor.view(*factor.shape, *[1] * (base.ndim - 1))
        return found

    def factors(self, task: str, model: mujoco.MjModel, keys: Tensor) -> list[tuple[tuple[str, ...], Tensor]]:
        """Fields that share factors, and these factors [worlds, n] float64 of the worlds with the seeds `keys`."""
        found: list[tuple[tuple[str, ...], Tensor]] = []
        for number, (names, (low, high)) in enumerate(self.ranges(task, model)):
            count = len(getattr(model, names[0])) if self.each else 1
            draw = uniform(keys, torch.full_like(keys, FIRST_CLOCK - number), count).double()
            found.append((names, low + (high - low) * draw))
        return found

    def for_critics(self, task: str, model: mujoco.MjModel, keys: Tensor) -> Tensor | None:
        """What critics see of the worlds' factors [worlds, n] float64: all of them, or None if they are not shown or there are none."""
        factors = [factor for _, factor in self.factors(task, model, keys)]
        return torch.cat(factors, dim=1) if self.shown and factors else None

    def constants(self, task: str, model: mujoco.MjModel, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """The fields `derived` names, [worlds, ...] float64 on the CPU, for worlds with `values`: computed by the C engine on all cores."""
        names = self.derived(task, model)
        if not names:
            return {}
        batch = Batch(model, len(next(iter(values.values()))))
        found = {name: batch.expand(name) for name in names}
        for name, value in values.items():
            batch.expand(name)[:] = value.cpu().numpy()
        batch.set_const()
        return {name: torch.from_numpy(array.copy()) for name, array in found.items()}
