"""What a task of one's own may read is the C engine's, under mujoco-warp too: sensors and fields of actuators, tendons and limits."""

import pytest
import torch

from steelyard.envs import EnvError
from steelyard.envs.batch_envs import BatchEnv
from steelyard.envs.tasks import TASKS, Task, build
from steelyard.envs.warp_envs import WarpEnv
from steelyard.envs.warp_fields import geometric

pytest.importorskip("mujoco_warp", reason="needs the extra gpu")

ARM = """
<mujoco>
  <option timestep=".004"/>
  <size nuserdata="1"/>
  <worldbody>
    <body name="hand" mocap="true" pos="0 0 1"><geom size=".02" contype="0" conaffinity="0"/></body>
    <body name="weight" pos="0 0 1"><freejoint/><geom size=".05" mass=".2" contype="0" conaffinity="0"/></body>
    <body pos="1 0 .5">
      <joint name="one" axis="0 1 0" damping=".3" range="-40 40" limited="true"/>
      <geom type="capsule" fromto="0 0 0 .3 0 0" size=".03" mass=".4"/>
      <body pos=".3 0 0"><joint name="two" axis="0 0 1" damping=".2"/><geom type="capsule" fromto="0 0 0 .2 0 0" size=".02"/></body>
    </body>
  </worldbody>
  <tendon><fixed name="both"><joint joint="one" coef="1"/><joint joint="two" coef="-.5"/></fixed></tendon>
  <actuator><motor joint="one" gear="4" ctrlrange="-1 1"/><position name="servo" joint="two" kp="4" ctrlrange="-1 1"/></actuator>
  <equality><weld name="hold" body1="hand" body2="weight" active="false"/></equality>
  <sensor>
    <tendonpos tendon="both"/><tendonvel tendon="both"/><actuatorpos actuator="servo"/><actuatorvel actuator="servo"/>
    <jointlimitpos joint="one"/><jointlimitvel joint="one"/><actuatorfrc actuator="servo"/><clock/>
  </sensor>
</mujoco>
"""


class Reach(Task):
    """Starts anywhere, with the weight held or falling, and with the clock of each episode's own."""

    frame_skip = 3
    horizon = 30
    starts = 32
    contacts, constraints = 4, 16
    fields = ("sensordata", "actuator_velocity", "ten_velocity", "actuator_length", "qfrc_passive", "qfrc_bias")

    def __init__(self):
        super().__init__("reach", ARM)

    def start(self, data, random):
        data.qpos[7:] = random.uniform(-0.6, 0.6, 2)
        data.qvel[6:] = random.uniform(-3, 3, 2)
        data.eq_active[0] = random.uniform() < 0.5
        data.userdata[0] = data.time = random.uniform(1, 2)
        return {}

    def observe(self, state):
        return torch.cat([state["qpos"], state["qvel"], *(state[name].flatten(1) for name in self.fields)], dim=1)

    def reward(self, state, control, velocity):
        return state["qpos"][:, 2]


STATE = ("qpos", "qvel", "qacc_warmstart", "eq_active", "userdata", "time")
SENSORS = 9 + 8
"""Where in the observation `sensordata` begins, behind qpos and qvel."""
LAST_SUBSTEP = SENSORS + 6
"""Place of `actuatorfrc` in the observation, which describes the last substep; where an episode starts there is none."""


def test_fields_and_sensors_are_those_of_the_state_reached():
    warp, batch = WarpEnv(Reach(), 6, device="cpu"), BatchEnv(Reach(), 6)
    first = warp.reset(seed=3)
    batch.reset(seed=3)

    def lead():
        for name in STATE:
            there = batch._batch.bind(name)
            there[:] = warp.simulator.field(name).numpy().reshape(there.shape)
        batch._batch.forward()

    def error(ours, exact):
        return (ours - exact).abs() / (1 + exact.abs())

    lead()
    unlike = error(first, torch.from_numpy(batch._observe()))
    unlike[:, LAST_SUBSTEP] = 0
    assert unlike.max() < 1e-4
    generator, touched, free = torch.Generator().manual_seed(0), 0, 0
    for _ in range(60):
        action = 2 * torch.rand(6, 2, generator=generator) - 1
        lead()
        ours, exact = warp.step(action), batch.step(action)
        assert error(ours.next_obs, exact.next_obs).max() < 1e-3
        limit = exact.next_obs[:, SENSORS + 4]
        touched, free = touched + int((limit != 0).sum()), free + int((limit == 0).sum())
    assert touched > 20
    assert free > 20


def test_starts_set_what_else_a_state_has():
    env = WarpEnv(Reach(), 16, device="cpu")
    env.reset(seed=0)
    held, clock = env.simulator.field("eq_active")[:, 0].clone(), env.simulator.field("time").clone()
    assert 2 < int(held.sum()) < 14
    assert torch.equal(env.simulator.field("userdata")[:, 0], clock)
    assert len(clock.unique()) > 8
    for _ in range(29):
        step = env.step(torch.zeros(16, 2))
    assert step.reward[held].min() > 0.9
    assert step.reward[~held].max() < 0.6
    env.step(torch.zeros(16, 2))
    assert not torch.equal(env.simulator.field("eq_active")[:, 0], held)


@pytest.mark.parametrize("kind", [WarpEnv, BatchEnv])
@pytest.mark.parametrize("name", ["no_such", "efc_force", "contact", "time"])
def test_fields_that_are_none_are_named(kind, name):
    task = Reach()
    task.fields = (name,)
    with pytest.raises(EnvError, match=f"reach: fields has '{name}', which is no array"):
        kind(task, 2, device="cpu")


def test_tasks_of_the_suite_compute_no_contacts_to_observe():
    assert all(geometric(build(name)) for name in TASKS)
    assert not geometric(Reach())
    plain = Reach()
    plain.fields = ("xpos", "qacc")
    assert geometric(plain)
