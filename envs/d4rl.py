"""Rows of a D4RL file as transitions of episodes.

**Where an episode ends** (`boundaries`): at every terminal row, at every row whose time-out is set, and at the file's last row. Where the file
has no `timeouts` (all -v0 locomotion files, kitchen), an episode is cut after as many rows as its environment allows.
Exceptions, since `timeouts` is not always what it says:

- *Human demonstrations of the Adroit hand* (`door-human-v0`, ...). A clock of 200 steps sets `timeouts` in the middle of demonstrations, and
  `terminals` their true end. So if the set has terminals, they alone count; -v1 has none, and its time-outs are ends.
- *Files that D4RL does not know* may have the same clock. With `next_observations`, a time-out whose next observation is the next row's is no
  end (unless they never differ in the file: then they were merely shifted and prove nothing), and a row whose
  next observation is not the next row's is one. Without, the time-outs of a file that also has terminals are dismissed
  altogether if the simulator's positions (`infos/qpos`, else the observations) do not jump there: the largest
  component of the change, in units of that component's 90 % quantile, is in the median over time-outs (five or more) below the
  90 % quantile of ordinary rows. Resets lie far above it: in door-human, positions change by 44 to 73 such units after
  terminals, by 0.8 to 6 (median 1.8) at the clock's time-outs, and by less than 2.8 at nine of ten other rows.
- *AntMaze -v0*: its time-outs are out of step with its true episodes, so a few transitions leap across the maze; as in all published
  results they are left in (use -v2). Terminal rows mark the goal, and the ant goes on behind it: rows there are episodes
  of their own, often of one row.
- *Maze2D -v1* is one long trajectory whose time-outs mark a goal reached; they are treated as time-outs, as everybody does.

**Which rows become transitions**, the customary conversion: a row that is cut is dropped, since the file holds no successor that
everybody trusts, but its observation and action are the true successors of the row before, which thereby is the truncated one. Its reward counts
in the episode's return. Terminal rows stay. Files written by the suite itself hold true successors, and none of their rows is dropped.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelyard.envs import d4rl_table
from steelyard.envs.dataset_files import Rows, read_rows
from steelyard.envs.dataset_type import Dataset, DatasetError

SAME = 1e-6
"""Observations that differ by no more are the same."""
FEWEST_TIMEOUTS = 5
"""Time-outs that a file must have before they can be dismissed by how they look."""
ANT_WITHOUT_FORCES = 27
"""Observation of Gymnasium's Ant-v4. D4RL's has 84 contact forces behind it, which its simulator left at zero."""


def read(path: Path, *, name: str | None = None, limit: int | None = None) -> Dataset:
    """The data set in the file `path`.

    `name`: D4RL's name of it; default: the name that the suite wrote into it, the name under which D4RL publishes a file that is
    called so, else the file's stem. `limit`: steps of an episode, where the file has no `timeouts` and the name does not tell. Raises
    `DatasetError` if it is not a sound file in D4RL's schema.
    """
    rows = read_rows(path)
    name = name or rows.name or d4rl_table.recognise(path.name) or path.stem
    if rows.own:
        return _own(path, name, rows)
    return convert(name, rows, limit)


def convert(name: str, rows: Rows, limit: int | None = None) -> Dataset:
    """Rows of a D4RL file as the customary transitions (see the module). Raises `DatasetError` if none remains."""
    terminal = rows.terminals
    cut = boundaries(name, rows, limit) & ~terminal
    ends = np.flatnonzero(terminal | cut)
    starts = np.concatenate([[0], ends[:-1] + 1])
    action, clipped = _clip(rows.action)
    obs = _observations(name, rows.obs)
    recorded = None if rows.next_obs is None else rows.next_obs[:, : obs.shape[1]]
    next_obs = np.concatenate([obs[1:], obs[-1:]])
    next_obs[terminal] = (obs if recorded is None else recorded)[terminal]
    next_action = np.concatenate([action[1:], action[-1:]])
    next_action[terminal] = action[terminal]
    truncated = np.zeros(len(cut), dtype=np.bool_)
    truncated[:-1] = cut[1:] & ~terminal[:-1]
    keep = ~cut
    # An episode of one row that is cut loses it, and with it its return.
    survives = keep[starts]
    returns = np.add.reduceat(rows.reward.astype(np.float64), starts)[survives]
    if not keep.any():
        raise DatasetError(f"{name}: no row has a successor, since each is an episode of its own; give a step limit above 1.")
    entry = d4rl_table.TABLE.get(name)
    return Dataset(
        name=name,
        task=rows.task or (entry.task if entry else None),
        obs=obs[keep],
        action=action[keep],
        reward=rows.reward[keep],
        next_obs=next_obs[keep],
        next_action=next_action[keep],
        terminated=terminal[keep],
        truncated=truncated[keep],
        returns=returns,
        clipped=clipped,
    )


def boundaries(name: str, rows: Rows, limit: int | None = None) -> NDArray[np.bool_]:
    """[N] where an episode ends by the rules of this module; the last row always does.

    `limit`: steps of an episode, where the file has no `timeouts`; default: D4RL's for this name.
    """
    limit = limit if limit is not None else d4rl_table.step_limit(name)
    if limit is not None and limit < 2:
        raise DatasetError(f"{name}: the step limit is {limit}; give two or more.")
    terminal, timeouts = rows.terminals, rows.timeouts
    foreign = name not in d4rl_table.TABLE
    leaps = _leaps(rows) if foreign else None
    if timeouts is None:
        ends = terminal | leaps if leaps is not None and leaps.any() else _cut_every(terminal, limit)
    elif _is_human_hand(name) and terminal.any():
        ends = terminal.copy()
    elif leaps is not None and leaps.any():
        ends = terminal | leaps
    elif foreign and _clock_only(rows, timeouts):
        ends = terminal.copy()
    else:
        ends = terminal | timeouts
    ends[-1] = True
    return ends


def _is_human_hand(name: str) -> bool:
    words = name.split("-")
    return words[0] in d4rl_table.ADROIT and words[1:2] == ["human"]


def _leaps(rows: Rows) -> NDArray[np.bool_] | None:
    """[N] rows whose recorded next observation is not the next row's; None without a record."""
    if rows.next_obs is None:
        return None
    leaps = np.zeros(len(rows.obs), dtype=np.bool_)
    leaps[:-1] = (np.abs(rows.next_obs[:-1] - rows.obs[1:]) > SAME).any(axis=1)
    return leaps


def _clock_only(rows: Rows, timeouts: NDArray[np.bool_]) -> bool:
    """Whether the episodes go on smoothly behind their time-outs (see the module)."""
    inner = (timeouts & ~rows.terminals)[:-1]
    ordinary = ~(timeouts | rows.terminals)[:-1]
    if not rows.terminals[:-1].any() or inner.sum() < FEWEST_TIMEOUTS or not ordinary.any():
        return False
    change = np.abs(np.diff(rows.obs.astype(np.float64) if rows.qpos is None else rows.qpos, axis=0))
    scale = np.quantile(change[ordinary], 0.9, axis=0)
    moves = scale > 0
    if not moves.any():
        return False
    jump = (change[:, moves] / scale[moves]).max(axis=1)
    return bool(np.median(jump[inner]) < np.quantile(jump[ordinary], 0.9))


def _cut_every(terminal: NDArray[np.bool_], limit: int | None) -> NDArray[np.bool_]:
    """Ends at terminals, and after `limit` rows without one."""
    ends = terminal.copy()
    if limit is None:
        return ends
    start = 0
    for stop in np.append(np.flatnonzero(terminal), len(terminal) - 1):
        ends[start + limit - 1 : stop + 1 : limit] = True
        start = int(stop) + 1
    return ends


def _observations(name: str, obs: NDArray[np.float32]) -> NDArray[np.float32]:
    """D4RL's Ant without its contact forces, if they are all zero: what Ant-v4 observes."""
    is_ant = name in d4rl_table.TABLE and name.startswith("ant-")
    if is_ant and obs.shape[1] > ANT_WITHOUT_FORCES and not obs[:, ANT_WITHOUT_FORCES:].any():
        return obs[:, :ANT_WITHOUT_FORCES]
    return obs


def _clip(action: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    return np.clip(action, -1.0, 1.0), int(np.count_nonzero(np.abs(action) > 1.0))


def _own(path: Path, name: str, rows: Rows) -> Dataset:
    """A file of the suite: every row is a transition. Raises `DatasetError` if it is damaged."""
    if rows.next_obs is None or rows.timeouts is None or rows.next_action is None or rows.returns is None:
        raise DatasetError(f"{path} lacks next_observations or timeouts, which recordings of the suite have; record it again.")
    if not np.isfinite(rows.returns).all() or rows.returns.ndim != 1:
        raise DatasetError(f"{path}: metadata/episode_returns is no list of finite numbers; record it again.")
    action, _ = _clip(rows.action)
    next_action, _ = _clip(rows.next_action)
    return Dataset(
        name=name,
        task=rows.task,
        obs=rows.obs,
        action=action,
        reward=rows.reward,
        next_obs=rows.next_obs,
        next_action=next_action,
        terminated=rows.terminals,
        truncated=rows.timeouts,
        returns=rows.returns,
        clipped=rows.clipped,
        discrete=rows.discrete,
    )
