"""Collecting in other processes, seen from the training loop."""

from collections.abc import Mapping
from typing import Any

from steelyard.agents.acting import ActingAgent
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.collected import Episode
from steelyard.trainers.collecting import Pool
from steelyard.trainers.config import Run


class ActorCollector:
    """`run.actors` actors with `run.num_envs` worlds each, which fill replay while the learner updates; `run.collecting` says where they are.

    They collect up to the next checkpoint and stand still while it is written. After a resume their worlds start new episodes.
    """

    def __init__(self, run: Run, agent: ActingAgent, buffer: ReplayBuffer):
        self.run, self.agent, self.buffer = run, agent, buffer
        self.total = -(-run.env_steps // run.action_repeat)
        self.before = 0
        self.pool: Pool | None = None

    def collect(self) -> int:
        """Wait for new transitions, show them to the running statistics, and return how many."""
        pool = self.pool or self.start()
        if pool.collected == pool.limit:
            done = self.before + pool.collected
            pool.allow(min(self.next_checkpoint(done), self.total) - self.before)
        new = pool.collect()
        for step in new.steps:
            self.agent.observe(step)
        return new.transitions

    def next_checkpoint(self, transitions: int) -> int:
        """Transitions of the whole run at which, after so many, the next checkpoint is due: intervals count environment steps."""
        interval, repeat = self.run.checkpoint_interval, self.run.action_repeat
        return -(-(transitions * repeat // interval + 1) * interval // repeat)

    def start(self) -> Pool:
        """The actors, once it is known how far the run has come."""
        run = self.run
        self.pool = run.collecting.pool(
            run, self.agent.explorer(), self.buffer, run.seed + self.before, max(run.random_steps - self.before, 0)
        )
        self.pool.start()
        return self.pool

    def episodes(self) -> list[Episode]:
        """Episodes that finished since the last call."""
        return self.pool.episodes() if self.pool else []

    def publish(self) -> None:
        """Give the actors the newest policy."""
        if self.pool:
            self.pool.publish(self.agent.explorer().state_dict())

    def rest(self) -> bool:
        """Allow no further transitions; True once all that were allowed have been collected."""
        if self.pool is None:
            return True
        self.pool.hold()
        return self.pool.collected == self.pool.limit

    def state_dict(self) -> dict[str, Any]:
        """How many transitions were collected."""
        return {"transitions": self.before + (self.pool.collected if self.pool else 0)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue counting."""
        self.before = state["transitions"]

    def close(self) -> None:
        """End the actors."""
        if self.pool:
            self.pool.close()
