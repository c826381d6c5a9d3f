# pyright: reportAttributeAccessIssue=false
# (mujoco is a compiled module without stubs)
"""What must be computed for the fields that a task reads, so that they describe the state that a step reached."""

import mujoco

from steelyard.envs.tasks.task import Task

GEOMETRIC = {
    "time", "act", "ctrl", "mocap_pos", "mocap_quat", "eq_active", "userdata", "xpos", "xquat", "xmat", "xipos", "ximat",
    "xanchor", "xaxis", "geom_xpos", "geom_xmat", "site_xpos", "site_xmat", "cam_xpos", "cam_xmat", "light_xpos", "light_xdir",
    "subtree_com", "cinert", "cdof", "cvel", "cdof_dot", "ten_length", "sensordata",
}  # fmt: skip
"""Fields of `Data` that are known from positions and velocities without contacts and actuators."""
LAST_SUBSTEP = {
    "qacc", "qacc_smooth", "qacc_warmstart", "act_dot", "actuator_force", "qfrc_actuator", "qfrc_smooth", "qfrc_constraint",
    "qfrc_applied", "xfrc_applied", "cfrc_ext",
}  # fmt: skip
"""Fields that describe the simulator's last substep for every task, as they do in MuJoCo."""
MOVING_SENSORS = {
    "VELOCIMETER", "GYRO", "MAGNETOMETER", "RANGEFINDER", "CAMPROJECTION", "JOINTPOS", "JOINTVEL", "TENDONPOS", "BALLQUAT",
    "BALLANGVEL", "FRAMEPOS", "FRAMEQUAT", "FRAMEXAXIS", "FRAMEYAXIS", "FRAMEZAXIS", "FRAMELINVEL", "FRAMEANGVEL",
    "SUBTREECOM", "SUBTREELINVEL", "SUBTREEANGMOM", "CLOCK",
}  # fmt: skip
"""Sensors that read no more than `GEOMETRIC` fields."""
LIMIT_SENSORS = {"JOINTLIMITPOS", "JOINTLIMITVEL", "TENDONLIMITPOS", "TENDONLIMITVEL"}
"""Sensors that mujoco-warp writes only where the limit is reached."""


def kind(sensor: int) -> str:
    """Name of a sensor's type, such as `JOINTPOS`."""
    return mujoco.mjtSensor(sensor).name.removeprefix("mjSENS_")


def geometric(task: Task) -> bool:
    """Whether all that a task reads of the state reached is where things are and how they move, which needs no contacts and no actuators."""
    model, forces = task.model, int(mujoco.mjtStage.mjSTAGE_ACC)
    sensors = {kind(number) for number in model.sensor_type[model.sensor_needstage != forces].tolist()}
    return set(task.fields) <= GEOMETRIC | LAST_SUBSTEP and ("sensordata" not in task.fields or sensors <= MOVING_SENSORS)


def limit_addresses(model: mujoco.MjModel) -> list[int]:
    """Where in `sensordata` sensors of limits are."""
    return [
        int(first) for first, number in zip(model.sensor_adr, model.sensor_type, strict=True) if kind(number) in LIMIT_SENSORS
    ]
