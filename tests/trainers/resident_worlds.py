"""Worlds for tests of what lives on a device: all tensors, resets within the call, and no question to the device but in `check`."""

from typing import Any

import torch
from torch import Tensor

from steelyard.agents.types import Spec, Step
from steelyard.envs.vector import EnvError


class Drift:
    """Points in a plane that actions push; reward falls with the distance from the origin. Episodes of world i are cut after 5 + i % 3 steps.

    A point that leaves the unit square by far has failed. The third number of the observation is the age of the episode.
    """

    def __init__(self, num_envs: int, device: str = "cpu", staggered: bool = False):
        self.num_envs, self.device = num_envs, torch.device(device)
        self.spec = Spec(obs_size=3, action_size=2, horizon=7)
        self.world = torch.arange(num_envs, device=device)
        self.staggered, self.looks, self.broken = staggered, 0, torch.zeros((), dtype=torch.bool, device=device)
        self.reset(0)

    def reset(self, seed: int | None = None) -> Tensor:
        self.key = self.world + (seed or 0)
        self.age = self.key % 4 if self.staggered else torch.zeros_like(self.world)
        self.point = self.start()
        return self.observe()

    def start(self) -> Tensor:
        draw = torch.stack((self.key * 37 % 101, self.key * 53 % 103), -1)
        return draw.float() / 50 - 1

    def observe(self) -> Tensor:
        return torch.cat((self.point, self.age[:, None].float()), -1)

    def step(self, action: Tensor) -> Step:
        self.broken = self.broken | ~(action.abs() <= 1).all()
        self.point = self.point + 0.3 * action
        self.age = self.age + 1
        reward, next_obs = 1 - self.point.norm(dim=-1), self.observe()
        terminated, truncated = (self.point.abs() > 1.8).any(-1), self.age >= 5 + self.world % 3
        done = terminated | truncated
        self.key = self.key + 7 * done
        self.point = torch.where(done[:, None], self.start(), self.point)
        self.age = torch.where(done, 0, self.age)
        return Step(self.observe(), next_obs, reward, terminated, truncated & ~terminated, torch.ones_like(done), {})

    def check(self) -> None:
        self.looks += 1
        if bool(self.broken):
            raise EnvError("drift: an action is out of bounds; clamp the policy's output.")

    def render(self) -> Any:
        raise EnvError("drift: nothing to see.")

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).clone() for name in ("key", "age", "point", "broken")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value.to(self.device).clone())

    def close(self) -> None:
        pass


def make(task: str, num_envs: int, *, device: str = "cpu", staggered: bool = False, **options: Any) -> Drift:
    """Stands for `envs.make`."""
    return Drift(num_envs, device, staggered)
