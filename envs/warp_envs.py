# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""Thousands of worlds of one task on one device, stepped by mujoco-warp; nothing in a step waits for the device."""

import functools
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelyard.agents.types import Step
from steelyard.envs.draws import first_clocks, uniform
from steelyard.envs.edge import check_actions
from steelyard.envs.pictures import Camera
from steelyard.envs.randomization import Randomization
from steelyard.envs.stage import Stage
from steelyard.envs.tasks import Task, build
from steelyard.envs.tasks.task import View, control_range
from steelyard.envs.vector import EnvError
from steelyard.envs.warp_simulator import STATE, WarpSimulator

DEFAULT_RENDER_SIZE = 480
STARTED = ("qpos", "qvel", "act", "qacc_warmstart", "mocap_pos", "mocap_quat")
"""What of the simulator's state an episode's start determines."""
RARELY_STARTED = ("ctrl", "eq_active", "userdata", "time")
"""The same, if a start of the task says something else than the model."""
FORCES = ("cfrc_ext", "qfrc_actuator", "actuator_force", "qfrc_constraint")
"""Fields that are 0 where an episode starts, unless the task reads forces there."""
TRIAL_STEPS = 25
"""Random steps before the first episode, to see whether the room for contacts and constraints suffices."""
WRONG_ACTION, NOT_FINITE, NO_ROOM = 1, 2, 4
"""Bits of what may be wrong with a world."""


class WarpEnv:
    """`num_envs` worlds of one task under the contracts of `VectorEnv` and `ResidentEnv`, in float32.

    A world that ended is reset in the same call: `obs` is the first of the new episode, `next_obs` the last of the old, and every row is
    valid. Each episode starts from one of `task.starts` states that the C engine made on the host; which one depends on the world's seed
    (`seed + i` for world i) and the number of the episode alone, and so does nothing else on how many worlds there are.

    On a GPU `step` never waits: what is wrong is kept until `check` asks. On the CPU every step asks by itself.
    """

    def __init__(
        self,
        task: str | Task,
        num_envs: int,
        *,
        device: torch.device | str = "cuda",
        action_repeat: int = 1,
        randomization: Randomization | None = None,
        staggered: bool = False,
        render_size: int | None = None,
    ):
        """`task`: one of `tasks.TASKS`, or your own. `randomization`: how worlds differ from the model.

        `staggered`: the first episodes are cut at different times, so that worlds do not end together. `render_size`: height and width of
        pictures, 480 by default. Raises `EnvError` for a task, a model, a device or a number of worlds that cannot be had.
        """
        if num_envs < 1:
            raise EnvError(f"{task}: {num_envs} worlds were asked for; give one or more.")
        self.num_envs, self.device = num_envs, torch.device(device)
        self._task, self._repeat, self._staggered = build(task), action_repeat, staggered
        self._name, self._randomization = self._task.name, randomization
        self._asks = self.device.type == "cpu"  # where it costs no waiting
        names: tuple[str, ...] = ()
        if randomization is not None:
            model = self._task.model
            names = randomization.names(self._name, model) + randomization.derived(self._name, model)
        self.simulator = WarpSimulator(self._task, num_envs, self.device, names)
        model = self.simulator.built
        self._camera = Camera(self._name, model, render_size or DEFAULT_RENDER_SIZE, self._task.camera)
        self._drawn = mujoco.MjData(model)
        self._interval = model.opt.timestep * self._task.frame_skip
        low, high = (torch.tensor(bound, dtype=torch.float32, device=self.device) for bound in control_range(model))
        bounded = low.isfinite() & high.isfinite()
        self._low, self._high = low, high
        self._centre, self._half = torch.where(bounded, (low + high) / 2, 0.0), torch.where(bounded, (high - low) / 2, 1.0)
        bank = _bank(self._task)
        self._bank = {name: torch.tensor(rows, dtype=torch.float32, device=self.device) for name, rows in bank.items()}
        self._episode = {
            name: torch.zeros(num_envs, *rows.shape[1:], device=self.device)
            for name, rows in self._bank.items()
            if name not in (*STARTED, *RARELY_STARTED)
        }
        self._state = self.simulator.state | self._episode
        self._started = self._episode | {
            name: self.simulator.field(name) for name in (*STARTED, *RARELY_STARTED) if name in self._bank
        }
        self._make_buffers()
        self.spec = self._view.spec(self._state, action_repeat)
        stages = (self._act, self._judge, self._begin, self._look)
        self._act_stage, self._judge_stage, self._begin_stage, self._look_stage = (Stage(stage, self.device) for stage in stages)
        self._try()

    def reset(self, seed: int | None = None) -> Tensor:
        """Start a new episode in every world; world i gets `seed + i`. Returns [num_envs, obs_size] float32."""
        if seed is not None:
            self._keys.copy_(seed + torch.arange(self.num_envs, device=self.device))
            self._episodes.fill_(-1)
            self._randomize()
        self._done.fill_(True)
        self.simulator.mask.fill_(True)
        self._start()
        if self._staggered:
            self._elapsed.copy_(first_clocks(self._keys, self._task.horizon))
        return self._obs.clone()

    def step(self, action: Tensor) -> Step:
        """Apply actions [num_envs, action_size] in [-1, 1], rescaled to the range of the actuators, to every world.

        On a GPU actions out of bounds are clamped, those that are NaN are replaced by 0, and `check` tells.
        """
        if self._asks:
            check_actions(self._name, action, (self.num_envs, self.spec.action_size))
        elif action.shape != self._action.shape:
            raise EnvError(f"{self._name}: actions of shape {tuple(action.shape)} were given, not {tuple(self._action.shape)}.")
        self._action.copy_(action)
        self._act_stage()
        for _ in range(self._repeat):
            self.simulator.step()
            self._judge_stage()
        self._start()
        if self._asks:
            self.check()
        return Step(
            obs=self._obs.clone(),
            next_obs=self._next_obs.clone(),
            reward=self._reward.clone(),
            terminated=self._terminated.clone(),
            truncated=self._truncated.clone(),
            valid=torch.ones_like(self._done),
            info={},
        )

    def check(self) -> None:
        """Raises `EnvError` for what has gone wrong since the last look. The one place that waits for the device."""
        wrong = self._wrong.to("cpu", copy=True)
        if not wrong.any():
            return
        self._wrong.zero_()
        world = int(wrong.nonzero()[0])
        bits = int(wrong[world])
        if bits & NO_ROOM:
            lost = self.simulator.lost(int(self._overflow[world]))
            self._overflow.zero_()
            raise EnvError(f"{self._name}: world {world} dropped what had no room, {lost}.")
        if bits & WRONG_ACTION:
            raise EnvError(
                f"{self._name}: an action for world {world} was outside [-1, 1] or not a number; squash or clamp the policy's output."
            )
        raise EnvError(
            f"{self._name}: world {world} returned a number that is not finite; find what makes it diverge "
            "(often large actions or too long a time step) or leave this task out."
        )

    def render(self) -> NDArray[np.uint8]:
        """An RGB picture [height, width, 3] uint8 of world 0 from the task's camera, drawn by the C engine."""
        for name in ("qpos", "qvel", "mocap_pos", "mocap_quat"):
            getattr(self._drawn, name)[:] = self.simulator.field(name)[0].cpu().numpy()
        self._task.show(self.simulator.built, {name: rows[0].cpu().numpy() for name, rows in self._episode.items()})
        mujoco.mj_forward(self.simulator.built, self._drawn)
        return self._camera.picture(self.simulator.built, self._drawn)

    def state_dict(self) -> dict[str, Any]:
        """All that determines the future of the worlds."""
        return {name: value.clone() for name, value in self._saved().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken. Raises `EnvError` if it was taken of other worlds."""
        mine, saved = ({name: value.shape for name, value in found.items()} for found in (self._saved(), state))
        if mine != saved:
            other = f"{len(state['keys'])} worlds" if "keys" in state else "other worlds"
            raise EnvError(
                f"{self._name}: a state of {other} was saved and there are {self.num_envs} of this task; "
                "make the environment as it was, or start the run afresh with --fresh."
            )
        self._keys.copy_(state["keys"])
        self._randomize()
        for name, value in self._saved().items():
            value.copy_(state[name])

    def close(self) -> None:
        """Release what drew pictures; the simulator's memory goes with this object."""
        self._camera.close()

    def _saved(self) -> dict[str, Tensor]:
        """Live tensors: the simulator's state, what the episodes have, clocks and seeds."""
        own = {"keys": self._keys, "episodes": self._episodes, "elapsed": self._elapsed, "position": self._position}
        simulation = {name: self.simulator.field(name) for name in STATE}
        return own | simulation | {f"episode.{name}": value for name, value in self._episode.items()}

    def _make_buffers(self) -> None:
        """What the stages read and write; a captured graph knows no other memory."""
        worlds, zeros = self.num_envs, functools.partial(torch.zeros, device=self.device)
        self._keys = torch.arange(worlds, device=self.device)
        self._episodes, self._elapsed = zeros(worlds, dtype=torch.int64), zeros(worlds, dtype=torch.int64)
        self._position, self._reward = zeros(worlds), zeros(worlds)
        self._terminated, self._truncated, self._done = (zeros(worlds, dtype=torch.bool) for _ in range(3))
        self._wrong, self._overflow = zeros(worlds, dtype=torch.int32), zeros(worlds, dtype=torch.int32)
        self._action = zeros(worlds, self.simulator.built.nu)
        factors = self._factors()
        self._view = View(self._task, None if factors is None else factors.float())
        self._next_obs = self._view(self._state).float().clone()
        self._obs = self._next_obs.clone()
        self._full = self.simulator.full()

    def _act(self) -> None:
        """Check and scale the action, and forget the last step."""
        wrong = ~(self._action.abs() <= 1).all(dim=1)  # NaN, too
        self._wrong.bitwise_or_(wrong * WRONG_ACTION)
        action = self._action.nan_to_num(nan=0.0).clamp(-1.0, 1.0)
        self.simulator.control.copy_((self._centre + self._half * action).clamp(self._low, self._high))
        self._reward.zero_()
        self._terminated.zero_()
        self._truncated.zero_()
        self._done.zero_()

    def _judge(self) -> None:
        """Observe and reward the state reached in the worlds whose episode goes on."""
        task, state, going_on = self._task, self._state, ~self._done
        position, velocity = task.position(state), torch.zeros_like(self._position)
        if position is not None:
            velocity = (position - self._position) / self._interval
            self._position.copy_(position)
        self._elapsed.add_(going_on)
        reward, terminated = task.reward(state, self.simulator.control, velocity), task.terminated(state)
        self._reward.add_(torch.where(going_on, reward, 0.0))
        if terminated is not None:
            self._terminated.logical_or_(terminated & going_on)
        self._truncated.logical_or_((self._elapsed >= task.horizon) & going_on)
        self._next_obs.copy_(torch.where(going_on[:, None], self._view(state), self._next_obs))
        self._done.copy_(self._terminated | self._truncated)
        overflow = torch.where(going_on, self.simulator.overflow & self._full, 0)
        self._overflow.bitwise_or_(overflow)
        finite = self._next_obs.isfinite().all(dim=1) & self._reward.isfinite()
        self._wrong.bitwise_or_((overflow != 0) * NO_ROOM + ~finite * NOT_FINITE)
        self.simulator.mask.copy_(self._done)

    def _start(self) -> None:
        """New episodes in the worlds that are done, and the observation to act on of all."""
        self.simulator.reset()
        self._begin_stage()
        self.simulator.compute()
        self._look_stage()

    def _begin(self) -> None:
        """Put the worlds that are done into the states in which their next episodes start."""
        done = self._done
        self._episodes.add_(done)
        draw = uniform(self._keys, self._episodes, 1)[:, 0]
        choice = (draw * len(self._bank["qpos"])).long()
        for name, rows in self._bank.items():
            target = self._started[name]
            fresh = rows.index_select(0, choice)
            target.copy_(torch.where(done.view(-1, *[1] * (fresh.ndim - 1)), fresh, target))
        self._elapsed.masked_fill_(done, 0)
        for name in FORCES:
            if name in self._state:
                self._state[name].masked_fill_(done.view(-1, *[1] * (self._state[name].ndim - 1)), 0.0)

    def _look(self) -> None:
        """Observe the worlds whose episode began."""
        self._obs.copy_(torch.where(self._done[:, None], self._view(self._state), self._next_obs))
        position = self._task.position(self._state)
        if position is not None:
            self._position.copy_(torch.where(self._done, position, self._position))

    def _randomize(self) -> None:
        """Give each world the model that its seed says."""
        if self._randomization is None:
            return
        values = self._randomization.values(self._name, self._task.model, self._keys)
        constants = self._randomization.constants(self._name, self._task.model, values)
        for name, value in (values | constants).items():
            field = self.simulator.model_field(name)
            field.copy_(value.view(field.shape))
        factors = self._factors()
        if factors is not None and self._view.factors is not None:
            self._view.factors.copy_(factors)

    def _factors(self) -> Tensor | None:
        """What critics see of how the worlds' models differ."""
        if self._randomization is None:
            return None
        return self._randomization.for_critics(self._name, self._task.model, self._keys)

    def _try(self) -> None:
        """Play a little at random, so that too little room for contacts shows before training does."""
        self.reset(seed=0)
        generator = torch.Generator().manual_seed(0)
        for _ in range(TRIAL_STEPS):
            self.step((2 * torch.rand(self._action.shape, generator=generator) - 1).to(self.device))
        self.check()
        self.reset(seed=0)


def _bank(task: Task) -> dict[str, NDArray[Any]]:
    """States [starts, ...] in which episodes may start, made by the C engine from the seeds 0, 1, 2, ..."""
    data, default = mujoco.MjData(task.model), mujoco.MjData(task.model)
    states = [_start(task, data, seed) for seed in range(task.starts)]
    bank = {name: np.stack([state[name] for state in states]) for name in states[0]}
    usual = [name for name in RARELY_STARTED if (bank[name] == np.array(getattr(default, name))).all()]
    return {name: rows for name, rows in bank.items() if name not in usual}


def _start(task: Task, data: mujoco.MjData, seed: int) -> dict[str, NDArray[Any]]:
    mujoco.mj_resetData(task.model, data)
    episode = task.start(data, task.generator(seed))
    arrays = {name: np.array(getattr(data, name)) for name in (*STARTED, *RARELY_STARTED)}
    return {name: value for name, value in arrays.items() if value.size or name in RARELY_STARTED} | {
        name: np.asarray(value) for name, value in episode.items()
    }
