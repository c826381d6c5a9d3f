# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""Worlds of mujoco-warp on Warp's CPU device: the contract, seeds, resets, ends, faults, randomisation, resuming, models of one's own."""

import dataclasses
import io
import re
import subprocess
import sys

import mujoco
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from steelyard.envs import EnvError, Randomization, VectorEnv, check_contract, make, warp_simulator
from steelyard.envs.batch_envs import BatchEnv
from steelyard.envs.tasks import Task, build
from steelyard.envs.vector import ResidentEnv
from steelyard.envs.warp_envs import WarpEnv

pytest.importorskip("mujoco_warp", reason="needs the extra gpu")

BALL = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <geom name="floor" type="plane" size="2 2 .1" friction=".3"/>
    <body name="ball" pos="0 0 .095">
      <joint name="x" type="slide" axis="1 0 0" damping=".5"/>
      <joint name="z" type="slide" axis="0 0 1"/>
      <geom name="ball" type="sphere" size=".1" mass="1" friction=".3"/>
    </body>
  </worldbody>
  <actuator><motor joint="x" gear="5" ctrllimited="true" ctrlrange="-2 4"/></actuator>
</mujoco>
"""


class Ball(Task):
    """Slide to a goal, which lies elsewhere in every episode."""

    frame_skip = 2
    horizon = 20
    can_terminate = True
    fields = ("xpos",)
    starts = 256
    contacts = 4
    constraints = 8

    def __init__(self):
        super().__init__("ball", BALL)

    def start(self, data, random):
        data.qpos[0] = random.uniform(-0.2, 0.2)
        return {"goal": np.array([random.uniform(-0.4, 0.4)])}

    def observe(self, state):
        return torch.cat([state["xpos"][:, 1], state["qvel"], state["goal"]], dim=1)

    def position(self, state):
        return state["xpos"][:, 1, 0]

    def reward(self, state, control, velocity):
        return velocity - (state["xpos"][:, 1, :1] - state["goal"]).abs()[:, 0] - 0.1 * control.square().sum(1)

    def terminated(self, state):
        return state["qpos"][:, 0].abs() > 0.3


def ball(num_envs=4, **options):
    return WarpEnv(Ball(), num_envs, device="cpu", **options)


def play(env, steps, seed=0):
    """Steps with uniform actions; worlds take the same ones however many there are."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        action = 2 * torch.rand(16, env.spec.action_size, generator=generator) - 1
        yield env.step(action[: env.num_envs])


@pytest.mark.parametrize(
    "options", [{}, {"action_repeat": 3}, {"staggered": True, "randomization": Randomization(mass=(0.5, 2))}]
)
def test_contract(options):
    env = ball(**options)
    assert isinstance(env, VectorEnv)
    assert isinstance(env, ResidentEnv)
    assert env.spec.horizon == -(-20 // options.get("action_repeat", 1))
    check_contract(env, steps=60)


@pytest.mark.parametrize(
    "options", [{}, {"action_repeat": 3}, {"staggered": True, "randomization": Randomization(mass=(0.5, 2))}]
)
def test_a_task_of_ones_own_keeps_the_contract_on_cpu_threads(options):
    check_contract(BatchEnv(Ball(), 4, **options), steps=60)


@pytest.mark.parametrize(("name", "repeat"), [("Hopper-v5", 1), ("reacher-easy", 50)])
def test_contract_of_named_tasks(name, repeat):
    check_contract(make(name, 4, vectorization="warp", action_repeat=repeat), steps=50)


def test_worlds_are_those_of_their_seeds_whatever_their_number():
    many, one = ball(8), ball(1)
    rows = many.reset(seed=10)
    assert torch.equal(one.reset(seed=13), rows[3:4])
    assert rows.unique(dim=0).shape[0] == 8
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):  # through several episodes
        action = 2 * torch.rand(8, 1, generator=generator) - 1
        step, single = many.step(action), one.step(action[3:4])
        assert torch.equal(step.obs[3:4], single.obs)
        assert torch.equal(step.next_obs[3:4], single.next_obs)
        assert torch.equal(step.reward[3:4], single.reward)
    fresh = many.reset()
    assert not torch.equal(fresh, rows)
    assert torch.equal(many.reset(seed=10), rows)


def test_only_worlds_that_end_start_anew_and_their_last_observation_is_kept():
    env = ball(8)
    obs, length = env.reset(seed=0), torch.zeros(8)
    ended, cut = 0, 0
    for step in play(env, 80):
        length += 1
        done = step.terminated | step.truncated
        assert step.valid.all()
        assert torch.equal(step.terminated, step.next_obs[:, 0].abs() > 0.3)
        assert torch.equal(step.truncated, length == 20)
        assert torch.equal(step.obs[~done], step.next_obs[~done])
        assert torch.equal(step.next_obs[:, -1], obs[:, -1])  # the goal of the episode that ends
        assert (step.obs[done, 0].abs() <= 0.2).all()
        assert torch.equal(env._elapsed == 0, done)
        assert (step.obs[done, -1] != step.next_obs[done, -1]).all()
        obs, length = step.obs, torch.where(done, 0, length)
        ended, cut = ended + int(step.terminated.sum()), cut + int(step.truncated.sum())
    assert ended > 5
    assert cut > 5


def test_starts_spread_over_the_bank():
    env = ball(16)
    env.reset(seed=0)
    starts = {tuple(env.reset()[world].tolist()) for _ in range(8) for world in range(16)}
    assert len(starts) > 90  # of 128 draws from 256
    exact = BatchEnv(Ball(), 4)
    bank = {round(float(value), 5) for value in env._bank["goal"][:4, 0]}
    exact.reset(seed=0)
    assert bank == {round(float(value), 5) for value in exact._episode["goal"][:, 0]}


def test_first_episodes_are_spread_if_staggered():
    env = ball(16, staggered=True)
    env.reset(seed=0)
    assert (env._elapsed == env._elapsed.clamp(0, 19)).all()
    assert env._elapsed.unique().numel() > 6
    clocks = env._elapsed.clone()
    first = torch.full((16,), -1)
    for number in range(1, 21):
        step = env.step(torch.full((16, 1), -1 / 3))  # no force
        first = torch.where((first < 0) & step.truncated, number, first)
    assert torch.equal(first, 20 - clocks)


def test_repeated_actions_stop_where_the_episode_ends():
    repeated, single = ball(8, action_repeat=3), ball(8)
    repeated.reset(seed=0)
    single.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    fresh = torch.ones(8, dtype=torch.bool)
    for _ in range(7):
        action = 2 * torch.rand(8, 1, generator=generator) - 1
        step, total, last, over = repeated.step(action), torch.zeros(8), torch.zeros(8, 6), torch.zeros(8, dtype=torch.bool)
        for _ in range(3):
            inner = single.step(action)
            total, last = torch.where(over, total, total + inner.reward), torch.where(over[:, None], last, inner.next_obs)
            over |= inner.terminated | inner.truncated
        assert torch.equal(step.next_obs[fresh], last[fresh])
        assert torch.allclose(step.reward[fresh], total[fresh], atol=1e-6)
        assert torch.equal((step.terminated | step.truncated)[fresh], over[fresh])
        fresh &= ~over
    assert not fresh.any()


def test_randomised_worlds_are_the_c_engines():
    """Masses, friction, gains and damping from the seeds, the same for both simulators; without them worlds go elsewhere."""
    ranges = Randomization(mass=(0.5, 2), gain=(0.5, 2), damping=(0.2, 5), fields=(("geom_friction", 0.5, 2),))
    warp, batch, plain = ball(4, randomization=ranges), BatchEnv(Ball(), 4, randomization=ranges), ball(4)
    start = warp.reset(seed=3)
    assert torch.equal(start[:, 0], plain.reset(seed=3)[:, 0])
    batch.reset(seed=3)
    for name in ("qpos", "qvel", "qacc_warmstart"):
        batch._batch.bind(name)[:] = warp.simulator.field(name).numpy()
    batch._episode["goal"][:] = warp._episode["goal"].numpy()
    batch._batch.forward()
    position = batch._task.position(batch._state)
    assert position is not None
    batch._position = position.clone()
    action = torch.tensor([[-1.0], [0.2], [0.6], [1.0]])
    for _ in range(3):
        ours, exact, other = warp.step(action), batch.step(action), plain.step(action)
        assert torch.allclose(ours.next_obs, exact.next_obs, atol=1e-4)
    assert (ours.next_obs - other.next_obs).abs().amax(1).min() > 1e-3
    mass = warp.simulator.model_field("body_mass")
    assert mass[:, 1].unique().numel() == 4
    assert torch.allclose(mass.double(), torch.from_numpy(batch._expanded["body_mass"]), rtol=1e-6)
    inertia = warp.simulator.model_field("body_inertia")[:, 1, 0]
    assert torch.allclose(inertia / inertia[0], mass[:, 1] / mass[0, 1])
    assert torch.equal(ball(1, randomization=ranges).reset(seed=5)[0], warp.reset(seed=3)[2])
    kept = mass.clone()
    warp.reset()
    assert torch.equal(kept, mass)
    warp.reset(seed=30)
    assert not torch.equal(kept, mass)


def test_each_body_may_have_a_factor_of_its_own():
    env = make("HalfCheetah-v5", 2, vectorization="batch", randomization=Randomization(mass=(0.5, 2), each=True))
    assert isinstance(env, BatchEnv)
    env.reset(seed=0)
    factors = env._expanded["body_mass"][:, 1:] / env._model.body_mass[1:]
    assert len(np.unique(factors.round(9))) == factors.size
    assert ((factors > 0.5) & (factors < 2)).all()


@pytest.mark.parametrize(("ranges", "sentence"), [
    ({"mass": (2, 1)}, "randomization.mass goes from 2 to 1; give the lowest factor and then the highest"),
    ({"gain": (-1, 1)}, "randomization.gain goes from -1 to 1; .* neither negative"),
    ({"gain": (float("nan"), 1)}, "randomization.gain goes from nan to 1"),
    ({"gain": (1, float("inf"))}, "randomization.gain goes from 1 to inf"),
    ({"mass": (0, 1)}, "randomization.mass goes from 0 on, and nothing moves without mass; give factors above zero"),
    ({"fields": (("body_inertia", 0, 0),)}, "body_inertia goes from 0 on"),
    ({"friction": (1, 2), "fields": (("geom_friction", 1, 1),)}, "geom_friction is to be scaled twice"),
    ({"fields": (("dof_damping", 1, 1), ("dof_damping", 1, 2))}, "dof_damping is to be scaled twice"),
    ({"fields": (("dof_armature", 1, 2),)}, "dof_armature has no effect, since dof_armature is zero everywhere"),
    ({"fields": (("tendon_stiffness", 1, 2),)}, "tendon_stiffness has no effect"),
    ({"fields": (("no_such", 1, 1),)}, "randomization.fields no_such is no array of numbers .* name another field"),
    ({"fields": (("dof_dampng", 1, 1),)}, "dof_dampng is no array of numbers .* did you mean dof_damping"),
    ({"fields": (("nq", 1, 1),)}, "nq is no array"),
    ({"fields": (("body_parentid", 1, 1),)}, "body_parentid is no array of numbers"),
    ({"fields": (("mesh_vert", 1, 1),)}, "mesh_vert is the same in all worlds"),
    ({"fields": (("body_subtreemass", 1, 2),)}, "body_subtreemass is computed by MuJoCo from other fields"),
])  # fmt: skip
def test_ranges_that_make_no_sense(ranges, sentence):
    for make_ball in (BatchEnv, WarpEnv):
        with pytest.raises(EnvError, match=sentence):
            make_ball(Ball(), 2, randomization=Randomization(**ranges))


@pytest.mark.parametrize("name", ["mass", "friction", "gain", "damping"])
def test_each_range_changes_motion_within_its_bounds_alone(name):
    """Worlds with the same start and actions go apart; equal bounds of one are the model as it is, bit for bit."""

    def play_alike(randomization):
        env = BatchEnv("Hopper-v5", 3, randomization=randomization)
        env.reset(seed=3)
        env._batch.state[:] = env._batch.state[0]
        env._batch.forward()
        action = 2 * torch.rand(12, 1, 3, generator=torch.Generator().manual_seed(0)) - 1
        return env, torch.stack([env.step(one.expand(3, -1).contiguous()).next_obs for one in action])

    env, apart = play_alike(dataclasses.replace(Randomization(), **{name: (0.5, 2.0)}))
    plain = play_alike(None)[1]
    assert torch.equal(plain[:, 0], plain[:, 1])
    assert not torch.equal(apart[:, 0], apart[:, 1])
    for field, values in env._expanded.items():
        base = getattr(env._model, field)
        factors = values[:, base != 0] / base[base != 0]
        assert (factors > 0.5).all()
        assert (factors < 2).all()
        assert np.allclose(factors, factors[:, :1])
    assert torch.equal(play_alike(dataclasses.replace(Randomization(), **{name: (1.0, 1.0)}))[1], plain)
    assert torch.equal(play_alike(Randomization())[1], plain)


@pytest.mark.parametrize("randomization", [None, Randomization(mass=(0.5, 2))])
def test_resuming_is_not_stopping(randomization):
    env, new = (ball(4, staggered=True, randomization=randomization) for _ in range(2))
    env.reset(seed=4)
    list(play(env, 33))
    file = io.BytesIO()
    torch.save(env.state_dict(), file)
    file.seek(0)
    new.load_state_dict(torch.load(file, weights_only=True))
    for step, again in zip(play(env, 40, seed=1), play(new, 40, seed=1), strict=True):
        for name in ("obs", "next_obs", "reward", "terminated", "truncated"):
            assert torch.equal(getattr(step, name), getattr(again, name))
    with pytest.raises(EnvError, match="a state of 4 worlds was saved and there are 2"):
        ball(2).load_state_dict(env.state_dict())


def test_a_robots_run_resumes_bit_for_bit():
    env, new = (make("Ant-v5", 3, vectorization="warp") for _ in range(2))
    env.reset(seed=4)
    list(play(env, 15))
    state = env.state_dict()
    assert state is not None
    new.load_state_dict(state)
    for step, again in zip(play(env, 25, seed=1), play(new, 25, seed=1), strict=True):
        assert torch.equal(step.next_obs, again.next_obs)
        assert torch.equal(step.reward, again.reward)


@pytest.mark.parametrize(("room", "sentence"), [
    ({"constraints": 2}, r"world \d+ dropped what had no room, more than 2 constraint rows \(njmax\); raise `constraints`"),
    ({"contacts": 1}, r"more than 1 contacts on average \(nconmax\); raise `contacts`"),
])  # fmt: skip
def test_too_little_room_shows_at_once(room, sentence):
    task = build("walker-walk")
    task.starts = 4
    for name, value in room.items():
        setattr(task, name, value)
    with pytest.raises(EnvError, match=sentence):
        WarpEnv(task, 4, device="cpu")


def test_what_is_not_finite_is_named():
    env = ball(3)
    env.reset(seed=0)
    env.simulator.field("qvel")[1, 0] = torch.nan
    with pytest.raises(EnvError, match="ball: world 1 returned a number that is not finite"):
        env.step(torch.zeros(3, 1))


def test_worlds_that_ended_have_no_lack_of_room():
    env = ball(3, action_repeat=2)
    env.reset(seed=0)
    env._done.copy_(torch.tensor([False, True, False]))  # as between two substeps
    env.simulator.overflow[1:] = -1
    env._judge()
    with pytest.raises(EnvError, match="world 2 "):
        env.check()
    assert env._wrong.tolist() == [0, 0, 0]


def test_faults_on_a_device_wait_for_the_question(monkeypatch):
    """What a GPU does, on the CPU: wrong actions are clamped, and `check` tells once."""
    env, other = ball(3), ball(3)
    monkeypatch.setattr(env, "_asks", False)
    env.reset(seed=0)
    other.reset(seed=0)
    step = env.step(torch.tensor([[0.5], [7.0], [torch.nan]]))
    assert torch.equal(step.next_obs, other.step(torch.tensor([[0.5], [1.0], [0.0]])).next_obs)
    with pytest.raises(EnvError, match="an action for world 1"):
        env.check()
    env.check()
    with pytest.raises(EnvError, match="shape"):
        env.step(torch.zeros(2, 1))


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for the device: numbers read from tensors, and shapes that depend on values."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().split("::")[1].split(".")[0]
        assert name not in self.WAITS, name
        if name in ("index", "index_put_"):
            assert all(index is None or index.dtype != torch.bool for index in args[1]), "indexed by a mask"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["Humanoid-v5", "Hopper-v5", "humanoid-walk", "hopper-hop", "reacher-easy", "cartpole-swingup"])
def test_no_step_waits(name, monkeypatch):
    task = build(name)
    task.starts = 4
    env = WarpEnv(task, 2, device="cpu", action_repeat=2)
    monkeypatch.setattr(env, "_asks", False)
    action = torch.zeros(2, env.spec.action_size)
    env.reset(seed=0)
    with NoWaiting():
        env.step(action)
        env.reset()
    # Tensors without memory stand in for those of a GPU: reading a number, or mixing in a tensor of the host, fails.
    for holder in (env, env.simulator):
        for field, value in vars(holder).items():
            setattr(holder, field, elsewhere(value))
    for stage in (env._act, env._judge, env._begin, env._look):
        stage()
    assert env._obs.shape == (2, env.spec.obs_size)
    assert Randomization(mass=(0.5, 2)).values(name, task.model, env._keys)["body_mass"].is_meta


def elsewhere(value):
    """Tensors of the same shapes on another device."""
    if isinstance(value, dict):
        return {name: elsewhere(part) for name, part in value.items()}
    return value.to("meta") if isinstance(value, torch.Tensor) else value


def test_tasks_without_a_reward_say_so():
    with pytest.raises(NotImplementedError, match=r"Task needs a method reward"):
        WarpEnv(Task("plain", BALL), 2, device="cpu")


def test_refusals(monkeypatch):
    with pytest.raises(EnvError, match="sees no NVIDIA GPU; use device='cpu'"):
        warp_simulator.require_device("ball", None, torch.device("cuda" if not torch.cuda.is_available() else "cuda:99"))
    with pytest.raises(EnvError, match="not on 'meta'"):
        WarpEnv(Ball(), 2, device="meta")
    with pytest.raises(EnvError, match="0 worlds were asked for; give one or more"):
        WarpEnv(Ball(), 0, device="cpu")
    monkeypatch.setattr(warp_simulator, "free_bytes", lambda device: 10**6)
    with pytest.raises(EnvError, match=r"100,000 worlds need about \d.*use at most \d+ worlds"):
        WarpEnv(Ball(), 100_000, device="cpu")
    monkeypatch.setitem(sys.modules, "mujoco_warp", None)
    with pytest.raises(EnvError, match=r"needs mujoco-warp; install it"):
        ball()


def test_nothing_is_said_of_a_missing_gpu_where_none_is_wanted():
    """Warp's library in C says so on stderr, whatever its level of logging."""
    code = "from steelyard.envs.warp_simulator import engines; import sys; engines('ball'); print('after', file=sys.stderr)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert said == "after\n"


def test_models_that_cannot_be_simulated_are_refused():
    task = Ball()
    task.model.opt.integrator, task.model.opt.noslip_iterations = mujoco.mjtIntegrator.mjINT_DISCRETE, 3
    with pytest.raises(EnvError, match="ball: mujoco-warp cannot simulate this model"):
        WarpEnv(task, 2, device="cpu")


def test_a_model_that_cannot_be_read_is_named():
    for source in ("no_such_file.xml", "<mujoco><nonsense/></mujoco>"):
        with pytest.raises(EnvError, match="mine: MuJoCo cannot read the model") as caught:
            Task("mine", source)
        assert "\n" not in str(caught.value)


ARM = """
<mujoco>
  <worldbody>
    <body><joint name="a" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/><site name="tip" pos=".3 0 0"/></body>
  </worldbody>
  <actuator><position joint="a" kp="5"/></actuator>
</mujoco>
"""


def test_the_example_of_the_readme_runs_on_both_simulators(repository):
    """With actions that have no bounds of their own, which pass as they are."""
    (code,) = re.findall(
        r"```python\n(import torch\nfrom steelyard.envs.tasks.*?)```", (repository / "envs/README.md").read_text(), re.DOTALL
    )
    names: dict = {"ARM": ARM}
    exec(code.replace('"arm.xml"', "ARM").replace("1024", "4"), names)
    env = names["env"]
    check_contract(env, steps=210)
    batch = BatchEnv(names["Reach"]("reach", ARM), 4)
    check_contract(batch, steps=210)
    env.reset(seed=0)
    assert env.step(torch.full((4, 1), 0.5)).reward.max() < 0
    assert torch.equal(env.simulator.control, torch.full((4, 1), 0.5))


def test_pictures_show_the_goal_that_is_there():
    env = make("reacher-easy", 2, vectorization="warp", render_size=64)
    assert isinstance(env, WarpEnv)
    first = env.render()
    env._episode["target"].neg_()
    second = env.render()
    env.close()
    assert first.shape == (64, 64, 3)
    assert (first != second).any()
