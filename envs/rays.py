# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""Pictures of many worlds at once by the batch ray tracer of mujoco-warp, on the GPU if there is one."""

import contextlib
import importlib
import io
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from steelyard.envs.pictures import Simulation, has_terrain
from steelyard.envs.vector import EnvError

PLACES = ("geom_xpos", "geom_xmat", "cam_xpos", "cam_xmat", "light_xpos", "light_xdir")
"""What the ray tracer reads of the state."""
LOOKS = ("geom_size", "geom_rgba", "mat_rgba")
"""What tasks change in a model that can be seen, such as the size of a target."""


class RayCamera:
    """Ray-traced pictures of MuJoCo models that are built alike: shadows and sky, no reflections, no sites and tendons.

    Positions come from the simulator; mujoco-warp only draws. Its kernels are compiled for the first picture, which takes some seconds, and
    kept on the disk.
    """

    def __init__(self, task: str, size: int, camera: int):
        """`size`: height and width in pixels. `camera`: number of one of the model's cameras. Raises `EnvError` if mujoco-warp is not there."""
        try:
            tracer, warp = importlib.import_module("mujoco_warp"), importlib.import_module("warp")
        except ModuleNotFoundError:
            raise EnvError(f"{task}: ray-traced pictures need mujoco-warp; install it: pip install 'steelyard[gpu]'.") from None
        if camera < 0:
            raise EnvError(f"{task}: the ray tracer has no free camera; choose another rendering, or a camera of the model.")
        self._task, self._size, self._camera = task, size, camera
        self._warp, self._tracer = warp, tracer
        warp.config.log_level = warp.LOG_WARNING
        self._scene: tuple[Any, Any, Any, Any] | None = None

    def pictures(self, simulations: Sequence[Simulation]) -> NDArray[np.uint8]:
        """RGB [simulations, size, size, 3] uint8."""
        model, data, context, colours = self._scene = self._scene or self._build(simulations)
        for holder, names, side in ((model, LOOKS, 0), (data, PLACES, 1)):
            for name in names:
                values = np.stack([getattr(simulation[side], name) for simulation in simulations]).astype(np.float32)
                array = getattr(holder, name)
                if array.size:
                    array.assign(values.reshape(array.shape + array.dtype._shape_))
        self._tracer.refit_bvh(model, data, context)
        self._tracer.render(model, data, context)
        self._tracer.get_rgb(context, 0, colours)
        return (colours.numpy() * 255).round().astype(np.uint8)

    def close(self) -> None:
        """Release the scene."""
        self._scene = None

    def _build(self, simulations: Sequence[Simulation]) -> tuple[Any, Any, Any, Any]:
        """Model, data, render context and the array [simulations, size, size] of colours."""
        built, count = simulations[0][0], len(simulations)
        if has_terrain(built):
            raise EnvError(
                f"{self._task}: the ray tracer keeps the terrain of the first episode; use published or fast rendering."
            )
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                model = self._tracer.put_model(built, batch_sizes={name: count for name in LOOKS if getattr(built, name).size})
                data = self._tracer.make_data(built, nworld=count)
                context = self._tracer.create_render_context(
                    built,
                    nworld=count,
                    cam_res=(self._size, self._size),
                    render_rgb=True,
                    use_shadows=True,
                    render_skybox=bool((built.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX).any()),
                    cam_active=[number == self._camera for number in range(built.ncam)],
                )
        except NotImplementedError as error:
            raise EnvError(
                f"{self._task}: mujoco-warp cannot draw this model ({error}); use published or fast rendering."
            ) from error
        return model, data, context, self._warp.zeros((count, self._size, self._size), dtype=self._warp.vec3)
