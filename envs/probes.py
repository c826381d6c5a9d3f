"""Tiny worlds with known answers, each of which fails for one mistake in an agent (after the probe environments of A. Jones).

An agent that cannot learn one of these in seconds has a bug, and which one it fails says where to look. With discount gamma:

| task | what happens | the answer |
|---|---|---|
| `probe-constant` | one step, reward 1 | value 1 |
| `probe-observation` | one step, reward = observation in [-1, 1] | value = observation |
| `probe-discount` | observation 0, then 1; reward 0, then 1 | value gamma at 0, and 1 at 1 |
| `probe-action` | one step, reward 1 - (action - 0.5)^2 | action 0.5, value 1 |
| `probe-action-observation` | one step, reward 1 - (action - observation)^2 | action = observation, value 1 |
| `probe-truncation` | reward 1 at every step, cut after 5 | value 1 / (1 - gamma), only if truncation bootstraps |
| `probe-choice` | one step, three choices, reward 1 for the last | values 0, 0, 1 |
| `probe-choice-observation` | one step, two choices, reward 1 for the sign of the observation | values 1, 0 below zero, 0, 1 above |
| `probe-choice-discount` | observation 0, then 1; two choices; in the second step reward 1 for the last | values gamma at 0; 0, 1 at 1 |
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from steelyard.agents.types import Spec, Step
from steelyard.envs.edge import Choices, check_actions
from steelyard.envs.vector import EnvError


@dataclass(frozen=True)
class Probe:
    """The rules of one probe; tensors are [num_envs]."""

    reward: Callable[[Tensor, Tensor], Tensor]
    """(observation acted on, action or number of the choice) to reward."""
    length: int = 1
    """Steps of an episode."""
    truncates: bool = False
    """Whether episodes are cut rather than ended."""
    draws: bool = False
    """Whether the observation is drawn from U(-1, 1) at each start; otherwise it is zero."""
    counts: bool = False
    """Whether the observation counts the steps of the episode."""
    choices: int = 0
    """Number of choices of action; zero for an action in [-1, 1]."""


class ProbeEnv:
    """`num_envs` worlds of one probe under the contract of `VectorEnv`, reset in the call that ends their episode."""

    def __init__(self, task: str, probe: Probe, num_envs: int, *, device: torch.device | str = "cpu"):
        """Observations have one component, actions too unless they are one-hot choices."""
        self.num_envs, self.device = num_envs, torch.device(device)
        self._task, self._probe = task, probe
        self._key = torch.arange(num_envs, device=self.device)
        self._episode = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._age = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.spec = Spec(
            obs_size=1,
            action_size=probe.choices or 1,
            horizon=probe.length,
            can_terminate=not probe.truncates,
            discrete=probe.choices > 0,
        )
        self._choices = Choices(task, start=0)

    def reset(self, seed: int | None = None) -> Tensor:
        """Start a new episode in every world; world i gets `seed + i`. Returns [num_envs, 1] float32."""
        if seed is None:
            self._episode = self._episode + 1
        else:
            self._key = seed + torch.arange(self.num_envs, device=self.device)
            self._episode = torch.zeros_like(self._episode)
        self._age = torch.zeros_like(self._age)
        return self._observe()[:, None]

    def step(self, action: Tensor) -> Step:
        """Apply actions [num_envs, 1] in [-1, 1], or one-hot choices [num_envs, choices]."""
        array = check_actions(self._task, action, (self.num_envs, self.spec.action_size))
        if self.spec.discrete:
            self._choices.to_world(array)
        taken = action.argmax(-1) if self.spec.discrete else action[:, 0]
        reward = self._probe.reward(self._observe(), taken.float())
        self._age = self._age + 1
        next_obs = self._observe()[:, None]
        done = self._age == self._probe.length
        self._episode, self._age = self._episode + done, torch.where(done, 0, self._age)
        never = torch.zeros_like(done)
        return Step(
            obs=torch.where(done[:, None], self._observe()[:, None], next_obs),
            next_obs=next_obs,
            reward=reward,
            terminated=never if self._probe.truncates else done,
            truncated=done if self._probe.truncates else never,
            valid=torch.ones_like(done),
            info={},
        )

    def render(self) -> Any:
        """Raises `EnvError`: there is nothing to see."""
        raise EnvError(f"{self._task}: probe worlds have no picture.")

    def state_dict(self) -> dict[str, Any]:
        """All that determines the future of the worlds."""
        return {"key": self._key.clone(), "episode": self._episode.clone(), "age": self._age.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        if len(state["key"]) != self.num_envs:
            raise EnvError(f"{self._task}: a state of {len(state['key'])} worlds was saved and there are {self.num_envs}.")
        self._key, self._episode, self._age = (state[name].to(self.device).clone() for name in ("key", "episode", "age"))

    def close(self) -> None:
        """Nothing to release."""

    def _observe(self) -> Tensor:
        """[num_envs] float32."""
        if self._probe.draws:
            return _uniform(self._key, self._episode)
        return self._age.float() if self._probe.counts else torch.zeros(self.num_envs, device=self.device)


def _uniform(key: Tensor, episode: Tensor) -> Tensor:
    """U(-1, 1) [num_envs] float32 as a hash of two int64 tensors, so that a world's draws depend on its own seed alone."""
    bits = key * 0x27D4EB2F165667C5 + episode * 0x165667B19E3779F9 + 0x27220A95
    for _ in range(2):  # multiplications wrap around; the mask makes the shift a logical one
        bits = (bits ^ ((bits >> 31) & 0x1FFFFFFFF)) * 0x3C6EF372FE94F82B
    return ((bits >> 40) & 0xFFFFFF).float() / 2**23 - 1.0


def _near(target: Tensor | float, action: Tensor) -> Tensor:
    return 1.0 - (action - target).square()


_RULES: dict[str, Probe] = {
    "probe-constant": Probe(reward=lambda obs, action: torch.ones_like(action)),
    "probe-observation": Probe(reward=lambda obs, action: obs, draws=True),
    "probe-discount": Probe(reward=lambda obs, action: obs, length=2, counts=True),
    "probe-action": Probe(reward=lambda obs, action: _near(0.5, action)),
    "probe-action-observation": Probe(reward=_near, draws=True),
    "probe-truncation": Probe(reward=lambda obs, action: torch.ones_like(action), length=5, truncates=True),
    "probe-choice": Probe(reward=lambda obs, choice: (choice == 2).float(), choices=3),
    "probe-choice-observation": Probe(reward=lambda obs, choice: (choice == (obs > 0)).float(), draws=True, choices=2),
    "probe-choice-discount": Probe(reward=lambda obs, choice: obs * choice, length=2, counts=True, choices=2),
}

PROBES: dict[str, Callable[..., ProbeEnv]] = {task: partial(ProbeEnv, task, probe) for task, probe in _RULES.items()}
"""Task id to what builds it from `num_envs` and `device`."""
