"""Worlds of the package `minatar` (Young & Tian 2019), stepped one after the other."""

from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelyard.agents.types import Spec, Step
from steelyard.envs.edge import Choices, check_actions
from steelyard.envs.minatar import GAMES, Settings
from steelyard.envs.minatar.picture import draw
from steelyard.envs.snapshot import WorldSnapshot
from steelyard.envs.vector import EnvError


class MinAtarEnv:
    """`num_envs` worlds of one game under the contract of `VectorEnv`.

    Observations are the package's, with the channels in front, flattened. A world that ended is reset in the same call.
    """

    def __init__(
        self,
        task: str,
        num_envs: int,
        *,
        settings: Settings | None = None,
        device: torch.device | str = "cpu",
        render_size: int | None = None,
    ):
        """`task`: one of `GAMES`. `render_size`: height and width of pictures in pixels, 200 by default.

        Raises `EnvError` if the package is not installed.
        """
        self.num_envs, self.device = num_envs, torch.device(device)
        self._task, self._settings, self._render_size = task, settings or Settings(), render_size
        game, package = GAMES[task](), _package(task)
        self.spec: Spec = game.spec(self._settings)
        self._choices, self._actions = Choices(task, start=0), game.actions(self._settings)
        name = task.removeprefix("minatar-")
        self._worlds = [
            package.Environment(name, sticky_action_prob=self._settings.sticky, difficulty_ramping=self._settings.ramping)
            for _ in range(num_envs)
        ]
        self._snapshot = WorldSnapshot(self._worlds[0])
        self._age = np.zeros(num_envs, dtype=np.int64)

    def reset(self, seed: int | None = None) -> Tensor:
        """Start a new episode in every world; world i gets `seed + i`. Returns [num_envs, obs_size] float32."""
        for index, world in enumerate(self._worlds):
            if seed is not None:
                world.seed(seed + index)
                world.last_action = 0  # else the first step might repeat an action from before the seed
            world.reset()
        self._age = np.zeros(self.num_envs, dtype=np.int64)
        return self._tensor(np.stack([_flat(world) for world in self._worlds]))

    def step(self, action: Tensor) -> Step:
        """Apply one-hot choices [num_envs, action_size] of `minatar.game.ACTIONS`."""
        choices = self._choices.to_world(check_actions(self._task, action, (self.num_envs, self.spec.action_size)))
        observed = np.empty((self.num_envs, self.spec.obs_size), dtype=np.float32)
        reward, terminated = np.zeros(self.num_envs, dtype=np.float32), np.zeros(self.num_envs, dtype=np.bool_)
        for index, world in enumerate(self._worlds):
            reward[index], terminated[index] = world.act(self._actions[choices[index]])
            observed[index] = _flat(world)
        self._age = self._age + 1
        truncated = np.zeros_like(terminated)
        if self._settings.time_limit is not None:
            truncated = self._age >= self._settings.time_limit
        ended = terminated | truncated
        started = observed.copy() if ended.any() else observed
        for index in np.flatnonzero(ended):
            self._worlds[index].reset()
            started[index] = _flat(self._worlds[index])
        self._age[ended] = 0
        return Step(
            obs=self._tensor(started),
            next_obs=self._tensor(observed),
            reward=self._tensor(reward),
            terminated=self._tensor(terminated),
            truncated=self._tensor(truncated),
            valid=torch.ones(self.num_envs, dtype=torch.bool, device=self.device),
            info={},
        )

    def render(self) -> NDArray[np.uint8]:
        """An RGB picture [height, width, 3] uint8 of world 0."""
        return draw(self._worlds[0].state().transpose(2, 0, 1), self._render_size)

    def state_dict(self) -> dict[str, Any] | None:
        """All that determines the future of the worlds."""
        worlds = [self._snapshot.save(world) for world in self._worlds]
        if any(world is None for world in worlds):
            return None
        return {"worlds": worlds, "age": torch.from_numpy(self._age.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken. Raises `EnvError` if it was taken of another number of worlds."""
        if len(state["worlds"]) != self.num_envs:
            raise EnvError(f"{self._task}: a state of {len(state['worlds'])} worlds was saved and there are {self.num_envs}.")
        for world, saved in zip(self._worlds, state["worlds"], strict=True):
            self._snapshot.load(world, saved)
        self._age = state["age"].numpy().copy()

    def close(self) -> None:
        """Nothing to release."""

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def _flat(world: Any) -> NDArray[np.float32]:
    """The observation of one world, channels in front."""
    return world.state().transpose(2, 0, 1).astype(np.float32).ravel()


def _package(task: str) -> ModuleType:
    try:
        import minatar
    except ModuleNotFoundError:
        raise EnvError(
            f"{task}: the package of MinAtar's games is not installed; install it with pip install 'steelyard[minatar]', or play the "
            "same games without it by vectorization='batch'."
        ) from None
    return minatar
