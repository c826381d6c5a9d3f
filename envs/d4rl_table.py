"""The data sets of D4RL by name: address, reference returns, step limit, and the Gymnasium task that scores a policy on them.

Source: D4RL's own table of data sets (`d4rl/infos.py`, Apache-2.0; Fu et al. 2020). The step limits are those of the environments that D4RL
registers.
"""

import re
from dataclasses import dataclass

from steelyard.envs.d4rl_worlds import WORLDS

ADDRESS = "http://rail.eecs.berkeley.edu/datasets/offline_rl"
"""Where D4RL publishes its files."""

SCORED_IN_V4 = (
    "Data sets of D4RL's locomotion tasks were recorded in Gym's -v2 worlds under mujoco-py; policies are scored here in Gymnasium's -v4 worlds "
    "of the same name, whose simulator is newer, so scores near published ones are not exact reproductions of them."
)
"""What to say beside a normalised score of a locomotion task."""
SCORED_ANEW = (
    "D4RL's AntMaze and kitchen ran under mujoco-py; policies are scored here in worlds made after them in a newer simulator, so scores "
    "near published ones are not exact reproductions of them."
)
"""What to say beside a normalised score in the worlds of `d4rl_worlds`."""


@dataclass(frozen=True)
class Entry:
    """One data set of D4RL."""

    minimum: float
    """Mean return of a random policy: normalised score 0."""
    maximum: float
    """Mean return of an expert: normalised score 100."""
    url: str
    """Where the file is published."""
    limit: int | None
    """Steps after which an episode is cut; None where there is no limit, or none is known."""
    task: str | None
    """Gymnasium id whose worlds score a policy; None where Gymnasium has no such worlds."""

    @property
    def filename(self) -> str:
        """The published file's name."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Family:
    """What the data sets of one environment share."""

    minimum: float
    maximum: float
    limit: int | None
    task: str | None = None


LOCOMOTION = {
    "halfcheetah": Family(-280.178953, 12135.0, 1000, "HalfCheetah-v4"),
    "hopper": Family(-20.272305, 3234.3, 1000, "Hopper-v4"),
    "walker2d": Family(1.629008, 4592.3, 1000, "Walker2d-v4"),
    "ant": Family(-325.6, 3879.7, 1000, "Ant-v4"),
}
ADROIT = {
    "pen": Family(96.262799, 3076.8331017826877, 100, "AdroitHandPen-v1"),
    "hammer": Family(-274.856578, 12794.134825156867, 200, "AdroitHandHammer-v1"),
    "relocate": Family(-6.425911, 4233.877797728884, 200, "AdroitHandRelocate-v1"),
    "door": Family(-56.512833, 2880.5693087298737, 200, "AdroitHandDoor-v1"),
}
BULLET = {
    "bullet-halfcheetah": Family(-1275.766996, 2381.6725, 1000),
    "bullet-hopper": Family(20.058972, 1441.8059623430963, 1000),
    "bullet-ant": Family(373.705955, 2650.495, 1000),
    "bullet-walker2d": Family(16.523877, 1623.6476303317536, 1000),
}
# name: file below maze2d/, minimum, maximum, limit
MAZE2D = {
    "maze2d-open-v0": ("maze2d-open-sparse", 0.01, 20.66, 150),
    "maze2d-open-dense-v0": ("maze2d-open-dense", 11.17817, 27.166538620695782, 150),
    "maze2d-umaze-v1": ("maze2d-umaze-sparse-v1", 23.85, 161.86, 300),
    "maze2d-umaze-dense-v1": ("maze2d-umaze-dense-v1", 68.537689, 193.66285642381482, 300),
    "maze2d-medium-v1": ("maze2d-medium-sparse-v1", 13.13, 277.39, 600),
    "maze2d-medium-dense-v1": ("maze2d-medium-dense-v1", 44.264742, 297.4552547777125, 600),
    "maze2d-large-v1": ("maze2d-large-sparse-v1", 6.7, 273.99, 800),
    "maze2d-large-dense-v1": ("maze2d-large-dense-v1", 30.569041, 303.4857382709002, 800),
}
# name: maze in the file's name, starts and goals drawn anew, limit
ANTMAZE = {
    "umaze": ("u-maze", False, False, 700),
    "umaze-diverse": ("u-maze", True, True, 700),
    "medium-play": ("big-maze", True, False, 1000),
    "medium-diverse": ("big-maze", True, True, 1000),
    "large-play": ("hardest-maze", True, False, 1000),
    "large-diverse": ("hardest-maze", True, True, 1000),
}
# name: file, minimum, maximum, limit
OTHERS = {
    "kitchen-complete-v0": ("kitchen/mini_kitchen_microwave_kettle_light_slider-v0", 0.0, 4.0, 280),
    "kitchen-partial-v0": ("kitchen/kitchen_microwave_kettle_light_slider-v0", 0.0, 4.0, 280),
    "kitchen-mixed-v0": ("kitchen/kitchen_microwave_kettle_bottomburner_light-v0", 0.0, 4.0, 280),
    "bullet-maze2d-open-v0": ("bullet/bullet-maze2d-open-sparse", 8.75, 64.15, None),
    "bullet-maze2d-umaze-v0": ("bullet/bullet-maze2d-umaze-sparse", 32.46, 153.99, None),
    "bullet-maze2d-medium-v0": ("bullet/bullet-maze2d-medium-sparse", 14.87, 238.05, None),
    "bullet-maze2d-large-v0": ("bullet/bullet-maze2d-large-sparse", 1.82, 285.92, None),
    "minigrid-fourrooms-v0": ("minigrid/minigrid4rooms", 0.01442, 2.89685, None),
    "minigrid-fourrooms-random-v0": ("minigrid/minigrid4rooms_random", 0.01442, 2.89685, None),
    "flow-ring-controller-v0": ("flow/flow-ring-v0-idm", -165.22, 24.42, None),
    "flow-ring-random-v0": ("flow/flow-ring-v0-random", -165.22, 24.42, None),
    "flow-merge-controller-v0": ("flow/flow-merge-v0-idm", 118.67993, 330.03179, None),
    "flow-merge-random-v0": ("flow/flow-merge-v0-random", 118.67993, 330.03179, None),
    "carla-lane-v0": ("carla/carla_lane_follow_flat-v0", -0.8503839912088142, 1023.5784385429523, None),
    "carla-town-v0": ("carla/carla_town_subsamp_flat-v0", -114.81579500772153, 2440.1772022247314, None),
}

# name: (minimum, maximum) of the sparse and of the dense reward, limit
_MAZES: dict[str, tuple[tuple[float, float], tuple[float, float], int]] = {
    "umaze-v0": ((0.94, 62.6), (23.249793, 81.78995240126592), 150),
    "medium-v0": ((5.77, 85.14), (19.477620, 96.03474232952358), 250),
    "large-v0": ((4.83, 191.99), (27.388310, 215.09965671563742), 600),
    "eval-umaze-v1": ((36.63, 141.4), (56.95455, 178.21373133248397), 300),
    "eval-medium-v1": ((13.07, 204.93), (42.28578, 235.5658957482388), 600),
    "eval-large-v1": ((16.4, 302.22), (56.95455, 326.09647655082637), 800),
}
SCORES_ALONE: dict[str, Family] = {
    **{f"antmaze-{maze}-v1": Family(0.0, 1.0, row[3]) for maze, row in ANTMAZE.items()},
    **{f"maze2d-{name}": Family(sparse[0], sparse[1], limit) for name, (sparse, _, limit) in _MAZES.items()},
    **{
        f"maze2d-{name.replace('-v', '-dense-v')}": Family(dense[0], dense[1], limit)
        for name, (_, dense, limit) in _MAZES.items()
    },
}
"""Reference returns of environments that D4RL registers but that its table of data sets does not name."""

CHECKSUMS = {
    "hopper_medium_replay-v2.hdf5": (75_854_457, "e121c5f7c9857a307baa9edc6a2c3b48e85fedb9ac316ecddd0f48ca7ef4e39b"),
    "walker2d_medium_replay-v2.hdf5": (86_323_963, "e75de96a4f77acf7d4e0d6fdf0d7ccb177c26c44bb4388e4fd99f543ccfa18db"),
    "door-v0_demos_clipped.hdf5": (3_118_318, "9df6345e28fcec8f44c0af4d6dacc6ef996958b39b568f53df85cf41dd03412b"),
}
"""File name to (bytes, SHA-256), for the few files whose checksum somebody has published; D4RL itself publishes none."""


def _build() -> dict[str, Entry]:
    table: dict[str, Entry] = {}

    def add(name: str, family: Family, file: str) -> None:
        table[name] = Entry(family.minimum, family.maximum, f"{ADDRESS}/{file}.hdf5", family.limit, family.task)

    for robot, family in LOCOMOTION.items():
        for kind in ("random", "medium", "medium-replay", "medium-expert", "expert", "full-replay"):
            words = kind.replace("-", "_")
            first = f"{robot}_{words}".replace("medium_replay", "mixed").replace("walker2d_mixed", "walker_mixed")
            if kind != "full-replay":
                add(f"{robot}-{kind}-v0", family, f"gym_mujoco/{first}")
            for version in ("v1", "v2"):
                add(f"{robot}-{kind}-{version}", family, f"gym_mujoco_{version}/{robot}_{words}-{version}")
    for hand, family in ADROIT.items():
        for kind, file in (("human", "v0_demos_clipped"), ("cloned", "demos-v0-bc-combined"), ("expert", "v0_expert_clipped")):
            add(f"{hand}-{kind}-v0", family, f"hand_dapg/{hand}-{file}")
            add(f"{hand}-{kind}-v1", family, f"hand_dapg_v1/{hand}-{kind}-v1")
    for robot, family in BULLET.items():
        for kind in ("random", "medium", "medium-replay", "medium-expert", "expert"):
            add(f"{robot}-{kind}-v0", family, f"bullet/{robot}_{kind.replace('-', '_')}")
    for maze, (file, starts, goals, limit) in ANTMAZE.items():
        stem = f"Ant_maze_{file}_noisy_multistart_{starts}_multigoal_{goals}_sparse"
        for version, place in (("v0", f"ant_maze_new/{stem}"), ("v2", f"ant_maze_v2/{stem}_fixed")):
            add(f"antmaze-{maze}-{version}", Family(0.0, 1.0, limit, f"antmaze-{maze}-{version}"), place)
    for name, (file, minimum, maximum, limit) in MAZE2D.items():
        add(name, Family(minimum, maximum, limit), f"maze2d/{file}")
    for name, (file, minimum, maximum, limit) in OTHERS.items():
        add(name, Family(minimum, maximum, limit, name if name in WORLDS else None), file)
    return table


TABLE = _build()
"""Every data set that D4RL publishes, by its name."""

# The -v0 locomotion files are called "hopper_expert.hdf5", as anybody's recording may be: such a name proves nothing.
_NAMES = {entry.filename: name for name, entry in TABLE.items() if "/gym_mujoco/" not in entry.url}


def recognise(filename: str) -> str | None:
    """The data set that D4RL publishes under this file name; None if it is nobody's, or could be anybody's."""
    return _NAMES.get(filename)


def reference(name: str, task: str | None = None) -> tuple[float, float] | None:
    """(minimum, maximum) of D4RL for the data set `name`, else for the worlds of `task`; None where D4RL has none.

    A task counts in the versions whose rewards are D4RL's: -v2 to -v4 of the locomotion tasks, -v1 of the Adroit hand, and D4RL's own names
    of AntMaze and kitchen environments.
    """
    entry = TABLE.get(name) or SCORES_ALONE.get(name) or (TABLE[task] if task and task in WORLDS else None)
    if entry is not None:
        return entry.minimum, entry.maximum
    task = re.sub(r"-v[23]$", "-v4", (task or "").rpartition(":")[-1])
    for family in (*LOCOMOTION.values(), *ADROIT.values()):
        if family.task == task:
            return family.minimum, family.maximum
    return None


def normalized_score(name: str, score: float, task: str | None = None) -> float | None:
    """D4RL's normalised score `100 (score - minimum) / (maximum - minimum)` of a raw return; None without a reference.

    `score` is an undiscounted return in the task's own units. See `remark` for what it is comparable with.
    """
    bounds = reference(name, task)
    return None if bounds is None else 100.0 * (score - bounds[0]) / (bounds[1] - bounds[0])


def remark(task: str) -> str | None:
    """What to say beside normalised scores of policies in the worlds of `task`; None if there is nothing to say."""
    if task in WORLDS:
        return SCORED_ANEW
    return SCORED_IN_V4 if task.endswith("-v4") else None


def step_limit(name: str) -> int | None:
    """Steps after which an episode of the data set `name` is cut.

    For a name that is not D4RL's own, the limit of its environment if it begins as D4RL's names of that environment do
    ("hopper_mine", "kitchen-new"); else None.
    """
    entry = TABLE.get(name) or SCORES_ALONE.get(name)
    if entry is not None:
        return entry.limit
    prefix = re.split(r"[-_.]", name.lower(), maxsplit=1)[0]
    families = {**LOCOMOTION, **ADROIT, "kitchen": Family(0.0, 4.0, 280)}
    return families[prefix].limit if prefix in families else None
