"""Data sets in replay against the plain arrays: every number of a row names the place in the data set that it comes from."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.agents.networks.normalizers import ReturnScale
from steelyard.agents.types import Spec, Step
from steelyard.envs.datasets import Dataset
from steelyard.trainers.buffer import ReplayBuffer, ReplayError
from steelyard.trainers.dataset_rows import place
from steelyard.trainers.samplers import Uniform

SPEC = Spec(obs_size=2, action_size=1)
GAMMA = 0.9
BOTH = frozenset({"next_action", "goal_return"})


def dataset(lengths, reward=None, terminated=(), dropped=(0.0,), offset=0):
    """Row i observes (i, 0), acts i / 1000 and has successor (i, 1), so that no two rows have a number in common by chance."""
    n, ends = sum(lengths), np.cumsum(lengths) - 1
    row = np.arange(n, dtype=np.float32) + offset
    ended = np.zeros(n, bool)
    ended[ends] = True
    terminal = np.zeros(n, bool)
    terminal[ends[list(terminated)]] = True
    obs, next_obs = np.stack([row, 0 * row], 1), np.stack([row, 0 * row + 1], 1)
    # Inside an episode the successor is the next row's observation.
    next_obs[:-1][~ended[:-1]] = obs[1:][~ended[:-1]]
    action, after = (row[:, None] / 1000).astype(np.float32), ((row[:, None] + 1) / 1000).astype(np.float32)
    reward = row if reward is None else np.array(reward, np.float32)
    returns = np.add.reduceat(reward.astype(float), ends - np.array(lengths) + 1) + np.array(dropped)
    return Dataset("rows", None, obs, action, reward, next_obs, after, terminal, ended & ~terminal, returns)


def valid_rows(buffer):
    return buffer.valid.nonzero().flatten()


def play(buffer, steps, ends=()):
    """Online steps in all columns, with observations (-step, column) and rewards 1; `ends` are truncated, autoreset in the same step."""
    n = buffer.num_envs
    column = torch.arange(float(n))
    for step in range(steps):
        obs, after = (torch.stack((torch.full((n,), -float(time)), column), 1) for time in (step + 1, step + 2))
        over = torch.full((n,), step in ends)
        fresh = torch.where(over[:, None], after - 100, after)
        no, yes = torch.zeros(n, dtype=torch.bool), torch.ones(n, dtype=torch.bool)
        buffer.add(obs, torch.full((n, 1), -float(step + 1)), Step(fresh, after, torch.ones(n), no, over, yes, {}))


def slow_returns(rewards, gamma):
    found, total = [], 0.0
    for reward in reversed(rewards):
        total = reward + gamma * total
        found.append(total)
    return found[::-1]


lengths_drawn = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), lengths=lengths_drawn, num_envs=st.integers(1, 4), n_step=st.integers(1, 4))
def test_every_transition_is_there_once_with_its_own_numbers(data, lengths, num_envs, n_step):
    terminated = data.draw(st.sets(st.integers(0, len(lengths) - 1)))
    source = dataset(lengths, terminated=terminated)
    buffer = ReplayBuffer(SPEC, ReplayBuffer.rows_needed(source, num_envs), num_envs)
    buffer.columns = frozenset({"next_action"})
    buffer.extend(source)
    batch = buffer.gather(valid_rows(buffer), n_step, GAMMA)
    rows = batch.obs[:, 0].long()
    assert sorted(rows.tolist()) == list(range(len(source)))
    assert bool((batch.weight == 1).all())
    ends = torch.from_numpy(np.repeat(source.ends, source.lengths))[rows]
    last = torch.minimum(rows + n_step - 1, ends)
    torch.testing.assert_close(batch.action[:, 0], rows / 1000)
    assert torch.equal(batch.next_obs, torch.from_numpy(source.next_obs)[last])
    assert batch.next_action is not None
    assert torch.equal(batch.next_action, torch.from_numpy(source.next_action)[last])
    discount = GAMMA ** (last - rows + 1) * ~torch.from_numpy(source.terminated)[last]
    torch.testing.assert_close(batch.discount, discount.float())
    reward = sum(GAMMA**k * (rows + k) * (rows + k <= last) for k in range(n_step))
    torch.testing.assert_close(batch.reward, torch.as_tensor(reward).float())
    # Nothing else is there: one row more per episode, and rows that were never written.
    assert int(buffer.cursors.sum()) == len(source) + len(lengths)
    assert not buffer.flat[int(buffer.cursors.max()) * num_envs :].any()


@settings(max_examples=60, deadline=None)
@given(lengths=lengths_drawn, num_envs=st.integers(1, 4))
def test_episodes_are_spread_evenly_and_whole(lengths, num_envs):
    source = dataset(lengths)
    needed = ReplayBuffer.rows_needed(source, num_envs)
    buffer = ReplayBuffer(SPEC, needed, num_envs)
    buffer.extend(source)
    assert buffer.cursors.max() - buffer.cursors.min() <= max(lengths) + 1
    columns = valid_rows(buffer) % num_envs
    rows = buffer.flat[valid_rows(buffer), 0].long()
    for start, end in zip(source.starts, source.ends, strict=True):
        assert len(columns[(rows >= start) & (rows <= end)].unique()) == 1
    # Not one row too many was asked for, and one less would not do.
    assert needed == max(2, int(buffer.cursors.max())) * num_envs
    if needed > 2 * num_envs:
        small = ReplayBuffer(SPEC, needed - num_envs, num_envs)
        with pytest.raises(ReplayError, match="rows needs"):
            small.extend(source)
        assert not small.cursors.any()


def test_the_first_of_the_emptiest_columns_gets_the_next_episode():
    places = place(np.array([5, 2, 1, 1, 7]), np.array([0, 1]))
    assert places.column.tolist() == [0, 1, 1, 0, 1]
    assert places.start.tolist() == [0, 1, 4, 6, 6]
    assert places.filled.tolist() == [8, 14]


def test_one_column_keeps_the_order_and_needs_a_row_per_episode():
    source = dataset([3, 1, 2])
    assert ReplayBuffer.rows_needed(source, 1) == 9
    buffer = ReplayBuffer(SPEC, 9, 1)
    buffer.extend(source)
    assert valid_rows(buffer).tolist() == [0, 1, 2, 4, 6, 7]


def test_a_dropped_reward_is_kept_behind_its_episode():
    buffer = ReplayBuffer(SPEC, 20, 1)
    buffer.extend(dataset([3, 2], dropped=(0.5, -7.0)))
    assert buffer.flat[[3, 6], -4:].tolist() == [[0.5, 0, 0, 0], [-7, 0, 0, 0]]
    assert buffer.flat[[3, 6], :3].tolist() == [[2, 1, pytest.approx(0.003)], [4, 1, pytest.approx(0.005)]]
    torch.testing.assert_close(buffer.gather(torch.tensor([2]), 3, GAMMA).reward, torch.tensor([2.0]))


@pytest.mark.parametrize("steps_before", [0, 3])
@pytest.mark.parametrize("cut_between", [False, True])
def test_online_steps_before_and_after_make_no_false_successor(steps_before, cut_between):
    buffer = ReplayBuffer(SPEC, 80, 2)
    buffer.columns = frozenset({"next_action"})
    play(buffer, steps_before)
    buffer.extend(dataset([4, 3, 2], offset=1))
    buffer.extend(dataset([2], offset=10))
    if cut_between:
        buffer.cut()
    play(buffer, 5, ends=(2,))
    batch = buffer.gather(valid_rows(buffer), 1, GAMMA)
    assert len(batch.obs) == 9 + 2 + 2 * (steps_before + 5)
    assert batch.next_action is not None
    for obs, after, following in zip(batch.obs.tolist(), batch.next_obs.tolist(), batch.next_action[:, 0].tolist(), strict=True):
        if obs[0] > 0:
            assert after in ([obs[0] + 1, 0], [obs[0], 1])
            assert following == pytest.approx((obs[0] + 1) / 1000)
        else:
            assert after == [obs[0] - 1, obs[1]]
            # The last one before a reset, and the newest, have no successor's action yet and repeat their own.
            last = obs[0] in (-3, -5) or (obs[0] == -steps_before)
            assert following == obs[0] - 1 or (last and following == obs[0])
    windows = buffer.gather(valid_rows(buffer), 4, GAMMA)
    assert bool((windows.obs[:, 0].sign() == windows.next_obs[:, 0].sign()).all())


def test_extending_twice_costs_no_extra_row():
    buffer = ReplayBuffer(SPEC, 9, 1)
    buffer.extend(dataset([3, 1]))
    buffer.extend(dataset([2]))
    assert buffer.cursors.tolist() == [9]


def test_saved_and_loaded_with_returns(tmp_path):
    def make():
        buffer = ReplayBuffer(SPEC, 60, 2)
        buffer.columns = BOTH
        buffer.keep_returns(GAMMA, lambda reward: 2 * reward)
        return buffer

    buffer, copy = make(), make()
    buffer.extend(dataset([4, 3, 2]))
    play(buffer, 7, ends=(3,))
    buffer.save(tmp_path)
    copy.load(tmp_path)
    for got, want in zip(copy.gather(valid_rows(copy)), buffer.gather(valid_rows(buffer)), strict=True):
        assert torch.equal(got, want)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"obs_size": 3}, "rows has observations and actions of 3 and 1 numbers where replay stores 2 and 1"),
        ({"action_size": 2}, "of 2 and 2 numbers"),
        ({"obs": np.full((3, 2), np.nan)}, "rows: obs holds NaN"),
        ({"reward": np.full(3, np.inf)}, "rows: reward holds NaN or an infinity"),
        ({"next_obs": np.full((3, 2), np.nan)}, "next_obs holds NaN"),
        ({"next_action": np.full((3, 1), np.nan)}, "next_action holds NaN"),
        ({"returns": np.full(1, np.nan)}, "returns holds NaN"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_stored(changes, words):
    source = dataset([3])
    names = (
        "name",
        "obs",
        "action",
        "reward",
        "next_obs",
        "next_action",
        "terminated",
        "truncated",
        "returns",
        "lengths",
        "ends",
    )
    fields = {name: getattr(source, name) for name in (*names, "obs_size", "action_size")} | changes
    buffer = ReplayBuffer(SPEC, 20, 1)
    with pytest.raises(ReplayError, match=words):
        buffer.extend(SimpleNamespace(**fields))  # pyright: ignore[reportArgumentType]
    assert not buffer.data.any()
    assert not buffer.cursors.any()


@pytest.mark.parametrize("field", ["next_obs", "next_action"])
def test_a_successor_that_is_not_the_next_row_is_refused(field, monkeypatch):
    monkeypatch.setattr("steelyard.trainers.dataset_rows.CHUNK", 2)
    for row in range(7):
        source = dataset([3, 4])
        getattr(source, field)[row] += 1
        buffer = ReplayBuffer(SPEC, 20, 1)
        if row in (2, 6):  # an episode's last
            buffer.extend(source)
            continue
        with pytest.raises(ReplayError, match=f"rows: the successor of row {row} is not row {row + 1}"):
            buffer.extend(source)
        assert not buffer.cursors.any()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), lengths=lengths_drawn, num_envs=st.integers(1, 3), gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_returns_to_go_of_a_data_set(data, lengths, num_envs, gamma):
    reward = data.draw(st.lists(st.integers(-5, 5), min_size=sum(lengths), max_size=sum(lengths)))
    source = dataset(lengths, reward=reward)
    buffer = ReplayBuffer(SPEC, ReplayBuffer.rows_needed(source, num_envs) + 20, num_envs)
    buffer.columns = BOTH
    if data.draw(st.booleans()):
        buffer.keep_returns(gamma, lambda reward: 10 * reward - 5)
        buffer.extend(source)
    else:
        buffer.extend(source)
        buffer.keep_returns(gamma, lambda reward: 10 * reward - 5)
    batch = buffer.gather(valid_rows(buffer), 3)
    wanted = np.concatenate(
        [
            slow_returns(10 * source.reward[a : b + 1].astype(float) - 5, gamma)
            for a, b in zip(source.starts, source.ends, strict=True)
        ]
    )
    assert batch.goal_return is not None
    assert batch.goal_return.dtype == torch.float32
    torch.testing.assert_close(batch.goal_return, torch.from_numpy(wanted)[batch.obs[:, 0].long()].float())


def test_an_episode_of_nothing_but_failure_fails_for_ever():
    buffer = ReplayBuffer(SPEC, 40, 1)
    buffer.columns = BOTH
    buffer.keep_returns(0.99, lambda reward: 10 * reward - 5, failure=-5.0)
    buffer.extend(dataset([3, 3, 1], reward=[0, 0, 0, 0, 0, 1, 0]))
    got = buffer.gather(valid_rows(buffer)).goal_return
    assert got is not None
    success = slow_returns([-5, -5, 5], 0.99)
    torch.testing.assert_close(got, torch.tensor([-500.0] * 3 + success + [-500.0]))
    # Without a failure value the sums are plain.
    buffer.keep_returns(0.99, lambda reward: 10 * reward - 5)
    got = buffer.gather(valid_rows(buffer)).goal_return
    assert got is not None
    torch.testing.assert_close(got, torch.tensor([*slow_returns([-5.0] * 3, 0.99), *success, -5.0]))


def test_returns_follow_a_scale_that_is_still_learned():
    """And do not depend on when they were computed, so a resumed run sees the same ones."""
    scaling = ReturnScale().build(1, 0.9)
    buffer = ReplayBuffer(SPEC, 40, 1)
    buffer.columns = BOTH
    buffer.keep_returns(0.9, scaling)
    buffer.extend(dataset([3, 2], reward=[1, 2, 3, 4, 5]))
    no, yes = torch.zeros(1, dtype=torch.bool), torch.ones(1, dtype=torch.bool)
    for reward in (3.0, -40.0, 7.0):
        scaling.observe(torch.tensor([reward]), no, yes)
        raw = torch.tensor([*slow_returns([1, 2, 3], 0.9), *slow_returns([4, 5], 0.9)])
        got = buffer.gather(valid_rows(buffer)).goal_return
        assert got is not None
        torch.testing.assert_close(got, scaling(raw))
        before = got
        buffer.recompute_returns()
        assert torch.equal(buffer.gather(valid_rows(buffer)).goal_return, before)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("look_back", [1, 3, 256])
@pytest.mark.parametrize("capacity", [16, 200])
def test_returns_of_online_episodes_are_known_when_they_end(monkeypatch, look_back, capacity):
    monkeypatch.setattr("steelyard.trainers.goal_returns.LOOK_BACK", look_back)
    buffer = ReplayBuffer(SPEC, capacity, 2)
    buffer.columns = BOTH
    buffer.keep_returns(GAMMA, lambda reward: reward)
    play(buffer, 33, ends=(4, 11, 12, 28))
    seen = buffer.gather(valid_rows(buffer))
    assert seen.goal_return is not None
    last = {step: next((end for end in (4, 11, 12, 28) if end >= step), None) for step in range(33)}
    for obs, got in zip(seen.obs.tolist(), seen.goal_return.tolist(), strict=True):
        step = round(-obs[0]) - 1
        end = last[step]
        want = -float("inf") if end is None else (1 - GAMMA ** (end - step + 1)) / (1 - GAMMA)
        assert got == pytest.approx(want, rel=1e-6)
    buffer.recompute_returns()
    again = buffer.gather(valid_rows(buffer)).goal_return
    assert again is not None
    assert torch.equal(again, seen.goal_return)


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_an_episode_without_a_row_behind_it_ends_all_the_same(end):
    """Where the reset looks like the last observation, the next episode follows at once."""
    buffer = ReplayBuffer(SPEC, 60, 1)
    buffer.keep_returns(GAMMA, lambda reward: reward)
    same, yes, no = torch.ones(1, 2), torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)
    for over in (False, True, False, False, True):
        ends = {"terminated": no, "truncated": no} | ({end: yes} if over else {})
        buffer.add(same, torch.ones(1, 1), Step(same, same, torch.ones(1), **ends, valid=yes, info={}))
    assert buffer.goal_returns is not None
    wanted = [pytest.approx(value) for value in (1.9, 1.0, 2.71, 1.9, 1.0)]
    assert buffer.goal_returns.table[:5].tolist() == wanted
    buffer.recompute_returns()
    assert buffer.goal_returns.table[:5].tolist() == wanted


def test_loading_forgets_the_returns_of_before(tmp_path):
    buffer, other = ReplayBuffer(SPEC, 60, 1), ReplayBuffer(SPEC, 60, 1)
    play(buffer, 5)
    buffer.save(tmp_path)
    other.keep_returns(GAMMA, lambda reward: reward)
    play(other, 9, ends=(8,))
    other.load(tmp_path)
    assert other.goal_returns is not None
    assert bool((other.goal_returns.table == -torch.inf).all())


def test_an_episode_that_was_cut_bounds_nothing():
    buffer = ReplayBuffer(SPEC, 60, 1)
    buffer.keep_returns(GAMMA, lambda reward: reward)
    play(buffer, 4)
    buffer.cut()
    play(buffer, 2, ends=(1,))
    assert buffer.goal_returns is not None
    table = buffer.goal_returns.table
    assert table[valid_rows(buffer)].tolist() == [-torch.inf] * 4 + [pytest.approx(1.9), pytest.approx(1.0)]
    before = table.clone()
    buffer.recompute_returns()
    assert torch.equal(table, before)


def test_an_unfinished_row_forgets_the_return_of_the_row_that_it_overwrites():
    buffer = ReplayBuffer(SPEC, 6, 1)
    buffer.keep_returns(GAMMA, lambda reward: reward)
    play(buffer, 4, ends=(3,))
    play(buffer, 3)
    assert buffer.goal_returns is not None
    got = buffer.goal_returns.table[valid_rows(buffer)]
    assert int((got == -torch.inf).sum()) == 3


def test_returns_refuse_what_cannot_be():
    with pytest.raises(ReplayError, match="no actors"):
        ReplayBuffer(SPEC, 20, 1, placement="shared").keep_returns(GAMMA, lambda reward: reward)
    with pytest.raises(ReplayError, match="choose gamma < 1"):
        ReplayBuffer(SPEC, 20, 1).keep_returns(1.0, lambda reward: reward, failure=-1.0)
    buffer = ReplayBuffer(SPEC, 20, 1)
    buffer.columns = BOTH
    with pytest.raises(ReplayError, match="keep_returns"):
        buffer.gather(torch.tensor([0]))


def test_samplers_deliver_the_columns_also_when_compiled():
    buffer = ReplayBuffer(SPEC, 60, 2)
    buffer.columns = BOTH
    buffer.keep_returns(GAMMA, lambda reward: reward)
    buffer.extend(dataset([4, 3, 2]))
    sampler = Uniform().build(buffer, 32, 1, GAMMA, seed=0)
    compiled = torch.compile(lambda noise: tuple(sampler.gather(noise)), fullgraph=True, backend="aot_eager")
    noise = sampler.noise()
    for got, want in zip(compiled(noise), sampler.gather(noise), strict=True):
        assert want is not None
        assert torch.equal(got, want)  # pyright: ignore[reportArgumentType]
