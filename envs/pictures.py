# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""Pictures of worlds, drawn where no other user of OpenGL interferes."""

import atexit
import gc
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

import mujoco
import numpy as np
from numpy.typing import NDArray

from steelyard.envs.vector import EnvError

Result = TypeVar("Result")
Simulation = tuple[mujoco.MjModel, mujoco.MjData]
"""A world of MuJoCo."""


@contextmanager
def needs_opengl(task: str) -> Iterator[None]:
    """Turn the failures of a missing OpenGL library or display into one `EnvError`.

    They come as errors of many types from PyOpenGL, MuJoCo and Gymnasium.
    """
    choice = os.environ.get("MUJOCO_GL", "unset")
    sentence = (
        f"{task}: no picture can be drawn without OpenGL; install libegl1 (or libosmesa6) and unset MUJOCO_GL (now {choice})."
    )
    if choice.lower() in ("disabled", "disable", "off", "0", "false", "no"):
        raise EnvError(sentence)
    try:
        yield
    except (ImportError, AttributeError, RuntimeError, mujoco.FatalError) as error:
        if any(word in str(error).lower() for word in ("opengl", "egl", "osmesa", "glfw", "gladload", "glgeterror")):
            raise EnvError(sentence) from error
        raise


class Closable(Protocol):
    """Something that holds an OpenGL context."""

    def close(self) -> None:
        """Release it."""
        ...


def close_at_exit(owner: Closable) -> None:
    """Close `owner`, if it still lives, before MuJoCo shuts OpenGL down; call this after it made its context.

    Environments that nobody closed would else print a traceback each when the program ends.
    """
    reference = weakref.ref(owner)

    def close() -> None:
        alive = reference()
        if alive is not None:
            alive.close()

    atexit.register(close)  # the last to be registered is the first to be called


class RenderThread:
    """A thread for one environment's drawing.

    OpenGL draws into the context that is current in the calling thread, and neither Gymnasium nor dm-control notices when
    another has made its own current: pictures of two environments in one thread come out black or swapped.
    """

    def __init__(self, task: str):
        self._task = task
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="render")

    def call(self, draw: Callable[[], Result]) -> Result:
        """What `draw` returns, called on the thread. Raises `EnvError` where no OpenGL library is found."""
        collecting = gc.isenabled()
        gc.disable()  # collecting another environment's context would take this thread's away in the midst of drawing
        try:
            with needs_opengl(self._task):
                return self._executor.submit(draw).result()
        finally:
            if collecting:
                gc.enable()

    def close(self) -> None:
        """End the thread."""
        self._executor.shutdown()


class Camera:
    """Draws the states of MuJoCo models that are built alike; the context is made for the first picture."""

    def __init__(self, task: str, model: mujoco.MjModel, size: int, camera: int | str, fast: bool = False):
        """`size`: height and width in pixels. `camera`: name or number of one of the model's cameras, -1 for the free one.

        `fast` leaves out shadows, reflections and multisampling, which cost more than all the rest.
        """
        self._size, self._fast = size, fast
        self._view = _view(model, camera)
        self._option = mujoco.MjvOption()
        self._option.flags[mujoco.mjtVisFlag.mjVIS_RANGEFINDER] = 0  # rays of sensors are no part of the scene, as in dm-control
        self._thread = RenderThread(task)
        self._renderer: mujoco.Renderer | None = None
        self._terrain: NDArray[np.float32] | None = None

    def pictures(self, simulations: Sequence[Simulation]) -> NDArray[np.uint8]:
        """RGB [simulations, size, size, 3] uint8."""
        return self._thread.call(lambda: np.stack([self._draw(model, data) for model, data in simulations]))

    def picture(self, model: mujoco.MjModel, data: mujoco.MjData) -> NDArray[np.uint8]:
        """RGB [size, size, 3] uint8 of `data`."""
        return self.pictures([(model, data)])[0]

    def close(self) -> None:
        """Release the context."""
        if self._renderer is not None:
            self._thread.call(self._renderer.close)
            self._renderer = None
        self._thread.close()

    def _draw(self, model: mujoco.MjModel, data: mujoco.MjData) -> NDArray[np.uint8]:
        if has_terrain(model) and (self._terrain is None or not np.array_equal(self._terrain, model.hfield_data)):
            if self._renderer is not None:
                self._renderer.close()  # it may change with an episode and is uploaded only when a context is made
                self._renderer = None
            self._terrain = model.hfield_data.copy()
        renderer = self._renderer = self._renderer or self._open(model)
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(model, data, self._option, None, self._view, everything, renderer.scene)
        return renderer.render()

    def _open(self, model: mujoco.MjModel) -> mujoco.Renderer:
        with _buffer(model, self._size, samples=0 if self._fast else None):
            renderer = mujoco.Renderer(model, self._size, self._size)
        if self._fast:
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        close_at_exit(renderer)
        return renderer


def has_terrain(model: mujoco.MjModel) -> bool:
    """Whether the model shows a height field, which a task may change; several have one that they do not use."""
    return bool((model.geom_type == mujoco.mjtGeom.mjGEOM_HFIELD).any())


def _view(model: mujoco.MjModel, camera: int | str) -> mujoco.MjvCamera:
    view = mujoco.MjvCamera()
    number = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, camera) if isinstance(camera, str) else camera
    if number < 0:
        mujoco.mjv_defaultFreeCamera(model, view)
    else:
        view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, number
    return view


@contextmanager
def _buffer(model: mujoco.MjModel, size: int, samples: int | None) -> Iterator[None]:
    """What a context that is made now reads of `model`: a buffer of `size`, and `samples` per pixel unless None."""
    buffer, quality = model.vis.global_, model.vis.quality
    before = buffer.offwidth, buffer.offheight, quality.offsamples
    buffer.offwidth = buffer.offheight = size
    quality.offsamples = before[-1] if samples is None else samples
    try:
        yield
    finally:
        buffer.offwidth, buffer.offheight, quality.offsamples = before
