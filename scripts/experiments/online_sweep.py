"""Agents side by side that learn online, each in a world of its own: an update for every step."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.control_worlds import Worlds
from experiments.side_by_side import SideBySide
from steelyard.agents.types import Batch, Spec, Step

Store = Callable[[Step], Tensor]
"""What rewards [members] replay gets to see of a step."""


class Memory:
    """The newest transitions of each member, a packed row for each: `obs | action | next_obs | reward | discount`."""

    def __init__(self, members: int, capacity: int, spec: Spec):
        self.members, self.capacity, self.added = members, capacity, 0
        self.widths = (spec.obs_size, spec.action_size, spec.obs_size, 1, 1)
        self.rows = torch.zeros(capacity * members, sum(self.widths))

    def add(self, obs: Tensor, action: Tensor, next_obs: Tensor, reward: Tensor, discount: Tensor) -> None:
        """Store one transition per member, columns [members, ...]."""
        start = self.added % self.capacity * self.members
        columns = (obs, action, next_obs, reward[:, None], discount[:, None])
        self.rows[start : start + self.members] = torch.cat(columns, -1)
        self.added += 1

    def draw(self, size: int, generator: torch.Generator) -> Batch:
        """A batch [members, size, ...] for every member, from its own transitions."""
        time = torch.randint(min(self.added, self.capacity), (self.members, size), generator=generator)
        index = time * self.members + torch.arange(self.members)[:, None]
        rows = self.rows.index_select(0, index.flatten()).view(self.members, size, -1)
        obs, action, next_obs, reward, discount = rows.split(self.widths, -1)
        return Batch(obs, action, reward[..., 0], next_obs, discount[..., 0], torch.ones(index.shape), index)


def learn(
    agents: SideBySide,
    worlds: Worlds,
    *,
    steps: int,
    random_steps: int,
    capacity: int,
    batch_size: int,
    discount: float,
    generator: torch.Generator,
    store: Store = lambda step: step.reward,
) -> Iterator[Step]:
    """Yields every step of the worlds, one per agent, after the update that followed it.

    Time limits bootstrap. The first `random_steps` actions are random and no update follows them.
    """
    obs, spec = worlds.observe(), worlds.spec
    memory = Memory(agents.members, capacity, spec)
    for count in range(steps):
        if count < random_steps:
            action = spec.random_action(agents.members, generator)
        else:
            noise = torch.randn(agents.members, 1, spec.action_size, generator=generator)
            action = agents.choose(obs[:, None], noise)[:, 0]
        step = worlds.step(action)
        memory.add(obs, action, step.next_obs, store(step), discount * (1 - step.terminated.float()))
        obs = step.obs
        if count >= random_steps:
            agents.update(memory.draw(batch_size, generator), torch.randn(agents.draws(batch_size), generator=generator))
        yield step


def first_episodes(steps: Iterator[Step], members: int, episodes: int) -> NDArray[np.float64]:
    """[members, episodes] returns of the first episodes of each member. Stops when all have finished so many."""
    found: list[list[float]] = [[] for _ in range(members)]
    running = torch.zeros(members)
    for step in steps:
        running += step.reward
        for member in (step.terminated | step.truncated).nonzero()[:, 0].tolist():
            found[member].append(float(running[member]))
            running[member] = 0
        if all(len(returns) >= episodes for returns in found):
            break
    return np.array([returns[:episodes] for returns in found])
