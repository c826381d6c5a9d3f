"""The words that every part of the suite shares: what an environment offers, one step of it, and one batch of replay."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Metrics = dict[str, Tensor]
"""What an update reports: name to scalar tensor. Reading one with `.item()` synchronises, so the loop does it only at logging time."""


@dataclass(frozen=True)
class Spec:
    """What an agent must know of an environment. Observations are flat vectors, float32 or, of `frames`, uint8; actions lie in [-1, 1]."""

    obs_size: int
    """Length of the flat observation vector."""
    action_size: int
    """Length of the action vector; every component lies in [-1, 1] (the environment rescales to its own bounds)."""
    horizon: int | None = None
    """Decisions after which an episode is truncated; None if there is no time limit."""
    can_terminate: bool = True
    """Whether the task has terminal states. False for dm-control, whose episodes only run out of time."""
    discrete: bool = False
    """Whether an action is one of `action_size` choices; it is then the one-hot vector of the choice."""
    picture: tuple[int, int, int] | None = None
    """Channels, height and width of the picture that the observation is, flattened; None if it is none."""
    frames: int | None = None
    """Frames that the picture consists of, one behind another in its channels, as uint8; replay stores each once. None: float32 observations."""
    policy_obs_size: int | None = None
    """How many of the observation's leading numbers the policy sees; None: all of them. The others are for critics and models alone (asymmetric actor
    and critic, Pinto et al. 2018, arXiv 1710.06542)."""

    @property
    def visible(self) -> int:
        """How many numbers of an observation the policy sees."""
        return self.obs_size if self.policy_obs_size is None else self.policy_obs_size

    def shown(self, obs: Tensor) -> Tensor:
        """What the policy sees [..., policy_obs_size] of observations [..., obs_size]."""
        return obs if self.policy_obs_size is None else obs[..., : self.policy_obs_size]

    def completed(self, obs: Tensor) -> Tensor:
        """Observations [..., obs_size] to act on, where some of what only critics see is not there: zeros stand for it."""
        missing = self.obs_size - obs.shape[-1]
        return nn.functional.pad(obs, (0, missing)) if 0 < missing <= self.obs_size - self.visible else obs

    def random_action(self, rows: int, generator: torch.Generator) -> Tensor:
        """Uniformly random actions [rows, action_size] on the generator's device: in [-1, 1], or one-hot choices."""
        if not self.discrete:
            return 2 * torch.rand(rows, self.action_size, generator=generator, device=generator.device) - 1
        choice = torch.randint(self.action_size, (rows,), generator=generator, device=generator.device)
        return nn.functional.one_hot(choice, self.action_size).float()


class Step(NamedTuple):
    """One step of `num_envs` worlds. All tensors live on the environment's device."""

    obs: Tensor
    """[num_envs, obs_size] float32 (uint8 where `Spec.frames` is given): the observation to act on next."""
    next_obs: Tensor
    """[num_envs, obs_size], of the same kind: the true successor to bootstrap from. Differs from `obs` only where an episode ended
    and the world was reset within the same call."""
    reward: Tensor
    """[num_envs] float32."""
    terminated: Tensor
    """[num_envs] bool: a terminal state was reached; its value is zero."""
    truncated: Tensor
    """[num_envs] bool: the episode was cut (time limit); its value is bootstrapped."""
    valid: Tensor
    """[num_envs] bool: False where this call only reset the world (Gymnasium's NEXT_STEP autoreset): the action was not
    used, the reward is zero, and the row is no transition."""
    info: dict[str, Any]
    """Whatever else the environment reports."""


class Batch(NamedTuple):
    """Transitions drawn from replay, each field with leading size [batch]."""

    obs: Tensor
    """[batch, obs_size] raw observations: float32, or uint8 where `Spec.frames` is given."""
    action: Tensor
    """[batch, action_size] in [-1, 1]."""
    reward: Tensor
    """[batch] raw rewards, summed with discounts over the n-step window."""
    next_obs: Tensor
    """[batch, obs_size] raw observation to bootstrap from, of the same kind."""
    discount: Tensor
    """[batch] gamma^k (1 - terminated) for the k steps the window really spans: time limits bootstrap, terminations do not."""
    weight: Tensor
    """[batch] weight of each row in the regression; one for uniform sampling."""
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]
    """[batch] int64 flat address `time * num_envs + env` of each row in its buffer."""
    next_action: Tensor | None = None
    """[batch, action_size] action stored in the following row; filled only when an agent asks for it."""
    goal_return: Tensor | None = None
    """[batch] discounted return from this row to the end of its trajectory; filled only when an agent asks for it."""


class Records(NamedTuple):
    """A whole data set as normalisers see it, before anything is learned from it."""

    obs: Tensor
    """[transitions, obs_size] raw observations."""
    reward: Tensor
    """[transitions] raw rewards, in the order recorded."""
    done: Tensor
    """[transitions] bool: the episode ended, or was cut, after this row."""
    returns: Tensor
    """[episodes] undiscounted raw returns."""
