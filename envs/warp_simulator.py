# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""mujoco-warp as a simulator of many worlds on one device: memory shared with torch, steps and resets as captured graphs."""

import contextlib
import copy
import dataclasses
import importlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mujoco
import torch
from torch import Tensor

from steelyard.envs.memory import free_bytes
from steelyard.envs.stage import uncollected
from steelyard.envs.tasks.task import Task, require_fields, shaped
from steelyard.envs.vector import EnvError
from steelyard.envs.warp_fields import geometric, limit_addresses

STATE = ("qpos", "qvel", "act", "qacc_warmstart", "time", "ctrl", "history", "eq_active", "mocap_pos", "mocap_quat", "userdata")
"""Fields of `Data` that determine what follows; all others are computed anew in every step."""
SAMPLE = (4, 8)
"""Numbers of worlds from whose sizes the memory of a world is estimated."""
TEMPORARY = 4.0
"""Memory of a simulation with what its graphs keep for intermediate results, in units of its data: 2 to 4 on the CPU device."""
STREAMS: dict[tuple[int, int], Any] = {}
"""Torch's streams as Warp knows them, by device and handle. They are kept: Warp would forget a handle when one of two objects for it goes."""


class WarpSimulator:
    """`worlds` copies of a task's model on `device`. Tensors of `state` and `model_fields` are the simulator's own memory.

    A model that asks for the solver PGS, which mujoco-warp has not, is solved by Newton's method: the same optimum, found more exactly.
    """

    def __init__(self, task: Task, worlds: int, device: torch.device, batched: Sequence[str] = ()):
        """`batched`: fields of `MjModel` that differ between worlds. Raises `EnvError` for what cannot be simulated here."""
        self._name, self._task, self.worlds = task.name, task, worlds
        self._warp, self._engine = engines(task.name)
        require_device(task.name, self._warp, device)
        require_fields(task)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        self.device = device
        self.built = copy.copy(task.model)
        if self.built.opt.solver == mujoco.mjtSolver.mjSOL_PGS:
            self.built.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
        self._place = self._warp.device_from_torch(device)
        with self._refusals(), self._on_stream():
            self._require_memory(batched)
            self._model = self._engine.put_model(self.built, batch_sizes=dict.fromkeys(batched, worlds))
            self._data = self._make_data(worlds)
        self._geometric = geometric(task)
        limits = limit_addresses(task.model)
        self._limits = self._warp.array(limits, dtype=int, device=self._place) if limits else None
        self._model.opt.warn_overflow = 0  # one sentence from `check` instead of a line for each world and step
        if device.type == "cuda":  # drivers before CUDA 12.4 have no loops in graphs: the solver then does all its iterations
            self._model.opt.graph_conditional = self._warp.is_conditional_graph_supported()
        self.mask = torch.zeros(worlds, dtype=torch.bool, device=device)
        self._mask = self._warp.from_torch(self.mask, dtype=self._warp.bool)
        self.state = {name: self.field(name) for name in ("qpos", "qvel", *task.fields)}
        for name in task.model_fields:
            self.state[name] = self.model_field(name)
        self.control, self.overflow = self.field("ctrl"), self.field("overflow")
        with self._refusals():
            self._stepping = self._capture(self._step)
            self._resetting = self._capture(self._reset)
            self._computing = self._capture(self._compute) if task.fields else None

    def field(self, name: str) -> Tensor:
        """A field of the simulator's data, [worlds, ...], live."""
        try:
            return shaped(name, self._warp.to_torch(getattr(self._data, name)))
        except AttributeError:
            raise EnvError(
                f"{self._name}: mujoco-warp has no field {name!r}; leave it out of `fields`, or use vectorization='batch'."
            ) from None

    def model_field(self, name: str) -> Tensor:
        """A field of the simulator's model, [worlds or 1, ...], live."""
        return self._warp.to_torch(getattr(self._model, name))

    def step(self) -> None:
        """One environment step of all worlds with `control`."""
        self._launch(self._stepping)

    def reset(self) -> None:
        """Put the worlds in `mask` into the model's default state."""
        self._launch(self._resetting)

    def compute(self) -> None:
        """Make the task's fields describe the present state, of all worlds."""
        if self._computing is not None:
            self._launch(self._computing)

    def full(self) -> int:
        """Bits of `overflow` that mean that contacts or constraints were dropped."""
        kinds = self._engine.OverflowType
        return int(kinds.BROADPHASE | kinds.NARROWPHASE | kinds.CCD | kinds.HFIELD | kinds.NEFC | kinds.NJMAX_NNZ | kinds.NVMAX)

    def lost(self, bits: int) -> str:
        """What `overflow` says in words, with the remedy."""
        kinds = self._engine.OverflowType
        if bits & (kinds.NEFC | kinds.NJMAX_NNZ | kinds.NVMAX):
            return f"more than {self._task.constraints} constraint rows (njmax); raise `constraints` of the task"
        return f"more than {self._task.contacts} contacts on average (nconmax); raise `contacts` of the task"

    def _step(self) -> None:
        for _ in range(self._task.frame_skip):
            self._engine.step(self._model, self._data)
        if "cfrc_ext" in self._task.fields:
            self._engine.rne_postconstraint(self._model, self._data)
        if self._task.fresh and self._task.fields:
            self._refresh()

    def _reset(self) -> None:
        self._engine.reset_data(self._model, self._data, self._mask)

    def _compute(self) -> None:
        if self._task.reads_forces:
            self._engine.forward(self._model, self._data)
        else:
            self._refresh()

    def _refresh(self) -> None:
        """MuJoCo's mj_step1: what depends on positions and velocities alone. Where a task reads no more, only the cheap parts of it."""
        engine, model, data = self._engine, self._model, self._data
        if self._geometric:
            engine.fwd_kinematics(model, data)
            engine.com_vel(model, data)
        else:
            engine.fwd_position(model, data)
            engine.fwd_velocity(model, data)
        if "sensordata" in self._task.fields:
            self._clear_limits()
            engine.sensor_pos(model, data)
            engine.sensor_vel(model, data)

    def _clear_limits(self) -> None:
        """Forget limits that were reached: mujoco-warp writes these sensors only where one is."""
        if self._limits is not None:
            kernels = importlib.import_module("steelyard.envs.warp_kernels")
            self._warp.launch(kernels.clear, dim=(self.worlds, len(self._limits)), inputs=[self._data.sensordata, self._limits])

    def _capture(self, work: Callable[[], None]) -> Any:
        """A graph of `work`, which runs once before, so that its kernels are compiled."""
        with contextlib.ExitStack() as stack:
            if self.device.type == "cuda":  # CUDA captures nothing on its default stream, which is torch's, too
                torch.cuda.synchronize(self.device)
                stack.enter_context(torch.cuda.stream(torch.cuda.Stream(self.device)))
                stack.callback(torch.cuda.synchronize, self.device)
            stack.enter_context(self._on_stream())
            work()
            with uncollected(), self._warp.ScopedCapture() as captured:
                work()
        return captured.graph

    def _launch(self, graph: Any) -> None:
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):  # torch's default stream has the number 0 on every device
                self._warp.capture_launch(graph, stream=self._stream())
        else:
            self._warp.capture_launch(graph)

    def _stream(self) -> Any:
        """Torch's current stream, so that torch's and Warp's work follow each other without waiting."""
        stream = torch.cuda.current_stream(self.device)
        key = stream.device_index, stream.cuda_stream
        if key not in STREAMS:
            STREAMS[key] = self._warp.stream_from_torch(stream)
        return STREAMS[key]

    @contextlib.contextmanager
    def _on_stream(self) -> Iterator[None]:
        with self._warp.ScopedDevice(self._place):
            if self.device.type == "cuda":
                with self._warp.ScopedStream(self._stream()):
                    yield
            else:
                yield

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """What mujoco-warp says of models that it cannot simulate, as one sentence; and nothing of what it prints."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except (NotImplementedError, ValueError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise EnvError(
                f"{self._name}: mujoco-warp cannot simulate this model ({reason}); use vectorization='batch'."
            ) from error

    def _make_data(self, worlds: int) -> Any:
        return self._engine.make_data(self.built, nworld=worlds, nconmax=self._task.contacts, njmax=self._task.constraints)

    def _require_memory(self, batched: Sequence[str]) -> None:
        few, many = (_bytes(self._make_data(count)) for count in SAMPLE)
        model = sum(getattr(self.built, name).size * 4 for name in batched)
        needed = int(self.worlds * ((many - few) / (SAMPLE[1] - SAMPLE[0]) * TEMPORARY + model))
        free = free_bytes(self.device)
        if free is not None and needed > free:
            raise EnvError(
                f"{self._name}: {self.worlds:,} worlds need about {needed / 1e9:.1f} GB on {self.device} and {free / 1e9:.1f} GB are free; "
                f"use at most {max(1, int(self.worlds * free / needed)):,} worlds, or less room for contacts and constraints."
            )


def engines(task: str) -> tuple[Any, Any]:
    """The modules warp and mujoco_warp, told to be quiet. Raises `EnvError` if they are not installed."""
    try:
        warp = importlib.import_module("warp")
        warp.config.log_level = warp.LOG_ERROR
        engine = importlib.import_module("mujoco_warp")
    except ModuleNotFoundError:
        raise EnvError(
            f"{task}: vectorization='warp' needs mujoco-warp; install it (pip install 'steelyard[gpu]') or use 'batch'."
        ) from None
    with muted():  # that there is no GPU is said below, where one is wanted
        warp.init()
    warp.config.log_level = warp.LOG_WARNING
    return warp, engine


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Nothing is written to stderr, not by libraries in C either, which know nothing of levels of logging."""
    sys.stderr.flush()
    shown, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        os.close(nowhere)


def require_device(task: str, warp: Any, device: torch.device) -> None:
    """Raises `EnvError` if torch or Warp cannot use `device`."""
    if device.type not in ("cpu", "cuda"):
        raise EnvError(f"{task}: worlds live on 'cuda' or 'cpu', not on {str(device)!r}.")
    if device.type == "cpu":
        return
    if not torch.cuda.is_available():
        raise EnvError(
            f"{task}: device {str(device)!r} was asked for and torch sees no NVIDIA GPU; use device='cpu', or install torch for CUDA."
        )
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise EnvError(f"{task}: there is no {device}; torch sees {torch.cuda.device_count()} GPU(s).")
    if not warp.is_cuda_available():
        driver, wanted = warp.get_cuda_driver_version(), warp.get_cuda_toolkit_version()
        raise EnvError(
            f"{task}: torch sees a GPU and Warp does not (driver for CUDA {_dotted(driver)}, Warp built with {_dotted(wanted)}); "
            "install a newer NVIDIA driver, or a build of warp-lang for the one that is there."
        )


def _dotted(version: tuple[int, int] | None) -> str:
    return "unknown" if version is None else f"{version[0]}.{version[1]}"


def _bytes(holder: Any) -> int:
    """Size of all arrays in a dataclass of Warp's, nested ones included."""
    total = 0
    for entry in dataclasses.fields(holder):
        value = getattr(holder, entry.name)
        if dataclasses.is_dataclass(value):
            total += _bytes(value)
        elif hasattr(value, "capacity"):
            total += value.capacity
    return total
