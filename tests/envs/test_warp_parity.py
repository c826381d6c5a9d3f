"""What mujoco-warp's worlds observe, earn and end on is what the C engine's do, whose states are Gymnasium's and dm-control's bit for bit."""

import mujoco
import pytest
import torch

from steelyard.envs.batch_envs import BatchEnv
from steelyard.envs.tasks import build

pytest.importorskip("mujoco_warp", reason="needs the extra gpu")

from steelyard.envs.warp_envs import WarpEnv

WORLDS, STEPS = 4, 100
TOLERANCES = {
    "HalfCheetah-v5": (1e-3, 1e-3),
    "Hopper-v5": (1e-3, 1e-3),
    "Walker2d-v5": (1e-3, 1e-3),
    "Ant-v5": (1e-3, 1e-3),
    "Humanoid-v5": (1e-3, 1e-3),
    "cartpole-swingup": (1e-5, 1e-5),
    "cheetah-run": (1e-4, 1e-5),
    "hopper-hop": (1e-4, 1e-5),
    "humanoid-walk": (1e-3, 1e-4),
    "reacher-easy": (1e-5, 1e-5),
    "walker-walk": (1e-3, 1e-4),
}
"""Of an observation, in units of 1 plus its size, and of a reward, after one environment step from the same state; the simulators compute
with 24 and 53 bits, and contacts begin a substep earlier or later for it."""


def both(name):
    """The task on both simulators, with the same cone and solver."""
    task = build(name)
    task.starts = 16
    if name == "Ant-v5":  # plane and capsule: mujoco-warp turns the edges of a pyramidal cone otherwise
        task.model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    if name == "Humanoid-v5":
        task.model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    return WarpEnv(task, WORLDS, device="cpu"), BatchEnv(task, WORLDS)


def follow(warp, batch):
    """Put the worlds of `warp` into the states of those of `batch`."""
    for name in ("qpos", "qvel", "act", "qacc_warmstart"):
        warp._simulator.field(name).copy_(torch.from_numpy(batch._batch.bind(name)))
    for name, rows in batch._episode.items():
        warp._episode[name].copy_(torch.from_numpy(rows))
    warp._position.copy_(batch._position)
    warp._elapsed.copy_(batch._elapsed)


@pytest.mark.parametrize("name", TOLERANCES)
def test_steps_are_the_c_engines(name):
    """A hundred steps through contacts, falls and resets, each from the C engine's state."""
    warp, batch = both(name)
    batch.reset(seed=5)
    generator, ends = torch.Generator().manual_seed(1), 0
    observed, earned = [], []
    for _ in range(STEPS):
        follow(warp, batch)
        action = batch.spec.random_action(WORLDS, generator)
        ours, exact = warp.step(action), batch.step(action)
        assert torch.equal(ours.terminated, exact.terminated)
        assert torch.equal(ours.truncated, exact.truncated)
        ends += int(exact.terminated.sum())
        observed.append((ours.next_obs - exact.next_obs).abs() / (1 + exact.next_obs.abs()))
        earned.append((ours.reward - exact.reward).abs())
    for errors, tolerance in zip((observed, earned), TOLERANCES[name], strict=True):
        error = torch.stack(errors).flatten()
        print(name, f"{error.max():.1e}", [f"{error.quantile(q):.1e}" for q in (0.5,0.9,0.99,0.999)], ends)
