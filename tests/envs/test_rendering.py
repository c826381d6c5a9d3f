# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""Pictures of every adapter, and one sentence where no OpenGL library is found."""

import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest
import torch

from steelyard.envs import EnvError, make
from steelyard.envs.gl import choose_backend
from steelyard.envs.pictures import needs_opengl

needs_gl = pytest.mark.skipif(os.environ.get("MUJOCO_GL") == "disabled", reason="no OpenGL library on this machine")

WORLDS = [("HalfCheetah-v5", "sync"), ("HalfCheetah-v5", "async"), ("HalfCheetah-v5", "batch"), ("cheetah-run", "sync")]


@needs_gl
@pytest.mark.parametrize(("task", "vectorization"), WORLDS)
def test_pictures_show_the_world_and_follow_it(task, vectorization):
    env = make(task, 2, vectorization=vectorization, render_size=64)
    try:
        env.reset(seed=0)
        first = env.render()
        for _ in range(20):
            env.step(torch.ones(2, env.spec.action_size))
        later = env.render()
    finally:
        env.close()
    for frame in (first, later):
        assert frame.shape == (64, 64, 3)
        assert frame.dtype == np.uint8
        assert frame.std() > 10
    assert not np.array_equal(first, later)


@pytest.mark.parametrize(("task", "vectorization"), WORLDS)
def test_no_library_is_one_sentence(task, vectorization, monkeypatch):
    env = make(task, 1, vectorization=vectorization)
    try:
        env.reset(seed=0)
        monkeypatch.setenv("MUJOCO_GL", "disabled")
        with pytest.raises(EnvError, match="install libegl1"):
            env.render()
    finally:
        env.close()


@pytest.mark.parametrize(
    "error",
    [ImportError("libOSMesa.so: no such file"), AttributeError("'eglQueryString'"), mujoco.FatalError("gladLoadGL error")],
)
def test_errors_of_opengl_are_translated_and_others_are_not(error, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(EnvError, match="libosmesa6"), needs_opengl("walker-run"):
        raise error
    with pytest.raises(AttributeError, match="camera"), needs_opengl("walker-run"):
        raise AttributeError("camera")


@pytest.mark.parametrize(("choice", "package"), [("egl", "libegl1"), ("osmesa", "libosmesa6")])
def test_a_chosen_library_that_is_missing_is_named(choice, package, monkeypatch):
    def load(name):
        raise OSError(name)

    monkeypatch.setenv("MUJOCO_GL", choice)
    monkeypatch.setattr("ctypes.CDLL", load)
    with pytest.raises(EnvError, match=f"install {package}"):
        make("walker-run", 1)
    monkeypatch.delenv("MUJOCO_GL")
    choose_backend()
    assert os.environ["MUJOCO_GL"] == ("glfw" if "DISPLAY" in os.environ else "disabled")


@needs_gl
def test_environments_do_not_draw_into_each_other():
    """Their pictures stay their own, drawn in turn, and after one of them is closed."""
    worlds = [
        make("HalfCheetah-v5", 1, render_size=48),
        make("Hopper-v5", 1, render_size=48),
        make("walker-walk", 1, render_size=48),
        make("cartpole-swingup", 1, render_size=48),
        make("Ant-v5", 1, vectorization="batch", render_size=48),
    ]
    for world in worlds:
        world.reset(seed=0)
    alone = [world.render() for world in worlds]
    for _ in range(2):
        assert all(np.array_equal(world.render(), picture) for world, picture in zip(worlds, alone, strict=True))
    worlds.pop(1).close()
    alone.pop(1)
    assert all(np.array_equal(world.render(), picture) for world, picture in zip(worlds, alone, strict=True))
    for world in worlds:
        world.close()


@pytest.mark.skipif(sys.platform != "linux", reason="MuJoCo draws with the system's own library elsewhere")
@pytest.mark.parametrize("task", ["walker-run", "HalfCheetah-v5"])
def test_a_missing_library_is_named_by_a_process_of_its_own(task):
    """There MuJoCo is imported only after the library has been looked for, whose absence it would end in a traceback at."""
    code = (
        "import ctypes, os, sys, torch\n"
        "os.environ['MUJOCO_GL'] = 'osmesa'\n"
        "def load(name, *arguments, **named):\n"
        "    raise OSError(name)\n"
        "ctypes.CDLL = load\n"
        "import steelyard.envs, steelyard.trainers.video\n"
        "assert 'mujoco' not in sys.modules\n"
        "try:\n"
        f"    steelyard.envs.make({task!r}, 1)\n"
        "except steelyard.envs.EnvError as error:\n"
        "    print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "install libosmesa6" in result.stdout, result.stderr


@needs_gl
def test_mujoco_may_be_imported_first():
    """Left alone it takes glfw, which needs a display."""
    code = (
        "import os, warnings; os.environ.pop('MUJOCO_GL', None); os.environ.pop('DISPLAY', None); warnings.simplefilter('ignore')\n"
        "import mujoco\n"
        "from steelyard.envs import make\n"
        "env = make('Hopper-v5', 1, vectorization='batch', render_size=32)\n"
        "print(env.render().std() > 10)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("True\n", "")


@needs_gl
def test_terrain_is_drawn_anew_in_each_episode():
    env = make("quadruped-escape", 1, render_size=48)
    pictures = []
    for seed in (0, 1, 0):
        env.reset(seed=seed)
        pictures.append(env.render())
    env.close()
    assert np.array_equal(pictures[0], pictures[2])
    assert not np.array_equal(pictures[0], pictures[1])


def test_probes_have_no_picture():
    with pytest.raises(EnvError, match="no picture"):
        make("probe-constant", 1).render()
