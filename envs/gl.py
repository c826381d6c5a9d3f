"""Choosing the OpenGL library that MuJoCo renders with, before MuJoCo is imported."""

import ctypes
import importlib
import os
import sys
from collections.abc import Callable

from steelyard.envs.vector import EnvError

EGL_PLATFORM_DEVICE_EXT = 0x313F
"""Enumerant of the extension EGL_EXT_platform_device."""
MUJOCO_CHOICE = "mujoco.rendering.classic.gl_context"
"""The module of MuJoCo that reads `MUJOCO_GL`."""
OSMESA = ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")


def choose_backend() -> None:
    """Set `MUJOCO_GL` to the first of egl, osmesa, glfw that can work here, else to `disabled`; a user's own setting stands.

    MuJoCo and dm-control read the variable when they are imported, and left alone they try glfw, which warns without a display.
    """
    if sys.platform != "linux" or "MUJOCO_GL" in os.environ:
        return
    if _egl_works():
        os.environ["MUJOCO_GL"] = "egl"
    elif any(map(_loads, OSMESA)):
        os.environ["MUJOCO_GL"] = "osmesa"
    else:
        os.environ["MUJOCO_GL"] = "glfw" if "DISPLAY" in os.environ else "disabled"
    if MUJOCO_CHOICE in sys.modules:
        importlib.reload(sys.modules[MUJOCO_CHOICE])  # MuJoCo was imported first and took glfw


def check_backend() -> None:
    """Raises `EnvError` if `MUJOCO_GL` names a library that does not load: then importing MuJoCo would fail, and not say why."""
    choice = os.environ.get("MUJOCO_GL", "").lower()
    missing = {"egl": not _loads("libEGL.so.1"), "osmesa": not any(map(_loads, OSMESA))}
    if sys.platform == "linux" and missing.get(choice, False):
        package = {"egl": "libegl1", "osmesa": "libosmesa6"}[choice]
        raise EnvError(f"MUJOCO_GL is {choice!r} and its library is not there; install {package}, or unset MUJOCO_GL.")


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _egl_works() -> bool:
    """Whether an EGL device can be initialised: libEGL may be there without any driver behind it."""
    if not _loads("libEGL.so.1"):
        return False
    library = ctypes.CDLL("libEGL.so.1")
    library.eglGetProcAddress.restype = ctypes.c_void_p
    query_address = library.eglGetProcAddress(b"eglQueryDevicesEXT")
    display_address = library.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    if not query_address or not display_address:
        return False
    query: Callable[..., int] = ctypes.CFUNCTYPE(
        ctypes.c_uint, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_int)
    )(query_address)
    open_display: Callable[..., int | None] = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p)(
        display_address
    )
    devices, count = (ctypes.c_void_p * 16)(), ctypes.c_int(0)
    if not query(16, devices, ctypes.byref(count)):
        return False
    library.eglInitialize.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    displays = (open_display(EGL_PLATFORM_DEVICE_EXT, device, None) for device in devices[: count.value])
    return any(display and library.eglInitialize(display, None, None) for display in displays)
