# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""Worlds that show critics more than policies: Gymnasium's in two parts, tasks of one's own, and the factors of randomised ones."""

import dataclasses
import importlib.util

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

from steelyard.agents.types import Spec
from steelyard.envs import EnvError, Randomization, check_contract, make, shown_factors
from steelyard.envs.asymmetric import policy_and_critic
from steelyard.envs.batch_envs import BatchEnv
from steelyard.envs.distractors import Distracted
from steelyard.envs.minari_data import flatten
from steelyard.envs.tasks import build
from steelyard.envs.tasks.cartpole import SwingUp

needs_warp = pytest.mark.skipif(importlib.util.find_spec("mujoco_warp") is None, reason="needs the extra gpu")
BOTH = ("batch", pytest.param("warp", marks=needs_warp))
RANGES = Randomization(mass=(0.5, 2), gain=(0.8, 1.2), shown=True)


class HiddenSpeed(SwingUp):
    """The cart-pole whose policy does not see how fast anything moves."""

    starts = 16

    def __init__(self):
        super().__init__("cartpole-swingup")

    def observe(self, state):
        return super().observe(state)[:, :3]

    def privileged(self, state):
        return state["qvel"]


def worlds(task, vectorization, num_envs=4, **options):
    if vectorization == "batch":
        return BatchEnv(task, num_envs, **options)
    from steelyard.envs.warp_envs import WarpEnv

    return WarpEnv(task, num_envs, device="cpu", **options)


@pytest.mark.usefixtures("foreign_worlds")
@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("name", ["ActorAndCritic", "PolicyAndCritic"])
def test_of_a_dict_of_two_parts_the_policys_comes_first(name, vectorization):
    env = make(f"foreign_worlds:{name}-v0", 2, vectorization=vectorization)
    try:
        assert (env.spec.obs_size, env.spec.policy_obs_size) == (4, 1)
        obs = env.reset(seed=0)
        assert torch.equal(
            obs[:, 1:], torch.stack([obs[:, 0], torch.ones(2), torch.zeros(2)], 1)
        )  # critics: place, one-hot parity
        check_contract(env, steps=60)
    finally:
        env.close()


@pytest.mark.usefixtures("foreign_worlds")
def test_a_data_set_has_the_order_of_its_worlds():
    space = Dict({"policy": Box(-1, 1, (1,), np.float64), "critic": Dict({"place": Box(-1, 1, (2,)), "parity": Discrete(2)})})
    values = {"policy": np.array([[1.0]]), "critic": {"place": np.array([[2.0, 3.0]]), "parity": np.array([1])}}
    assert flatten(space, values).tolist() == [[1.0, 0.0, 1.0, 2.0, 3.0]]
    world = gym.make("foreign_worlds:PolicyAndCritic-v0")
    observed, _ = world.reset(seed=3)
    shown = make("foreign_worlds:PolicyAndCritic-v0", 1).reset(seed=3)
    rows = {"policy": observed["policy"][None], "critic": {key: np.asarray([part]) for key, part in observed["critic"].items()}}
    assert flatten(world.observation_space, rows) == pytest.approx(shown.numpy())


@pytest.mark.parametrize("keys", [("actor",), ("actor", "critic", "goal"), ("policy", "actor"), ("observation", "goal")])
def test_other_dicts_are_seen_whole(keys):
    assert policy_and_critic(Dict({key: Box(-1, 1, (1,)) for key in keys})) is None


@pytest.mark.parametrize("vectorization", BOTH)
def test_a_task_may_hide_something_from_policies(vectorization):
    task = build("cartpole-swingup")
    task.starts = HiddenSpeed.starts
    env, whole = (worlds(shown, vectorization) for shown in (HiddenSpeed(), task))
    assert (env.spec.obs_size, env.spec.policy_obs_size) == (5, 3)
    assert torch.equal(env.reset(seed=1)[:, :3], whole.reset(seed=1)[:, :3])
    for _ in range(5):
        step, same = (world.step(torch.full((4, 1), 0.5)) for world in (env, whole))
        assert torch.allclose(step.next_obs, same.next_obs, atol=1e-6)
    check_contract(worlds(HiddenSpeed(), vectorization, action_repeat=50), steps=40)


@pytest.mark.parametrize("vectorization", BOTH)
def test_critics_may_see_the_factors_of_their_world(vectorization):
    task = build("cartpole-swingup")
    task.starts = 16
    env = worlds(task, vectorization, randomization=RANGES, action_repeat=50)
    plain = worlds(task, vectorization, randomization=dataclasses.replace(RANGES, shown=False), action_repeat=50)
    assert (env.spec.obs_size, env.spec.policy_obs_size, plain.spec.policy_obs_size) == (7, 5, None)
    obs, same = env.reset(seed=3), plain.reset(seed=3)
    assert torch.equal(obs[:, :5], same)
    masses = torch.as_tensor(env._expanded["body_mass"] if vectorization == "batch" else env.simulator.model_field("body_mass"))
    assert torch.allclose(obs[:, 5].double(), masses[:, 1].double() / task.model.body_mass[1], atol=1e-5)
    assert ((obs[:, 6] >= 0.8) & (obs[:, 6] <= 1.2)).all()
    assert obs[:, 5:].unique().numel() == 8
    factors = obs[:, 5:]
    for _ in range(25):  # past the end of an episode
        step, other = (world.step(torch.ones(4, 1)) for world in (env, plain))
        assert torch.equal(step.next_obs[:, :5], other.next_obs)
        assert torch.equal(step.obs[:, 5:], factors)
        assert torch.equal(step.next_obs[:, 5:], factors)
    assert not torch.equal(env.reset(seed=30)[:, 5:], factors)
    state = env.state_dict()
    env.reset(seed=3)
    env.load_state_dict(state)
    assert not torch.equal(env.step(torch.zeros(4, 1)).obs[:, 5:], factors)
    check_contract(env, steps=40)


def test_both_simulators_show_the_same_factors():
    pytest.importorskip("mujoco_warp", reason="needs the extra gpu")
    ranges = Randomization(mass=(0.5, 2), damping=(0.5, 2), each=True, shown=True)
    task = build("cartpole-swingup")
    task.starts = 4
    cpu, warp = (worlds(task, kind, randomization=ranges).reset(seed=5)[:, 5:] for kind in ("batch", "warp"))
    assert torch.allclose(cpu, warp)
    assert cpu.shape[1] == task.model.nbody + task.model.nv == shown_factors("cartpole-swingup", ranges)


@pytest.mark.parametrize("ranges", [Randomization(shown=True), Randomization(mass=(0.5, 2))])
def test_nothing_to_show(ranges):
    assert shown_factors("walker-walk", ranges) == 0
    assert make("walker-walk", 2, vectorization="batch", randomization=ranges).spec.policy_obs_size is None


def test_distractors_and_hidden_numbers_do_not_go_together():
    with pytest.raises(EnvError, match="leave one of the two out"):
        Distracted(BatchEnv(HiddenSpeed(), 2), 3)


@pytest.mark.parametrize("size", [0, 6])
def test_the_contract_names_a_part_that_cannot_be(size):
    env = BatchEnv(build("cartpole-swingup"), 2)
    env.spec = Spec(5, 1, horizon=1000, can_terminate=False, policy_obs_size=size)
    with pytest.raises(EnvError, match=f"policies cannot see {size} of 5 numbers"):
        check_contract(env, steps=5)
