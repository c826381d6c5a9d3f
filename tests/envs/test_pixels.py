# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""Worlds seen through a camera: the pictures, the stacks of them, and what is refused."""

import dataclasses
import io
import os
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from dm_control import suite

from steelyard.envs import EnvError, Pictures, check_contract, make

needs_gl = pytest.mark.skipif(os.environ.get("MUJOCO_GL") == "disabled", reason="no OpenGL library on this machine")
SMALL = Pictures(size=16, stack=2, rendering="fast")
DRAWN = "foreign_worlds:Drawn-v0"


@pytest.fixture(autouse=True)
def foreign_worlds(monkeypatch):
    """Lets `foreign_worlds:Id` be found, and forgets the module's ids afterwards."""
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    registered = set(gym.registry)
    yield
    sys.modules.pop("foreign_worlds", None)
    for name in set(gym.registry) - registered:
        gym.registry.pop(name)


def newest(obs, stack):
    """The newest frames as pictures [num_envs, height, width, 3]."""
    frame = obs.unflatten(1, (stack, 3, -1))[:, -1]
    side = int(frame.shape[-1] ** 0.5)
    return frame.unflatten(-1, (side, side)).permute(0, 2, 3, 1).numpy()


@needs_gl
@pytest.mark.parametrize(("task", "camera"), [("cheetah-run", 0), ("reacher-easy", 0), ("quadruped-walk", 2)])
def test_published_pictures_are_dm_controls_own(task, camera):
    env = make(task, 2, action_repeat=2, pictures=Pictures())
    assert (env.spec.picture, env.spec.frames, env.spec.obs_size) == ((9, 84, 84), 3, 63_504)
    plain = [suite.load(*task.split("-"), task_kwargs={"random": 5 + i}) for i in range(2)]
    for world in plain:
        world.reset()
    obs = env.reset(seed=5)
    assert obs.dtype == torch.uint8
    generator, shown = np.random.default_rng(0), []
    for t in range(4):
        pictures = np.stack([world.physics.render(84, 84, camera_id=camera) for world in plain])
        assert np.array_equal(newest(obs, 3), pictures), t
        shown.append(obs.unflatten(1, (3, -1)))
        action = generator.uniform(-1, 1, (2, env.spec.action_size)).astype(np.float32)
        for world, row in zip(plain, action, strict=True):
            bounds = world.action_spec()
            scaled = (bounds.minimum + bounds.maximum) / 2 + (bounds.maximum - bounds.minimum) / 2 * row
            for _ in range(2):
                world.step(scaled)
        obs = env.step(torch.from_numpy(action)).obs
    env.close()
    first, last = shown[0], shown[-1]
    assert torch.equal(first[:, 0], first[:, 2])
    assert torch.equal(last[:, 0], shown[1][:, 2])
    assert torch.equal(last[:, 1], shown[2][:, 2])
    assert not torch.equal(last[:, 0], last[:, 2])


@needs_gl
def test_published_pictures_of_gymnasiums_robots_are_those_of_the_camera_that_follows_them():
    env = make("HalfCheetah-v5", 1, pictures=Pictures())
    plain = gym.make("HalfCheetah-v5", render_mode="rgb_array", width=84, height=84, camera_name="track")
    obs = env.reset(seed=3)
    plain.reset(seed=3)
    for _ in range(3):
        assert np.array_equal(newest(obs, 3)[0], np.asarray(plain.render()))
        obs = env.step(torch.full((1, 6), 0.5)).obs
        plain.step(np.full(6, 0.5, np.float32))
    env.close()
    plain.close()


@needs_gl
@pytest.mark.parametrize("task", ["cheetah-run", "HalfCheetah-v5"])
def test_fast_pictures_differ_little_from_the_published_ones(task):
    drawn = {}
    for rendering in ("published", "fast"):
        env = make(task, 1, pictures=Pictures(rendering=rendering))
        drawn[rendering] = env.reset(seed=0).float()
        env.close()
    assert not torch.equal(drawn["published"], drawn["fast"])
    assert (drawn["published"] - drawn["fast"]).abs().mean() < 10
    assert drawn["published"].mean() == pytest.approx(drawn["fast"].mean(), abs=10)


@needs_gl
@pytest.mark.parametrize(("task", "action_repeat"), [("reacher-easy", 100), ("HalfCheetah-v5", 100), (DRAWN, 1)])
def test_the_contract_is_kept(task, action_repeat):
    pictures = SMALL if task != DRAWN else Pictures(size=10, stack=4)
    env = make(task, 2, action_repeat=action_repeat, pictures=pictures)
    check_contract(env, steps=30)
    env.close()


@needs_gl
def test_an_episode_ends_with_its_last_picture_and_begins_with_copies_of_its_first():
    env = make("reacher-easy", 1, action_repeat=500, pictures=SMALL)
    first = env.reset(seed=0)
    env.step(torch.zeros(1, 2))
    last = env.step(torch.zeros(1, 2))
    assert last.truncated.all()
    assert torch.equal(last.obs, last.next_obs)
    begun = env.step(torch.zeros(1, 2))
    assert not begun.valid.any()
    assert not torch.equal(begun.obs, first)
    frames = begun.obs.unflatten(1, (2, -1))
    assert torch.equal(frames[:, 0], frames[:, 1])
    assert not torch.equal(frames[:, 0], last.obs.unflatten(1, (2, -1))[:, 1])
    env.close()


@needs_gl
@pytest.mark.parametrize(
    ("task", "rendering"), [("reacher-hard", "published"), ("cheetah-run", "fast"), ("cartpole-swingup", "rays")]
)
def test_a_state_that_was_saved_continues_exactly_in_another_environment(task, rendering):
    if rendering == "rays":
        pytest.importorskip("mujoco_warp")
    pictures = dataclasses.replace(SMALL, rendering=rendering)
    env = make(task, 2, action_repeat=2, pictures=pictures)
    env.reset(seed=7)
    action = torch.full((2, env.spec.action_size), 0.7)
    for _ in range(3):
        env.step(action)
    file = io.BytesIO()
    torch.save(env.state_dict(), file)
    expected = [env.step(action).obs for _ in range(3)]
    env.close()
    file.seek(0)
    other = make(task, 2, action_repeat=2, pictures=pictures)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert all(torch.equal(obs, other.step(action).obs) for obs in expected)
    other.close()


@needs_gl
def test_people_see_pictures_of_another_size_than_agents():
    env = make("cartpole-swingup", 1, pictures=SMALL, render_size=48)
    obs = env.reset(seed=0)
    before = obs.clone()
    assert env.render().shape == (48, 48, 3)
    assert torch.equal(obs, before)
    assert env.render().std() > 10
    env.close()


@needs_gl
def test_worlds_that_draw_themselves_are_scaled_by_areas():
    env = make(DRAWN, 2, pictures=Pictures(size=10, stack=1))
    obs = env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (20, 30, 3)
    expected = picture.reshape(10, 2, 10, 3, 3).mean(axis=(1, 3))
    assert np.abs(newest(obs, 1)[0] - expected).max() <= 0.5
    assert not torch.equal(obs[0], obs[1])
    env.close()


@pytest.mark.parametrize("size", [8, 4])
def test_observations_that_are_pictures_stay_what_they_are(size):
    env = make("foreign_worlds:Imaged-v0", 2, pictures=Pictures(size=size, stack=3))
    assert (env.spec.picture, env.spec.frames) == ((3, size, size), 3)
    plain = make("foreign_worlds:Imaged-v0", 2)
    shown, plain_shown = env.reset(seed=0), plain.reset(seed=0)
    for _ in range(3):
        expected = plain_shown.reshape(2, size, 8 // size, size, 8 // size).mean((2, 4)).round().flatten(1)
        assert torch.equal(shown.unflatten(1, (3, -1))[:, -1].float(), expected)
        action = torch.full((2, 1), 0.3)
        shown, plain_shown = env.step(action).obs, plain.step(action).obs
    check_contract(env, steps=30)
    env.close()


@needs_gl
def test_atari_is_played_as_published():
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    env = make("ALE/Breakout-v5", 2, action_repeat=4, pictures=Pictures(size=84, stack=4))
    assert (env.spec.picture, env.spec.frames, env.spec.discrete) == ((4, 84, 84), 4, True)
    assert (env.spec.action_size, env.spec.horizon) == (4, 27_000)
    check_contract(env, steps=300, deterministic=True)  # the first pictures of Breakout are all alike
    ale = gym.make("ALE/Breakout-v5", frameskip=1)
    plain = gym.wrappers.AtariPreprocessing(ale)
    picture, _ = plain.reset(seed=4)
    plain.action_space.seed(4)
    obs = env.reset(seed=3)
    for _ in range(20):
        assert np.array_equal(obs[1].reshape(4, 84, 84)[-1].numpy(), picture)
        picture, *_ = plain.step(1)
        obs = env.step(torch.eye(4)[[1, 1]]).obs
    assert obs.float().mean() > 10
    assert env.render().shape == (210, 160, 3)
    assert env.state_dict() is None
    env.close()
    plain.close()


def test_atari_without_its_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(EnvError, match=r"pip install 'steelyard\[atari\]'"):
        make("ALE/Pong-v5", 1, pictures=SMALL)


@pytest.mark.parametrize(
    ("task", "options", "sentence"),
    [
        ("probe-constant", {}, "probes have no pictures"),
        ("minatar-breakout", {}, "MinAtar's games have no pictures"),
        ("HalfCheetah-v5", {"vectorization": "batch"}, "no 'batch' vectorization; use 'sync'"),
        ("HalfCheetah-v5", {"vectorization": "async"}, "no 'async' vectorization; use 'sync'"),
        ("cheetah-run", {"pictures": Pictures(camera=7)}, "there is no camera 7; choose one of 0 to 1"),
        (DRAWN, {"pictures": Pictures(rendering="fast")}, "draws its own pictures"),
        (DRAWN, {"pictures": Pictures(camera=0)}, "draws its own pictures"),
    ],
)
def test_what_does_not_exist_is_refused(task, options, sentence):
    with pytest.raises(EnvError, match=sentence):
        make(task, 1, **({"pictures": SMALL} | options))


@pytest.mark.parametrize(("field", "value"), [("size", 0), ("stack", 0), ("rendering", "pretty")])
def test_options_out_of_range_are_named(field, value):
    with pytest.raises(EnvError, match=rf"pictures\.{field} is"):
        Pictures(**{field: value})


@pytest.mark.parametrize("rendering", ["published", "fast"])
def test_no_opengl_is_one_sentence(rendering, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    env = make("cartpole-swingup", 1, pictures=Pictures(rendering=rendering))
    with pytest.raises(EnvError, match="install libegl1"):
        env.reset(seed=0)
    env.close()


def test_no_ray_tracer_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco_warp", None)
    with pytest.raises(EnvError, match=r"pip install 'steelyard\[gpu\]'"):
        make("cartpole-swingup", 1, pictures=Pictures(rendering="rays"))


@needs_gl
def test_rays_show_what_the_simulator_draws():
    pytest.importorskip("mujoco_warp")
    drawn = {}
    for rendering in ("published", "rays"):
        env = make("cartpole-swingup", 2, pictures=Pictures(rendering=rendering))
        env.reset(seed=1)
        for _ in range(3):
            obs = env.step(torch.ones(2, 1)).obs
        drawn[rendering] = newest(obs, 3).astype(float)
        env.close()
    assert drawn["rays"].mean() == pytest.approx(drawn["published"].mean(), rel=0.1)
    difference = np.abs(drawn["rays"] - drawn["published"]).mean()
    assert difference < 20
    # The worlds are drawn each as it is: swapped, they would differ more.
    assert difference < np.abs(drawn["rays"][::-1] - drawn["published"]).mean()


def test_the_rendering_is_described(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    assert Pictures().describe() == "pictures: 84 x 84, 3 frames, published rendering through egl"
    assert Pictures(rendering="rays").describe().endswith("rays rendering through mujoco-warp")
