"""Actors that send their transitions as messages: the learner writes them into replay, at an exact update ratio.

Every actor is asked for a number of transitions and answers with exactly so many. Two requests of `chunk` steps may be under way to each
actor, and no more is asked of it before the learner has learned from what came: neither side runs away from the other. What an actor
does not deliver, because it or its machine is lost, is asked of its successor; what came is in replay once.
"""

import copy
import logging
import pickle
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steelyard.agents.types import Step
from steelyard.envs.vector import VectorEnv
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.collected import TRIES, ActorError, Collected, Episode
from steelyard.trainers.evaluation import training_seed
from steelyard.trainers.messages import Acted, Chunk, Refusal, Request, flatten
from steelyard.trainers.remote_engine import Engine, LostError

LOOK = 1.0
"""Seconds between two looks at whether actors that owe an answer are late."""
AHEAD = 2
"""Requests of an actor that may be under way: while one travels it works on the other."""

log = logging.getLogger("steelyard.actors")


@dataclass
class Seat:
    """The place of one actor: its columns of replay stay, whoever sits there."""

    number: int
    columns: slice
    actor: Any = None
    beginning: Any = None
    """The answer that says it has begun; None once it came."""
    machine: str = "an unknown machine"
    asked: deque[tuple[Any, int]] = field(default_factory=deque)
    """Answers under way, oldest first, and how many transitions each will bring."""
    delivered: int = 0
    """Transitions that came from this seat, all occupants together."""
    since: float = 0.0
    """When it was last heard of, or first asked for what it owes now."""
    starts: int = 0
    fruitless: int = 0
    delivered_at_start: int = 0

    @property
    def owed(self) -> int:
        """Transitions asked for and not delivered."""
        return sum(count for _, count in self.asked)


class RemotePool:
    """Remote actors, seen as `ActorPool` is seen; a context manager that ends them."""

    def __init__(
        self,
        engine: Engine,
        make_env: Callable[[int], VectorEnv],
        policy: nn.Module,
        buffer: ReplayBuffer,
        num_actors: int,
        seed: int,
        random_transitions: int = 0,
        chunk: int = 16,
        patience: float = 120.0,
    ):
        """Prepare; `start` or entering the context starts the actors.

        `make_env`, `policy`, `seed` and `random_transitions` are those of `ActorPool`. `chunk` is the number of steps of an actor's worlds in one
        message. An actor that owes something for `patience` seconds is replaced; if none has begun for so long, that is an error.
        Raises `ActorError` if `buffer` does not divide into the actors' columns, or is written by other processes.
        """
        if buffer.placement == "shared":
            raise ActorError("placement of replay is 'shared', but only the learner writes what remote actors send; use 'host'.")
        if num_actors < 1 or buffer.num_envs % num_actors:
            raise ActorError(f"{buffer.num_envs} worlds do not divide among {num_actors} actors; choose a multiple.")
        if chunk < 1:
            raise ActorError(f"chunk is {chunk}; give one step or more to a message.")
        self.engine, self.make_env, self.buffer = engine, make_env, buffer
        self.worlds = buffer.num_envs // num_actors
        self.message, self.patience = chunk * self.worlds, patience
        self.policy = pickle.dumps(copy.deepcopy(policy).cpu())
        self.seed, self.random_transitions = seed, -(-random_transitions // num_actors)
        self.limit = self.restarts = self.version = 0
        self.seats = [Seat(actor, slice(actor * self.worlds, (actor + 1) * self.worlds)) for actor in range(num_actors)]
        self._state: Mapping[str, Tensor] = policy.state_dict()
        self._weights: Any = None
        self._finished: list[Episode] = []
        self._score, self._length = np.zeros(buffer.num_envs), np.zeros(buffer.num_envs, dtype=np.int64)
        self._nobody_since = 0.0
        self._told = False

    @property
    def collected(self) -> int:
        """Transitions that `collect` has returned since the start."""
        return sum(seat.delivered for seat in self.seats)

    @property
    def owed(self) -> int:
        """Transitions that have been asked for and not come."""
        return sum(seat.owed for seat in self.seats)

    def start(self) -> None:
        """Start the actors, with fresh episodes in all columns. Does not wait for them."""
        self.engine.open()
        self.buffer.cut()
        self._nobody_since = time.monotonic()
        for seat in self.seats:
            self._fill(seat)

    def allow(self, transitions: int) -> None:
        """Let the actors collect until `collected` is `transitions`, exactly."""
        self.limit = transitions

    def hold(self) -> None:
        """Lower the limit to what the actors have been asked for already."""
        self.limit = self.collected + self.owed

    def publish(self, state: Mapping[str, Tensor]) -> None:
        """New values of the policy's `state_dict()`: they go with the next request, and are laid out once for all actors."""
        self._state, self._weights = state, None

    def collect(self) -> Collected:
        """Wait for new rows, write them into replay and return them; nothing if the limit of `allow` is reached.

        Calling it says that the rows of the last call have been learned from. Raises `ActorError` if an actor reported an error, cannot be
        kept alive, or if there is nowhere to start one.
        """
        before, steps = self.collected, list[Step]()
        while self.collected == before < self.limit:
            self._ask()
            steps += self._receive(LOOK)
            self._supervise()
        return Collected(steps, self.collected - before)

    def episodes(self) -> list[Episode]:
        """Episodes that finished in the rows that `collect` returned since the last call; interrupted ones are left out."""
        finished, self._finished = self._finished, []
        return finished

    def close(self) -> None:
        """End the actors."""
        self.engine.close()

    def __enter__(self) -> "RemotePool":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self) -> None:
        """Keep `AHEAD` requests under way to every actor that has begun, and all together no more than the limit."""
        left = self.limit - self.collected - self.owed
        for seat in self.seats:
            while left > 0 and seat.beginning is None and len(seat.asked) < AHEAD:
                count = min(self.message, left)
                if self._weights is None:
                    self.version += 1
                    self._weights = self.engine.share(flatten(self._state))
                random = max(self.random_transitions - seat.delivered - seat.owed, 0)
                if not seat.asked:
                    seat.since = time.monotonic()
                answer = self.engine.collect(seat.actor, Request(count, random, self.version), self._weights)
                seat.asked.append((answer, count))
                left -= count

    def _receive(self, seconds: float) -> list[Step]:
        """Take the next answer of every actor that has one."""
        awaited = {
            seat.number: seat.beginning if seat.beginning is not None else seat.asked[0][0]
            for seat in self.seats
            if seat.beginning is not None or seat.asked
        }
        there = self.engine.ready(list(awaited.values()), seconds)
        columns: list[tuple[Seat, list[Acted]]] = []
        for number, answer in awaited.items():
            if answer not in there:
                continue
            seat = self.seats[number]
            try:
                value = self.engine.fetch(answer)
            except LostError as error:
                self._replace(seat, str(error))
                continue
            seat.since = time.monotonic()
            if isinstance(value, Refusal):
                raise ActorError(f"actor {number}: {value.words}")
            if seat.beginning is not None:
                seat.beginning, seat.machine = None, value
            else:
                columns.append((seat, self._store(seat, Chunk(*value))))
        return self._joined(columns)

    def _store(self, seat: Seat, chunk: Chunk) -> list[Acted]:
        """Write an answer into the seat's columns and count it."""
        acted, stepped = chunk.unpack()
        _, promised = seat.asked.popleft()
        for obs, action, step in acted:
            self.buffer.add(obs, action, step, seat.columns)
        for (_, _, step), moved in zip(acted, stepped, strict=True):
            self._count(seat.columns, step, moved)
        count = sum(int(step.valid.sum()) for *_, step in acted)
        if count != promised:
            raise ActorError(
                f"actor {seat.number} sent {count} transitions for {promised}; use one version of the suite on all machines."
            )
        seat.delivered += count
        return acted

    def _count(self, columns: slice, step: Step, moved: Tensor) -> None:
        """Take a step into the returns of the episodes under way; the row of a reset belongs to none."""
        self._score[columns] += (step.reward * moved).numpy()
        self._length[columns] += moved.numpy()
        for column in np.flatnonzero((step.terminated | step.truncated).numpy()) + columns.start:
            self._finished.append(Episode(float(self._score[column]), int(self._length[column])))
            self._score[column], self._length[column] = 0, 0

    def _joined(self, answers: list[tuple[Seat, list[Acted]]]) -> list[Step]:
        """Steps of all columns from the answers of some actors; where a column has no further row, as `Collected.steps` says."""
        n = self.buffer.num_envs
        steps: list[Step] = []
        for time_step in range(max((len(acted) for _, acted in answers), default=0)):
            spare = answers[0][1][0][2].obs.new_zeros(n, self.buffer.spec.obs_size)
            no = torch.zeros(n, dtype=torch.bool)
            whole = Step(spare, spare.clone(), torch.zeros(n), no, ~no, no.clone(), {})
            for seat, acted in answers:
                if time_step < len(acted):
                    step = acted[time_step][2]
                    for name in ("obs", "next_obs", "reward", "terminated", "truncated", "valid"):
                        getattr(whole, name)[seat.columns] = getattr(step, name)
            steps.append(whole)
        return steps

    def _supervise(self) -> None:
        """Replace actors that owe an answer for too long; give up if there is nobody to wait for."""
        now = time.monotonic()
        for seat in self.seats:
            if seat.beginning is None and seat.asked and now - seat.since > self.patience:
                self._replace(seat, f"it gave no answer for {self.patience:g} seconds")
        missing = [seat.number for seat in self.seats if seat.beginning is not None]
        if len(missing) < len(self.seats):
            self._nobody_since = now
        late = any(seat.beginning is not None and now - seat.since > self.patience for seat in self.seats)
        if now - self._nobody_since > self.patience:
            raise ActorError(
                f"no actor could be started within {self.patience:g} seconds: {self.engine.shortage()}, or, on busy machines, "
                "where Ray lets other processes go first, wait longer (collecting.patience)."
            )
        if late and not self._told:
            log.warning("actors %s have not begun yet, the others go on: %s", missing, self.engine.shortage())
        self._told = late

    def _replace(self, seat: Seat, words: str) -> None:
        """Start another actor, with fresh episodes, in the columns of one that is gone; what it owed is asked for again."""
        self.engine.stop(seat.actor)
        seat.asked.clear()
        self.buffer.cut(seat.columns)
        self._score[seat.columns], self._length[seat.columns] = 0, 0
        self.restarts += 1
        seat.fruitless = 0 if seat.delivered > seat.delivered_at_start else seat.fruitless + 1
        if seat.fruitless >= TRIES:
            raise ActorError(
                f"actor {seat.number} was lost {TRIES} times without a transition ({words}); "
                "run the task in one process (--actors 0) to see why."
            )
        log.warning(
            "actor %d on %s is lost (%s) and another is started; its %d transitions are kept",
            seat.number,
            seat.machine,
            words,
            seat.delivered,
        )
        self._fill(seat)

    def _fill(self, seat: Seat) -> None:
        origin = (self.seed, seat.number, seat.starts)
        seeds = (training_seed(origin, self.worlds), int(np.random.SeedSequence(origin).generate_state(2)[1]))
        seat.starts += 1
        seat.delivered_at_start, seat.since = seat.delivered, time.monotonic()
        seat.actor, seat.beginning = self.engine.start(self.make_env, self.policy, self.worlds, seeds)
