"""D4RL's AntMaze and kitchen: layout of observations, geometry, rewards and ends against D4RL's own definitions."""

import sys
from typing import Any

import numpy as np
import pytest
import torch

from steelyard.envs import EnvError, VectorEnv, check_contract, d4rl_table, known_tasks, make
from steelyard.envs.d4rl_worlds import WORLDS
from steelyard.envs.gym_envs import GymEnv

# D4RL's own maps for evaluation: r the start, g the goal.
D4RL_MAPS = {
    "umaze": ["11111", "1r001", "11101", "1g001", "11111"],
    "medium": ["11111111", "1r011001", "10010001", "11000111", "10010001", "10100101", "100010g1", "11111111"],
    "large": [
        "111111111111",
        "1r0001000001",
        "101101010101",
        "100000010001",
        "101111011101",
        "100101000001",
        "110101010111",
        "100100010g01",
        "111111111111",
    ],
}


def world(env: VectorEnv) -> Any:
    assert isinstance(env, GymEnv)
    return env._vector.envs[0].unwrapped  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("task", "sizes", "limit"),
    [
        ("antmaze-umaze-diverse-v0", (29, 8), 700),
        ("antmaze-medium-play-v2", (29, 8), 1000),
        ("kitchen-complete-v0", (60, 9), 280),
    ],
)
@pytest.mark.usefixtures("robotics")
def test_sizes_and_limits_are_d4rls(task: str, sizes: tuple[int, int], limit: int) -> None:
    spec = make(task, 1).spec
    assert (spec.obs_size, spec.action_size, spec.horizon) == (*sizes, limit)
    assert spec.can_terminate


def test_every_data_set_of_antmaze_and_kitchen_has_a_world() -> None:
    names = {name for name in d4rl_table.TABLE if name.startswith(("antmaze", "kitchen"))}
    assert names == WORLDS.keys() <= set(known_tasks())
    assert all(limit == d4rl_table.TABLE[name].limit for name, (_, _, limit) in WORLDS.items())


@pytest.mark.parametrize("task", ["antmaze-umaze-v2", "kitchen-mixed-v0"])
@pytest.mark.usefixtures("robotics")
def test_the_worlds_keep_the_contract(task: str) -> None:
    check_contract(make(task, 2))


@pytest.mark.parametrize("maze", D4RL_MAPS)
@pytest.mark.usefixtures("robotics")
def test_walls_lie_where_d4rl_has_them(maze: str) -> None:
    """D4RL: the block of row i and column j lies at (4 j, 4 i) from the map's corner, less the start's own place."""
    env = world(make({"umaze": "antmaze-umaze-v2", "medium": "antmaze-medium-play-v0"}.get(maze, "antmaze-large-diverse-v2"), 1))
    model, cells = env.ant.model, D4RL_MAPS[maze]
    blocks = [k for k in range(model.ngeom) if model.geom(k).name.startswith("block_")]
    found = {tuple(np.round(model.geom_pos[k][:2] - env.origin, 9)) for k in blocks}
    assert found == {(4.0 * (j - 1), 4.0 * (i - 1)) for i, row in enumerate(cells) for j, cell in enumerate(row) if cell == "1"}
    assert all(np.array_equal(model.geom_size[k], (2, 2, 1)) and model.geom_pos[k][2] == 1 for k in blocks)
    (goal,) = [(4.0 * (j - 1), 4.0 * (i - 1)) for i, row in enumerate(cells) for j, cell in enumerate(row) if cell == "g"]
    assert tuple(env.goal_cell) == goal


@pytest.mark.usefixtures("robotics")
def test_the_ant_is_d4rls() -> None:
    ant = world(make("antmaze-umaze-v2", 1)).ant
    assert ant.dt == pytest.approx(0.1)
    assert np.array_equal(ant.model.actuator_ctrlrange, [[-30, 30]] * 8)
    assert np.array_equal(ant.model.actuator_gear[:, 0], np.ones(8))
    feet = ant.model.geom("left_ankle_geom").id
    assert np.allclose(ant.model.geom_solimp[feet][:3], (0.8, 0.8, 0.01))


@pytest.mark.usefixtures("robotics")
def test_episodes_of_antmaze_begin_at_the_start_with_a_new_goal() -> None:
    env = make("antmaze-large-play-v2", 1)
    goals = []
    for seed in range(40):
        obs = env.reset(seed)[0]
        qpos, qvel = world(env).ant.data.qpos.copy(), world(env).ant.data.qvel
        assert obs[:2].abs().max() <= 0.1
        qpos[:2] -= world(env).origin
        assert torch.allclose(obs, torch.from_numpy(np.concatenate([qpos, qvel])).float())
        goals.append(world(env).goal - (32.0, 24.0))
    assert 0 <= np.min(goals) < 0.3
    assert 1.1 < np.max(goals) <= 1.5
    assert len({tuple(goal) for goal in goals}) == 40
    env.reset(7)
    assert np.array_equal(world(env).goal - (32.0, 24.0), goals[7])
    place = world(env).ant.model.site("target").id
    assert np.array_equal(world(env).ant.model.site_pos[place][:2], world(env).goal + world(env).origin)


@pytest.mark.usefixtures("robotics")
def test_antmaze_rewards_the_goal_alone_and_ends_there() -> None:
    env = make("antmaze-umaze-v2", 1)
    still = torch.zeros(1, 8)
    for distance, reached in ((0.8, False), (0.3, True)):
        env.reset(0)
        ant = world(env).ant
        qpos = ant.data.qpos.copy()
        qpos[:2] = world(env).goal + world(env).origin + (distance, 0)
        ant.set_state(qpos, np.zeros(14))
        step = env.step(still)
        assert (float(step.reward), bool(step.terminated), bool(step.truncated)) == (float(reached), reached, False)
    env.reset(0)
    qpos = world(env).ant.data.qpos.copy()
    qpos[2] = 5.0  # where Gymnasium's ant would be taken for unhealthy
    world(env).ant.set_state(qpos, np.zeros(14))
    assert not env.step(still).terminated


def goal(*parts: tuple[int, list[float]]) -> torch.Tensor:
    vector = torch.zeros(30)
    for start, values in parts:
        vector[start : start + len(values)] = torch.tensor(values)
    return vector


MICROWAVE, KETTLE = (22, [-0.75]), (23, [-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06])
LIGHT, SLIDE, BURNER = (17, [-0.69, -0.05]), (19, [0.37]), (11, [-0.88, -0.01])


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("kitchen-complete-v0", goal(MICROWAVE, KETTLE, LIGHT, SLIDE)),
        ("kitchen-partial-v0", goal(MICROWAVE, KETTLE, LIGHT, SLIDE)),
        ("kitchen-mixed-v0", goal(MICROWAVE, KETTLE, LIGHT, BURNER)),
    ],
)
@pytest.mark.usefixtures("robotics")
def test_the_kitchen_observes_robot_objects_and_goal(task: str, expected: torch.Tensor) -> None:
    env = make(task, 1)
    obs = env.reset(0)[0]
    positions = torch.from_numpy(world(env).data.qpos.copy()).float()
    difference = (obs[:30] - positions).abs()
    assert 0.001 < difference[:9].max() <= 0.01 + 1e-6, "a tenth of the robot's amplitude of 0.1"
    assert difference[11:17].max() <= 0.00005 + 1e-6, "of the knobs'"
    assert 0.001 < difference[26:29].max() <= 0.01 + 1e-6, "of the kettle's orientation"
    assert difference[29] <= 0.0005 + 1e-6
    assert torch.allclose(obs[30:], expected)
    assert positions[23:26].tolist() == pytest.approx([-0.2694, 0.35038, 1.61945], abs=1e-4)


@pytest.mark.usefixtures("robotics")
def test_the_kitchen_pays_once_for_each_sub_task_and_ends_with_the_last() -> None:
    env = make("kitchen-partial-v0", 1)
    env.reset(0)
    kitchen, still = world(env), torch.zeros(1, 9)
    qpos = kitchen.data.qpos.copy()

    def put(*parts: tuple[int, list[float]]) -> tuple[float, bool]:
        for start, values in parts:
            qpos[start : start + len(values)] = values
        kitchen.set_state(qpos, np.zeros(29))
        step = env.step(still)
        return float(step.reward), bool(step.terminated)

    assert put() == (0, False)
    assert put(MICROWAVE) == (1, False)
    assert put(MICROWAVE) == (0, False)
    assert put(SLIDE, LIGHT) == (2, False)
    assert put(KETTLE) == (1, True)
    env.step(still)  # resets
    assert kitchen.remaining == ["microwave", "kettle", "light switch", "slide cabinet"]


@pytest.mark.parametrize("task", ["antmaze-umaze-v2", "kitchen-partial-v0"])
def test_without_the_package_one_sentence_says_what_to_install(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    with pytest.raises(EnvError, match=r"pip install 'steelyard\[robotics\]'") as caught:
        make(task, 1)
    assert "\n" not in str(caught.value)


def test_scores_are_success_rates_and_sub_tasks() -> None:
    assert d4rl_table.normalized_score("antmaze-large-play-v0", 0.25) == pytest.approx(25)
    assert d4rl_table.normalized_score("mine", 0.25, "antmaze-umaze-v2") == pytest.approx(25)
    assert d4rl_table.normalized_score("mine", 3.0, "kitchen-mixed-v0") == pytest.approx(75)
    for name in WORLDS:
        assert d4rl_table.TABLE[name].task == name
        assert "newer simulator" in str(d4rl_table.remark(name))
    assert d4rl_table.remark("Hopper-v5") is None
