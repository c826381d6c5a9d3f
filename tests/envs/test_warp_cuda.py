"""Worlds of mujoco-warp on an NVIDIA GPU, against the same on the CPU. Skipped where there is none."""

import pytest
import torch

pytest.importorskip("mujoco_warp", reason="needs the extra gpu")

import warp

from steelyard.envs import EnvError, Randomization, make
from steelyard.envs.tasks import build
from steelyard.envs.warp_envs import WarpEnv

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]

DEVICE = "cuda"


def pair(name, num_envs=8, **options):
    task = build(name)
    task.starts = 64
    return tuple(WarpEnv(task, num_envs, device=device, **options) for device in ("cpu", DEVICE))


def actions(env, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield env.spec.random_action(env.num_envs, generator)


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Ant-v5", "Humanoid-v5", "cheetah-run", "humanoid-walk", "reacher-easy"])
def test_steps_are_those_of_the_cpu(name):
    """From the same states, put back after every step; contacts may begin a substep earlier for one of them."""
    if not warp.is_cpu_available():
        pytest.skip("this Warp has no CPU device")
    here, there = pair(name)
    assert torch.allclose(here.reset(seed=3), there.reset(seed=3).cpu(), atol=1e-5)
    errors = []
    for action in actions(here, 60):
        ours, theirs = here.step(action), there.step(action.to(DEVICE))
        assert torch.equal(ours.truncated, theirs.truncated.cpu())
        errors.append((ours.next_obs - theirs.next_obs.cpu()).abs() / (1 + ours.next_obs.abs()))
        there.load_state_dict(here.state_dict())
    there.check()
    error = torch.stack(errors).flatten()
    assert error.quantile(0.95) < 1e-3


@pytest.mark.parametrize("name", ["Hopper-v5", "humanoid-walk", "reacher-easy"])
def test_steps_do_not_wait_for_the_device(name):
    env = make(name, 256, vectorization="warp", device=DEVICE, staggered=True, action_repeat=2)
    env.reset(seed=0)
    given = [action.to(DEVICE) for action in actions(env, 50)]
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for action in given:
            step = env.step(action)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert isinstance(env, WarpEnv)
    env.check()
    assert step.obs.isfinite().all()


def test_tensors_handed_out_stay_as_they_are():
    env = make("Hopper-v5", 64, vectorization="warp", device=DEVICE)
    env.reset(seed=0)
    steps = [env.step(action.to(DEVICE)) for action in actions(env, 1)]
    kept = steps[0].next_obs.clone()
    for action in actions(env, 5, seed=1):
        env.step(action.to(DEVICE))
    assert torch.equal(kept, steps[0].next_obs)


def test_only_worlds_that_end_start_anew():
    env = make("Hopper-v5", 256, vectorization="warp", device=DEVICE)
    env.reset(seed=0)
    ended = 0
    for action in actions(env, 100):
        step = env.step(action.to(DEVICE))
        done = step.terminated | step.truncated
        assert torch.equal(step.obs[~done], step.next_obs[~done])
        assert ((step.obs[done, 0] - 1.25).abs() < 0.01).all()
        ended += int(step.terminated.sum())
    assert ended > 200


def test_faults_are_told_when_asked():
    env = make("Hopper-v5", 4, vectorization="warp", device=DEVICE)
    assert isinstance(env, WarpEnv)
    env.reset(seed=0)
    action = torch.zeros(4, 3, device=DEVICE)
    action[2] = 3.0
    env.step(action)
    with pytest.raises(EnvError, match="an action for world 2"):
        env.check()
    env.simulator.field("qvel")[1] = torch.nan
    env.step(torch.zeros(4, 3, device=DEVICE))
    with pytest.raises(EnvError, match="world 1 returned a number that is not finite"):
        env.check()


def test_worlds_are_those_of_their_seeds_and_resume():
    options = {"vectorization": "warp", "device": DEVICE, "randomization": Randomization(mass=(0.5, 2))}
    many, one = make("Hopper-v5", 64, **options), make("Hopper-v5", 1, **options)
    assert torch.equal(many.reset(seed=10)[3:4], one.reset(seed=13))
    for action in actions(many, 10):
        many.step(action.to(DEVICE))
    state = many.state_dict()
    assert state is not None
    other = make("Hopper-v5", 64, **options)
    other.load_state_dict(state)
    for action in actions(many, 10, seed=1):
        ours, again = many.step(action.to(DEVICE)), other.step(action.to(DEVICE))
        assert torch.allclose(ours.next_obs, again.next_obs, atol=1e-4)


def test_more_worlds_than_fit_are_refused():
    with pytest.raises(EnvError, match=r"worlds need about .* GB on cuda.*use at most"):
        make("Humanoid-v5", 100_000_000, vectorization="warp", device=DEVICE)
