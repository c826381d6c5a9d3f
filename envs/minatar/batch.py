"""MinAtar's games with many worlds at once, on tensors."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelyard.agents.types import Step
from steelyard.envs.draws import uniform
from steelyard.envs.edge import Choices, check_actions
from steelyard.envs.minatar import GAMES, Settings
from steelyard.envs.minatar.picture import draw
from steelyard.envs.vector import EnvError


class Worlds(NamedTuple):
    """All that determines the future of the worlds."""

    key: Tensor
    """[worlds] int64: seeds."""
    clock: Tensor
    """[worlds] int64: steps and resets since the seeds were given."""
    age: Tensor
    """[worlds] int64: steps of the episode."""
    action: Tensor
    """[worlds] int64: the last action, which the game may repeat, even in the next episode."""
    state: Any
    """The state of the game: a named tuple of tensors with the worlds in front."""


class MinAtarBatch:
    """`num_envs` worlds of one game under the contract of `VectorEnv`; the rules are those of the package `minatar`.

    A world that ended is reset in the same call. What happens in world i depends on `seed + i` and its actions alone. `advance` is a step
    after its actions were checked: tensors in, tensors out, ready to be compiled or captured.
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
        """`task`: one of `GAMES`. `render_size`: height and width of pictures in pixels, 200 by default."""
        self.num_envs, self.device = num_envs, torch.device(device)
        self._task, self._settings, self._render_size = task, settings or Settings(), render_size
        self._game = GAMES[task](self._settings.ramping)
        self.spec = self._game.spec(self._settings)
        self._choices = Choices(task, start=0)
        self._actions = torch.tensor(self._game.actions(self._settings), device=self.device)
        # Where nothing is drawn at the start of an episode, it is worked out once.
        self._fixed_start = None if self._game.start_draws else self._begin(torch.zeros(1, 0, device=self.device))
        self.reset(seed=0)

    def reset(self, seed: int | None = None) -> Tensor:
        """Start a new episode in every world; world i gets `seed + i`. Returns [num_envs, obs_size] float32."""
        zero = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
        if seed is None:
            key, clock, action = self._worlds.key, self._worlds.clock + 1, self._worlds.action
        else:
            key, clock, action = seed + torch.arange(self.num_envs, device=self.device), zero, zero
        *_, start = self._draws(key, clock)
        state, obs = self._begin(start)
        self._worlds = Worlds(key, clock, zero, action, state)
        return obs

    def step(self, action: Tensor) -> Step:
        """Apply one-hot choices [num_envs, action_size] of `game.ACTIONS`."""
        self._choices.to_world(check_actions(self._task, action, (self.num_envs, self.spec.action_size)))
        self._worlds, step = self.advance(self._worlds, action)
        return step

    def advance(self, worlds: Worlds, action: Tensor) -> tuple[Worlds, Step]:
        """The worlds after a step, and the step. `action` [worlds, action_size]: one-hot, which is not checked."""
        clock = worlds.clock + 1
        sticky, step, start = self._draws(worlds.key, clock)
        chosen = torch.where(sticky < self._settings.sticky, worlds.action, self._actions[action.argmax(1)])
        state, reward, terminated = self._game.step(worlds.state, chosen, step)
        next_obs = self._game.picture(state).flatten(1)
        age, truncated = worlds.age + 1, torch.zeros_like(terminated)
        if self._settings.time_limit is not None:
            truncated = age >= self._settings.time_limit
        done = terminated | truncated
        new, new_obs = self._fixed_start or self._begin(start)
        state = type(state)(*(_where(done, fresh, old) for fresh, old in zip(new, state, strict=True)))
        taken = Step(
            obs=_where(done, new_obs, next_obs),
            next_obs=next_obs,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            valid=torch.ones_like(done),
            info={},
        )
        return Worlds(worlds.key, clock, torch.where(done, 0, age), chosen, state), taken

    def render(self) -> NDArray[np.uint8]:
        """An RGB picture [height, width, 3] uint8 of world 0."""
        state = self._worlds.state
        cells = self._game.picture(type(state)(*(field[:1] for field in state)))[0]
        return draw(cells.cpu().numpy() > 0, self._render_size)

    def state_dict(self) -> dict[str, Any]:
        """All that determines the future of the worlds."""
        fields = {name: value.clone() for name, value in self._worlds._asdict().items() if name != "state"}
        return {**fields, "state": {name: value.clone() for name, value in self._worlds.state._asdict().items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken. Raises `EnvError` if it was taken of another number of worlds."""
        if len(state["key"]) != self.num_envs:
            raise EnvError(f"{self._task}: a state of {len(state['key'])} worlds was saved and there are {self.num_envs}.")
        game = {name: value.to(self.device).clone() for name, value in state["state"].items()}
        fields = {name: value.to(self.device).clone() for name, value in state.items() if name != "state"}
        self._worlds = Worlds(**fields, state=type(self._worlds.state)(**game))

    def close(self) -> None:
        """Nothing to release."""

    def _begin(self, draws: Tensor) -> tuple[Any, Tensor]:
        """State of the game at the start of an episode, and its observation [worlds, obs_size]."""
        state = self._game.start(draws)
        return state, self._game.picture(state).flatten(1)

    def _draws(self, key: Tensor, clock: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Random numbers of a step: whether the last action is repeated [worlds], for the step and for a start [worlds, count]."""
        counts = self._game.step_draws, self._game.start_draws
        sticky, step, start = uniform(key, clock, 1 + sum(counts)).split((1, *counts), 1)
        return sticky[:, 0], step, start


def _where(condition: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """`torch.where` with a condition on worlds [worlds] for tensors [worlds, ...]."""
    return torch.where(condition.view(-1, *[1] * (old.ndim - 1)), new, old)
