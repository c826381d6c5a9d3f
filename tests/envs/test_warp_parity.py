# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""What mujoco-warp's worlds observe, earn and end on is what the C engine's do, whose states are Gymnasium's and dm-control's bit for bit."""

import mujoco
import pytest
import torch

from steelyard.envs import Randomization
from steelyard.envs.batch_envs import BatchEnv
from steelyard.envs.tasks import build
from steelyard.envs.warp_envs import WarpEnv

pytest.importorskip("mujoco_warp", reason="needs the extra gpu")

WORLDS, STEPS = 4, 100
TOLERANCES = {
    "HalfCheetah-v5": (1e-2, 5e-4),
    "Hopper-v5": (5e-5, 2e-5),
    "Walker2d-v5": (1e-3, 1e-4),
    "Ant-v5": (2e-2, 1e-4),
    "Humanoid-v5": (1e-2, 5e-4),
    "cartpole-swingup": (5e-6, 2e-6),
    "cheetah-run": (1e-3, 5e-6),
    "hopper-stand": (1e-3, 5e-6),
    "humanoid-walk": (2e-3, 5e-6),
    "reacher-easy": (2e-5, 1e-6),
    "walker-walk": (1e-3, 2e-5),
}
"""Largest difference in an observation, in units of 1 plus its size, and in a reward, after one environment step from the same state; 99 in 100
differences are within a tenth of that. The simulators compute with 24 and 53 bits, and a contact may begin a substep earlier for one of them."""


def both(name, **options):
    """The task on both simulators, with the same cone and solver."""
    task = build(name)
    task.starts = 16
    if name in ("Ant-v5", "humanoid-walk"):  # plane and capsule: mujoco-warp turns the edges of a pyramidal cone otherwise
        task.model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    if name == "Humanoid-v5":
        task.model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    return WarpEnv(task, WORLDS, device="cpu", **options), BatchEnv(task, WORLDS, **options)


def lead(warp, batch):
    """Put the worlds of `batch` into the states of those of `warp`."""
    for name in ("qpos", "qvel", "act", "qacc_warmstart"):
        batch._batch.bind(name)[:] = warp.simulator.field(name).numpy()
    for name, rows in warp._episode.items():
        batch._episode[name][:] = rows.numpy()
    batch._batch.forward()


def follow(warp, batch):
    """Put the worlds of `warp` into the states of those of `batch`."""
    for name in ("qpos", "qvel", "act", "qacc_warmstart"):
        warp.simulator.field(name).copy_(torch.from_numpy(batch._batch.bind(name)))
    for name, rows in batch._episode.items():
        warp._episode[name].copy_(torch.from_numpy(rows))
    warp._position.copy_(batch._position)
    warp._elapsed.copy_(batch._elapsed)


@pytest.mark.parametrize("name", TOLERANCES)
def test_steps_are_the_c_engines(name):
    """A hundred steps through contacts, falls and resets, each from the C engine's state."""
    warp, batch = both(name)
    batch.reset(seed=5)
    first = warp.reset(seed=7)
    lead(warp, batch)
    assert torch.allclose(first, torch.from_numpy(batch._observe()), rtol=1e-5, atol=1e-5)
    if name != "cartpole-swingup":  # which starts in a small region
        assert (first[0] - first[1]).abs().max() > 1e-3
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
        assert error.max() < tolerance
        assert error.quantile(0.99) < tolerance / 10
    assert ends >= WORLDS or name not in ("Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5")


@pytest.mark.parametrize(
    ("name", "steps", "tolerance"), [("Hopper-v5", 30, 1e-4), ("walker-run", 20, 1e-2), ("cartpole-balance", 100, 1e-4)]
)
def test_episodes_stay_together(name, steps, tolerance):
    """Without being put back on the way; for how long depends on how chaotic the task is."""
    warp, batch = both(name)
    batch.reset(seed=2)
    follow(warp, batch)
    generator, going_on = torch.Generator().manual_seed(2), torch.ones(WORLDS, dtype=torch.bool)
    for _ in range(steps):
        action = 0.5 * batch.spec.random_action(WORLDS, generator)
        ours, exact = warp.step(action), batch.step(action)
        error = (ours.next_obs - exact.next_obs).abs() / (1 + exact.next_obs.abs())
        assert error[going_on].max() < tolerance
        assert torch.equal(ours.terminated[going_on], exact.terminated[going_on])
        going_on &= ~(ours.terminated | exact.terminated)
        if not going_on.any():
            break


def test_randomised_robots_are_the_c_engines():
    """Constants that follow from masses and sizes included; factors are those of the seed and different in each world."""
    ranges = Randomization(
        mass=(0.5, 2), friction=(0.5, 2), gain=(0.5, 2), damping=(0.5, 2), fields=(("dof_armature", 0.5, 2),), each=True
    )
    warp, batch = both("Hopper-v5", randomization=ranges)
    batch.reset(seed=9)
    warp.reset(seed=9)
    generator = torch.Generator().manual_seed(3)
    for _ in range(60):
        follow(warp, batch)
        action = batch.spec.random_action(WORLDS, generator)
        ours, exact = warp.step(action), batch.step(action)
        assert ((ours.next_obs - exact.next_obs).abs() / (1 + exact.next_obs.abs())).max() < 1e-4
        assert torch.equal(ours.terminated, exact.terminated)
    for name in ("body_mass", "body_invweight0", "dof_armature"):
        field = warp.simulator.model_field(name).flatten(1)
        assert len(field.unique(dim=0)) == WORLDS


def test_ants_with_the_published_cone_agree_in_the_mean():
    """Their trajectories do not, since friction pyramids of steep capsules are turned otherwise."""
    task, worlds = build("Ant-v5"), 32
    task.starts = 64
    means = []
    for env in (WarpEnv(task, worlds, device="cpu"), BatchEnv(task, worlds)):
        env.reset(seed=0)
        generator = torch.Generator().manual_seed(0)
        steps = [env.step(env.spec.random_action(worlds, generator)) for _ in range(60)]
        kinds = (torch.stack([step.reward for step in steps]), torch.stack([step.next_obs.abs().mean(1) for step in steps]))
        means.append([kind.mean(0) for kind in kinds])
    for ours, exact in zip(*means, strict=True):
        error = ((ours.var() + exact.var()) / worlds).sqrt()
        assert (ours.mean() - exact.mean()).abs() < 3 * error
        assert error < 0.1
