"""Stopping and continuing in a new environment equals not stopping, bit for bit."""

import io
import sys
from pathlib import Path

import gymnasium as gym
import pytest
import torch
from gymnasium.vector import SyncVectorEnv

from steelyard.envs import EnvError, make
from steelyard.envs.dmc_envs import DmcEnv
from steelyard.envs.gym_envs import GymEnv

FOREIGN = str(Path(__file__).parent)


def saved(env):
    """The state of worlds that can be saved."""
    state = env.state_dict()
    assert state is not None
    return state


def reloaded(state):
    """What a checkpoint makes of `state`: it must be plain enough for `weights_only`."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def compare(task, *, before, after=300, worlds=2, horizon=None, **options):
    """Play `before` steps, save, load into a new environment, and compare `after` steps of both, which must cross an end.

    `horizon` shortens the episodes of dm-control; the environment that continues learns of it from the state alone.
    """
    first = make(task, worlds, **options)
    if horizon is not None:
        assert isinstance(first, DmcEnv)
        for world in first._worlds:
            world._step_limit = horizon
    generator = torch.Generator().manual_seed(0)
    actions = [torch.rand(worlds, first.spec.action_size, generator=generator) * 2 - 1 for _ in range(before + after)]
    first.reset(seed=3)
    for action in actions[:before]:
        first.step(action)
    state = reloaded(saved(first))
    second = make(task, worlds, **options)
    second.reset(seed=99)
    for action in actions[:30]:
        second.step(action)  # the environment that continues may have had a life of its own
    second.load_state_dict(state)
    ends = 0
    for action in actions[before:]:
        expected, step = first.step(action), second.step(action)
        assert all(map(torch.equal, step[:-1], expected[:-1]))
        ends += int((step.terminated | step.truncated).sum())
    assert ends > 0


@pytest.mark.parametrize("task", ["HalfCheetah-v5", "Ant-v5", "Hopper-v4", "Humanoid-v5", "Pendulum-v1"])
def test_gymnasium(task):
    # Halfway through an episode, and with a world that has just ended for those that fall.
    compare(task, before={"HalfCheetah-v5": 800, "Pendulum-v1": 150}.get(task, 37))


def test_gymnasium_saved_between_an_end_and_its_reset():
    compare("Pendulum-v1", before=200)


@pytest.mark.parametrize(
    "task",
    [
        "cheetah-run",
        "reacher-easy",
        "finger-turn_hard",
        "fish-swim",
        "ball_in_cup-catch",
        "walker-walk",
        "humanoid-run",
        "manipulator-bring_ball",
        "quadruped-walk",
        "swimmer-swimmer6",
    ],
)
def test_dm_control(task):
    compare(task, before=37, horizon=100)


def test_dm_control_saved_between_an_end_and_its_reset():
    compare("point_mass-hard", before=100, horizon=100)


@pytest.mark.parametrize("task", ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5"])
def test_batch(task):
    before = 800 if task == "HalfCheetah-v5" else 37
    compare(task, before=before, worlds=3, vectorization="batch")


def test_probes():
    compare("probe-observation", before=3)
    compare("probe-truncation", before=3)


@pytest.fixture
def foreign(monkeypatch):
    monkeypatch.syspath_prepend(FOREIGN)
    before = dict(gym.registry)
    yield
    sys.modules.pop("foreign_worlds", None)
    gym.registry.clear()
    gym.registry.update(before)


@pytest.mark.parametrize("name", ["Walk", "DictWalk", "Nested", "EndsAtOnce", "Dice", "Goals"])
def test_worlds_of_others(name, foreign):
    compare(f"foreign_worlds:{name}-v0", before=13, after=60)


def test_shared_parts_stay_shared(foreign):
    env, other = GymEnv("foreign_worlds:Nested-v0", 1), GymEnv("foreign_worlds:Nested-v0", 1)
    env.reset(seed=0)
    env.step(torch.zeros(1, 1))
    other.load_state_dict(reloaded(saved(env)))
    assert isinstance(other._vector, SyncVectorEnv)
    body = other._vector.envs[0].get_wrapper_attr("body")
    assert body.trail is body.same_trail
    assert body.parts[3] == {1, 2}


@pytest.mark.parametrize("name", ["Opaque", "Hidden"])
def test_what_cannot_be_seen_is_not_half_saved(name, foreign):
    env = make(f"foreign_worlds:{name}-v0", 2)
    env.reset(seed=0)
    assert env.state_dict() is None
    processes = make("Pendulum-v1", 1, vectorization="async")
    assert processes.state_dict() is None
    processes.close()


@pytest.mark.parametrize("options", [{}, {"vectorization": "batch"}])
def test_another_number_of_worlds_is_refused(options):
    state = saved(make("Hopper-v5", 2, **options))
    with pytest.raises(EnvError, match="2 worlds"):
        make("Hopper-v5", 3, **options).load_state_dict(state)
    with pytest.raises(EnvError, match="2 worlds"):
        make("hopper-hop", 3).load_state_dict(saved(make("hopper-hop", 2)))


def test_another_model_is_refused():
    state = saved(make("cheetah-run", 1))
    with pytest.raises(EnvError, match="not the one the checkpoint was taken with"):
        make("walker-run", 1).load_state_dict(state)
