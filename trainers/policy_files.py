"""Policies of other projects in npz files, for recording data sets: plain weight matrices, told apart by their keys.

- D4RL's (rlkit's) policies have `fc0_weight`, ..., `last_fc_weight`, `last_fc_log_std_weight`, `nonlinearity` and `output_distribution`: a
  Gaussian, squashed by tanh if the distribution says so.
- Actors of Stable-Baselines3's SAC and TQC have `latent_pi_0_weight`, ..., `mu_weight` and `log_std_weight`: ReLU, and a Gaussian squashed by
  tanh.
- OpenAI's TRPO snapshots have `W0`, `b0`, ..., `W_out`, `b_out`, `obs_mean`, `obs_std` and `log_std`: tanh, and a Gaussian with a fixed
  deviation; the first axis of each array counts the snapshots.

Weights of the first two have the shape [outputs, inputs], of the last [snapshots, inputs, outputs].
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelyard.agents.errors import SteelyardError

LOG_STD_RANGE = (-20.0, 2.0)
"""Range to which both rlkit and Stable-Baselines3 clamp the logarithm of a policy's standard deviation."""
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "tanh": torch.tanh}


class PolicyFileError(SteelyardError):
    """A policy's file cannot be used. One sentence that names the file and the remedy."""


@dataclass
class GaussianPolicy:
    """A multilayer perceptron with a Gaussian over actions, as `trainers.evaluation.Actor` wants one."""

    hidden: list[tuple[Tensor, Tensor]]
    """Weights [outputs, inputs] and biases [outputs] of the hidden layers."""
    mean: tuple[Tensor, Tensor]
    log_std: tuple[Tensor, Tensor]
    """Weights and biases; weights of zero for a deviation that does not depend on the observation."""
    activation: Callable[[Tensor], Tensor]
    squash: bool
    """tanh after drawing; otherwise actions are clipped to [-1, 1]."""
    shift: Tensor
    """[obs_size], subtracted from observations."""
    scale: Tensor
    """[obs_size], by which they are divided."""
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    @property
    def obs_size(self) -> int:
        """Components of an observation."""
        return self.hidden[0][0].shape[1]

    @property
    def action_size(self) -> int:
        """Components of an action."""
        return self.mean[0].shape[0]

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool) -> Tensor:
        """Actions [N, action_size] in [-1, 1] for observations [N, obs_size]; drawn if `explore`, else the mean."""
        features = (obs - self.shift) / self.scale
        for weight, bias in self.hidden:
            features = self.activation(torch.nn.functional.linear(features, weight, bias))
        action = torch.nn.functional.linear(features, *self.mean)
        if explore:
            log_std = torch.nn.functional.linear(features, *self.log_std).clamp(*LOG_STD_RANGE)
            action = action + log_std.exp() * torch.randn(action.shape, generator=self.generator)
        return action.tanh() if self.squash else action.clamp(-1.0, 1.0)


def read_policy(path: Path, *, snapshot: int = -1, seed: int = 0) -> GaussianPolicy:
    """The policy in an npz file. `snapshot`: which one of a file of snapshots (-1: the last). `seed`: of its drawn actions.

    Raises `PolicyFileError` if the file is missing or damaged, or if its keys are not those of a kind in the module's table.
    """
    arrays = _read(path)
    try:
        if {"fc0_weight", "last_fc_weight", "output_distribution"} <= arrays.keys():
            policy = _rlkit(arrays)
        elif {"latent_pi_0_weight", "mu_weight", "log_std_weight"} <= arrays.keys():
            policy = _stable_baselines(arrays)
        elif {"W0", "W_out", "log_std", "obs_mean", "obs_std"} <= arrays.keys():
            policy = _trpo(path, arrays, snapshot)
        else:
            raise PolicyFileError(
                f"{path} has the keys {', '.join(list(arrays)[:6])}, which are no known policy's; give a policy of D4RL, "
                "Stable-Baselines3 or OpenAI's TRPO snapshots, or a run folder."
            )
        policy.act(torch.zeros(1, policy.obs_size), explore=True)  # shapes that do not fit each other show here
    except (KeyError, ValueError, IndexError, RuntimeError, TypeError) as error:
        if isinstance(error, SteelyardError):
            raise
        raise PolicyFileError(f"the weights in {path} do not fit each other ({' '.join(str(error).split())}).") from error
    policy.generator.manual_seed(seed)
    return policy


def snapshots(path: Path) -> int:
    """How many policies the file holds. Raises `PolicyFileError` if it cannot be read."""
    arrays = _read(path)
    return len(arrays["iteration"]) if "iteration" in arrays else 1


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array")
        with archive:
            return {key: archive[key] for key in archive.files}
    except FileNotFoundError:
        raise PolicyFileError(f"there is no file {path}; give a run folder, an npz policy or the word random.") from None
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise PolicyFileError(f"{path} is no npz file of arrays ({' '.join(str(error).split())[:100]}).") from error


def _rlkit(arrays: dict[str, NDArray[Any]]) -> GaussianPolicy:
    nonlinearity, distribution = _word(arrays, "nonlinearity", "relu"), _word(arrays, "output_distribution", "")
    if nonlinearity not in ACTIVATIONS or distribution not in ("tanh_gaussian", "gaussian"):
        raise PolicyFileError(
            f"a policy with nonlinearity {nonlinearity!r} and output_distribution {distribution!r} is not known; "
            "give one with relu or tanh and with tanh_gaussian or gaussian."
        )
    hidden = _layers(arrays, "fc{}")
    return GaussianPolicy(
        hidden,
        _layer(arrays, "last_fc"),
        _layer(arrays, "last_fc_log_std"),
        ACTIVATIONS[nonlinearity],
        distribution == "tanh_gaussian",
        *_no_filter(hidden),
    )


def _stable_baselines(arrays: dict[str, NDArray[Any]]) -> GaussianPolicy:
    hidden = _layers(arrays, "latent_pi_{}", step=2)  # odd numbers are the activations
    return GaussianPolicy(hidden, _layer(arrays, "mu"), _layer(arrays, "log_std"), torch.relu, True, *_no_filter(hidden))


def _trpo(path: Path, arrays: dict[str, NDArray[Any]], snapshot: int) -> GaussianPolicy:
    count = len(arrays["W0"])
    if not -count <= snapshot < count:
        raise PolicyFileError(f"{path} holds the snapshots 0 to {count - 1}; snapshot {snapshot} is none of them.")
    one = {key: _tensor(array[snapshot]) for key, array in arrays.items() if len(array) == count}
    hidden = []
    while f"W{len(hidden)}" in one:
        hidden.append((one[f"W{len(hidden)}"].T.contiguous(), one[f"b{len(hidden)}"]))
    mean = (one["W_out"].T.contiguous(), one["b_out"])
    log_std = (torch.zeros_like(mean[0]), one["log_std"])
    return GaussianPolicy(hidden, mean, log_std, torch.tanh, False, one["obs_mean"], one["obs_std"].clamp(min=1e-6))


def _layers(arrays: dict[str, NDArray[Any]], pattern: str, step: int = 1) -> list[tuple[Tensor, Tensor]]:
    layers = []
    while f"{pattern.format(step * len(layers))}_weight" in arrays:
        layers.append(_layer(arrays, pattern.format(step * len(layers))))
    return layers


def _layer(arrays: dict[str, NDArray[Any]], name: str) -> tuple[Tensor, Tensor]:
    return _tensor(arrays[f"{name}_weight"]), _tensor(arrays[f"{name}_bias"])


def _no_filter(hidden: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    size = hidden[0][0].shape[1]
    return torch.zeros(size), torch.ones(size)


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _word(arrays: dict[str, NDArray[Any]], key: str, default: str) -> str:
    value = arrays[key].item() if key in arrays else default
    return value.decode() if isinstance(value, bytes) else str(value)
