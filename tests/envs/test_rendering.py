"""Pictures of every adapter, and one sentence where no OpenGL library is found."""

import os

import numpy as np
import pytest
import torch

from steelyard.envs import EnvError, make

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


@pytest.mark.parametrize("error", [ImportError("libOSMesa.so: cannot open"), AttributeError("no attribute 'eglQueryString'")])
def test_errors_of_opengl_are_translated_and_others_are_not(error):
    from steelyard.envs.gl import rendering

    with pytest.raises(EnvError, match="libosmesa6"), rendering("walker-run"):
        raise error
    with pytest.raises(AttributeError, match="camera"), rendering("walker-run"):
        raise AttributeError("camera")


def test_probes_have_no_picture():
    with pytest.raises(EnvError, match="no picture"):
        make("probe-constant", 1).render()
