"""Observations in two parts: one that the policy sees, and one for critics alone."""

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

PARTS = (("actor", "critic"), ("policy", "critic"))
"""Keys of a Dict space that name the two parts, the policy's first: the asymmetric pair, and what simulators of robots such as Isaac Lab call it."""


def policy_and_critic(space: gym.Space[Any]) -> tuple[str, str] | None:
    """The keys of the policy's part and the critics', if `space` consists of these two; else None."""
    if not isinstance(space, gym.spaces.Dict):
        return None
    return next((pair for pair in PARTS if set(pair) == set(space.spaces)), None)


class PolicyFirst(gym.ObservationWrapper):
    """A world whose two parts are one vector: first the policy's, behind it the critics'. Critics see both."""

    def __init__(self, env: gym.Env, pair: tuple[str, str]):
        """`pair`: what `policy_and_critic` found."""
        super().__init__(env)
        assert isinstance(env.observation_space, gym.spaces.Dict)  # policy_and_critic saw to it
        self._parts = {key: env.observation_space.spaces[key] for key in pair}
        flat = [gym.spaces.flatten_space(part) for part in self._parts.values()]
        self.policy_obs_size = gym.spaces.flatdim(self._parts[pair[0]])
        low, high = (np.concatenate([np.asarray(getattr(box, side), np.float64) for box in flat]) for side in ("low", "high"))
        self.observation_space = gym.spaces.Box(low, high, dtype=np.float64)

    def observation(self, observation: Any) -> NDArray[np.float64]:
        """[policy_obs_size + the critics' part]."""
        return np.concatenate([np.asarray(gym.spaces.flatten(part, observation[key])) for key, part in self._parts.items()])
