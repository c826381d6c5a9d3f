"""Actors in other processes, which write into shared replay while the learner updates, at an exact update ratio.

Each actor owns columns of replay and writes them without a lock. The learner sees every completed row once (`collect`), and by asking
again it says that it has learned from those: an actor may be ahead of that by `lead / num_actors` transitions, then it waits. So the
learner's schedule, fed with the counts of `collect`, is exact, and neither side runs away from the other.
"""

import copy
import functools
import logging
import multiprocessing
import pickle
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import numpy as np
import torch
import torch.multiprocessing  # teaches pickle to send shared tensors
from torch import Tensor, nn

from steelyard.agents.types import Step
from steelyard.envs.vector import VectorEnv
from steelyard.trainers.actor_process import PAUSE, Assignment, Board, run
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.collected import TRIES, ActorError, Collected, Episode
from steelyard.trainers.evaluation import training_seed
from steelyard.trainers.shared_weights import SharedWeights

PATIENCE = 120.0
"""Seconds without a sign of life after which an actor's process is killed and replaced."""
STARTUP = 600.0
"""Seconds that an actor's process may take to its first sign of life: it imports simulators and builds its worlds."""
LOOK = 0.05
"""Seconds between two looks at whether the actors' processes live: asking the system costs more than reading replay."""

log = logging.getLogger("steelyard.actors")


class ActorPool:
    """Processes that collect; a context manager that ends them.

    `with ActorPool(...) as pool: pool.allow(100_000); new = pool.collect(); ...; pool.publish(policy.state_dict())`

    The main script needs `if __name__ == "__main__":`, as always with processes that are not plain forks.
    """

    def __init__(
        self,
        make_env: Callable[[int], VectorEnv],
        policy: nn.Module,
        buffer: ReplayBuffer,
        num_actors: int,
        seed: int,
        random_transitions: int = 0,
        lead: int = 64,
        patience: float = PATIENCE,
    ):
        """Prepare; `start` or entering the context starts the processes.

        `make_env` (picklable) makes an actor's worlds from their number, on the CPU and without processes of their own. `policy`
        (picklable) is called as `policy(obs [n, obs_size], generator)` and returns exploratory actions [n, action_size]; the pool
        keeps a copy. The first `random_transitions` actions are uniformly random. `lead` is the number of transitions that the
        actors may be ahead, all together. Raises `ActorError` if `buffer` is not in shared memory, does not divide into the
        actors' columns or has a smaller guard than `guard_rows` asks for.
        """
        if buffer.placement != "shared":
            raise ActorError(f"placement of replay is {buffer.placement!r} but actors need it in shared memory; use 'shared'.")
        if num_actors < 1 or buffer.num_envs % num_actors:
            raise ActorError(f"{buffer.num_envs} worlds do not divide among {num_actors} actors; choose a multiple.")
        if lead < buffer.num_envs:
            raise ActorError(f"lead is {lead} for {buffer.num_envs} worlds; allow at least one transition per world.")
        if buffer.guard < guard_rows(num_actors, lead):
            raise ActorError(f"replay has a guard of {buffer.guard} rows; build it with guard={guard_rows(num_actors, lead)}.")
        self.make_env, self.buffer, self.num_actors, self.patience = make_env, buffer, num_actors, patience
        # By value: sent as it is, a module's parameters would become shared memory that the learner and all actors write.
        self.policy = pickle.dumps(copy.deepcopy(policy).cpu())
        self.weights = SharedWeights(policy.state_dict())
        self.board = Board.build(num_actors)
        self.seed, self.random_transitions = seed, -(-random_transitions // num_actors)
        self.share = lead // num_actors
        self.limit = 0
        self.counts = [0] * num_actors
        """Transitions of each actor that `collect` has returned."""
        self.restarts = 0
        """Actor processes that died and were replaced."""
        self._processes: list[BaseProcess] = []
        self._errors: list[Connection] = []
        self._next_look = 0.0
        self._starts = [0] * num_actors
        self._fruitless = [0] * num_actors
        self._count_at_start = [0] * num_actors
        self._pending: list[Step] = []
        self._finished: list[Episode] = []
        self._score = np.zeros(buffer.num_envs)
        self._length = np.zeros(buffer.num_envs, dtype=np.int64)
        self._over = np.zeros(buffer.num_envs, dtype=bool)

    @property
    def collected(self) -> int:
        """Transitions that `collect` has returned since the start."""
        return sum(self.counts)

    def start(self) -> None:
        """Start the processes, with fresh episodes in all columns. They wait until `allow`."""
        self.buffer.cut()
        self._seen = self.buffer.cursors.clone()
        for actor in range(self.num_actors):
            process, errors = self._spawn(actor)
            self._processes.append(process)
            self._errors.append(errors)

    def allow(self, transitions: int) -> None:
        """Let the actors collect until `collected` is `transitions`, exactly.

        When `collect` has returned the last of them the actors stand still: that is the moment to save replay.
        """
        self.limit = transitions
        self._extend()

    def hold(self) -> None:
        """Lower the limit to what the actors have been allowed already."""
        self.limit = int(self.board.allowed.sum())

    def publish(self, state: Mapping[str, Tensor]) -> None:
        """Give the actors new values of the policy's `state_dict()`; each takes them before its next action."""
        self.weights.publish(state)

    def collect(self) -> Collected:
        """Wait for new rows and return them; nothing if the limit of `allow` is reached.

        Calling it says that the rows of the last call have been learned from. Raises `ActorError` if an actor reported an error
        or cannot be kept alive.
        """
        before = self.collected
        self._extend()
        while True:
            if not torch.equal(self.buffer.cursors, self._seen):
                self._pending += self._scan(self.buffer.cursors.clone())
            if time.monotonic() > self._next_look:
                self._supervise()
                self._next_look = time.monotonic() + LOOK
            if self.collected > before or before >= self.limit:
                steps, self._pending = self._pending, []
                return Collected(steps, self.collected - before)
            time.sleep(PAUSE)

    def episodes(self) -> list[Episode]:
        """Episodes that finished in the rows that `collect` returned since the last call; interrupted ones are left out."""
        finished, self._finished = self._finished, []
        return finished

    def close(self) -> None:
        """End the processes."""
        self.board.stop.fill_(True)
        for process in self._processes:
            process.join(timeout=5)
            if process.exitcode is None:
                process.kill()
                process.join()
        for errors in self._errors:
            errors.close()
        self._processes, self._errors = [], []

    def __enter__(self) -> "ActorPool":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _extend(self) -> None:
        """Allow every actor its share beyond what has been learned from, and all together no more than the limit, which they divide fairly."""
        allowed = self.board.allowed
        left = self.limit - int(allowed.sum())
        wanted = [max(count + self.share - int(now), 0) for count, now in zip(self.counts, allowed, strict=True)]
        # Who wants least first: what is left over of an equal part goes to the others.
        for others, actor in zip(
            range(self.num_actors, 0, -1), sorted(range(self.num_actors), key=wanted.__getitem__), strict=True
        ):
            more = min(wanted[actor], -(-left // others))
            allowed[actor] += more
            left -= more

    def _scan(self, ends: Tensor) -> list[Step]:
        """The rows of every column from where the last scan ended to `ends` [num_envs], counted and taken into the episodes."""
        buffer = self.buffer
        moment = self._seen + torch.arange(int((ends - self._seen).max()))[:, None]
        present = moment < ends
        place = buffer.address(moment, torch.arange(buffer.num_envs))
        row = buffer.flat[place] * present[..., None]
        after = buffer.obs_at((place + buffer.num_envs) % len(buffer.flat)) * present[..., None]
        valid, terminated, truncated = (row[..., -3:] > 0).roll(1, -1).unbind(-1)
        self._count(row[..., -4], valid, terminated | truncated, present)
        columns = (after, after, row[..., -4] * valid, terminated, truncated | ~present, valid)
        steps = [Step(*step, info={}) for step in zip(*(column.unbind() for column in columns), strict=True)]
        self._seen = ends
        return steps

    def _count(self, reward: Tensor, valid: Tensor, done: Tensor, present: Tensor) -> None:
        """Count rows [times, num_envs] where `present`: transitions per actor, rewards and lengths of episodes.

        Steps beyond a limit are not valid but belong to their episode; the row after its end, which holds the reset, does not.
        """
        per_actor = valid.sum(0).view(self.num_actors, -1).sum(1).tolist()
        self.counts = [count + new for count, new in zip(self.counts, per_actor, strict=True)]
        for rewards, ends, there in zip(reward.numpy(), done.numpy(), present.numpy(), strict=True):
            self._score += rewards
            self._length += there & ~self._over
            for column in np.flatnonzero(ends):
                self._finished.append(Episode(float(self._score[column]), int(self._length[column])))
            self._begin(ends)
            self._over = np.where(there, ends, self._over)

    def _begin(self, columns: np.ndarray) -> None:
        self._score[columns], self._length[columns] = 0, 0

    def _supervise(self) -> None:
        """Replace processes that died or hang; raise what one of them reported."""
        for actor, process in enumerate(self._processes):
            if process.exitcode is None:
                if time.monotonic() - float(self.board.heartbeat[actor]) < self.patience:
                    continue
                log.warning("actor %d gave no sign of life for %g seconds and is killed", actor, self.patience)
                process.kill()
                process.join()
            errors = self._errors[actor]
            if errors.poll():
                try:
                    raise ActorError(f"actor {actor}: {errors.recv()}")
                except EOFError:
                    # It died without a word: the far end of the pipe is closed.
                    pass
            if process.exitcode == 1:
                raise ActorError(f"actor {actor} stopped with a Python error; its traceback is printed above.")
            self._restart(actor)

    def _restart(self, actor: int) -> None:
        """Take over what the dead process wrote and start another one, with fresh episodes, in its columns."""
        exit_code = self._processes[actor].exitcode
        columns = slice(*self._columns(actor))
        before = self.buffer.cursors.clone()
        self.buffer.cut(columns)
        after = self.buffer.cursors.clone()
        # The last row that `cut` passed over separates the episodes; what lies before it is the dead process's.
        ends = torch.where(after > before, after - 1, after)
        own = torch.zeros(self.buffer.num_envs, dtype=torch.bool)
        own[columns] = True
        self._pending += self._scan(torch.where(own, ends, self._seen))
        self._seen[columns] = after[columns]
        self._begin(own.numpy())
        self._over[columns] = False
        self.restarts += 1
        fruitful = self.counts[actor] > self._count_at_start[actor]
        self._fruitless[actor] = 0 if fruitful else self._fruitless[actor] + 1
        if self._fruitless[actor] >= TRIES:
            raise ActorError(
                f"actor {actor} died {TRIES} times without a transition (exit code {exit_code}); "
                "run the task in one process (--actors 0) to see why."
            )
        log.warning(
            "actor %d died (exit code %s) and is restarted; its %d transitions are kept", actor, exit_code, self.counts[actor]
        )
        self._errors[actor].close()
        self._processes[actor], self._errors[actor] = self._spawn(actor)

    def _columns(self, actor: int) -> tuple[int, int]:
        worlds = self.buffer.num_envs // self.num_actors
        return actor * worlds, (actor + 1) * worlds

    def _spawn(self, actor: int) -> tuple[BaseProcess, Connection]:
        context = multiprocessing.get_context("forkserver")
        # The server imports the suite once, in a process without threads, and each actor is a copy of it.
        context.set_forkserver_preload([run.__module__])
        errors, far_end = context.Pipe(duplex=False)
        origin, (first, last) = (self.seed, actor, self._starts[actor]), self._columns(actor)
        noise_seed = int(np.random.SeedSequence(origin).generate_state(2)[1])
        assignment = Assignment(
            actor=actor,
            columns=(first, last),
            make_env=self.make_env,
            buffer=self.buffer,
            weights=self.weights,
            board=self.board,
            seeds=(training_seed(origin, last - first), noise_seed),
            written=self.counts[actor],
            random_transitions=self.random_transitions,
            errors=far_end,
        )
        self.board.heartbeat[actor] = time.monotonic() + STARTUP - self.patience
        self._starts[actor] += 1
        self._count_at_start[actor] = self.counts[actor]
        load_policy = functools.partial(pickle.loads, self.policy)
        process = context.Process(target=run, args=(assignment, load_policy), name=f"steelyard-actor-{actor}", daemon=True)
        process.start()
        far_end.close()
        return process, errors


def guard_rows(num_actors: int, lead: int) -> int:
    """Rows per column that actors may write while the learner reads: the `guard` that replay needs.

    A transition costs at most two rows, with a reset, and a call that only resets may come before and after.
    """
    return 2 * (lead // num_actors) + 4
