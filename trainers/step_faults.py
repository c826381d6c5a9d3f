"""Why replay cannot store a step that it is given, as one sentence."""

import torch
from torch import Tensor

from steelyard.agents.types import Spec, Step
from steelyard.trainers.stored_observations import StoredObservations


def shape(spec: Spec, n: int, obs: Tensor, action: Tensor, step: Step) -> str | None:
    """What is wrong with the shape of something in a step of `n` worlds; None if nothing is."""
    wide, flat = (n, spec.obs_size), (n,)
    given = (obs, step.obs, step.next_obs, action, step.reward, step.terminated, step.truncated, step.valid)
    wanted = (wide, wide, wide, (n, spec.action_size), flat, flat, flat, flat)
    if all(tensor.shape == shape for tensor, shape in zip(given, wanted, strict=True)):
        return None
    names = ("obs", "step.obs", "step.next_obs", "action", "step.reward", "step.terminated", "step.truncated", "step.valid")
    wrong = (entry for entry in zip(names, given, wanted, strict=True) if entry[1].shape != entry[2])
    name, tensor, expected = next(wrong)
    return (
        f"{name} has shape {list(tensor.shape)} where replay stores {list(expected)}; "
        "build the buffer from the spec and the number of worlds of this environment."
    )


def not_finite(kept: StoredObservations, obs: Tensor, action: Tensor, step: Step) -> str | None:
    """What of a step is NaN or infinite, as far as `kept` leaves it in float rows; None if nothing is. Waits for the device."""
    numbers = torch.cat((kept.in_row(obs), kept.in_row(step.next_obs), action, step.reward[:, None]), dim=-1).float()
    # One pass: differences from themselves are zero, but not those of infinities and NaN.
    if not (numbers - numbers).any():
        return None
    fields = {"obs": obs, "action": action, "reward": step.reward, "next_obs": step.next_obs}
    field = next(name for name, tensor in fields.items() if not bool(tensor.float().isfinite().all()))
    return f"{field} holds NaN or an infinity and was not stored; find out whether policy or world diverged."
