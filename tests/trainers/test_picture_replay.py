"""Replay of pictures: each frame is stored once, and every stack comes back as the worlds returned it."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.agents.types import Spec, Step
from steelyard.trainers import buffer as buffer_module
from steelyard.trainers.buffer import ReplayBuffer, ReplayError
from steelyard.trainers.samplers import Uniform
from steelyard.trainers.stored_observations import frames_at

GAMMA = 0.9


def spec(stack, copies=1):
    """Frames of four numbers, world, episode and time in two bytes, or of `copies` of them."""
    return Spec(obs_size=4 * copies * stack, action_size=1, picture=(copies * stack, 2, 2), frames=stack)


class World:
    """A world whose frame names it, its episode and the time; it keeps every transition as stacks made naively."""

    def __init__(self, number, stack, same_step, copies=1):
        self.number, self.stack, self.same_step, self.copies = number, stack, same_step, copies
        self.episode, self.time, self.over = 0, 0, False
        self.shown = [self.frame()]
        self.written = []

    def frame(self):
        return torch.tensor([self.number, self.episode % 256, self.time % 256, self.time // 256] * self.copies, dtype=torch.uint8)

    def obs(self):
        last = self.shown[-self.stack :]
        return torch.cat([last[0]] * (self.stack - len(last)) + last)

    def begin(self):
        self.episode, self.time, self.over = self.episode + 1, 0, False
        self.shown = [self.frame()]

    def step(self, end, masked=False):
        """One world's share of a `Step`; a `masked` step happens but is no transition, as where an actor reaches its limit."""
        before = self.obs()
        if self.over:
            self.begin()
            return dict(obs=self.obs(), next_obs=self.obs(), reward=0.0, terminated=False, truncated=False, valid=False)
        self.time += 1
        self.shown.append(self.frame())
        after = self.obs()
        terminated, truncated = end == "terminated", end == "truncated"
        reward = float(100 * self.number + 10 * self.episode + self.time)
        self.written.append(None if masked else (before, reward, terminated, truncated, after))
        if end and self.same_step:
            self.begin()
        self.over = bool(end) and not self.same_step
        return dict(obs=self.obs(), next_obs=after, reward=reward, terminated=terminated, truncated=truncated, valid=not masked)


def joined(parts):
    rows = {name: [part[name] for part in parts] for name in parts[0]}
    tensors = {name: torch.stack(rows[name]) if name.endswith("obs") else torch.tensor(rows[name]) for name in rows}
    return Step(**tensors, info={})


def drive(buffer, worlds, calls, columns=None):
    for call in calls:
        obs = torch.stack([world.obs() for world in worlds])
        action = torch.tensor([[float(world.time)] for world in worlds])
        step = joined([world.step(end.removesuffix("*"), end.endswith("*")) for world, end in zip(worlds, call, strict=True)])
        buffer.add(obs, action, step, columns)


def naive(written, start, n_step):
    """The slow way: walk along the list of transitions until the episode or the list ends."""
    obs, reward, k = written[start][0], 0.0, 0
    while True:
        _, r, terminated, truncated, after = written[start + k]
        reward, k = reward + GAMMA**k * r, k + 1
        last = start + k == len(written) or written[start + k] is None
        if k == n_step or terminated or truncated or last:
            return obs, reward, after, GAMMA**k * (1 - terminated)


def check_everything(buffer, worlds, n_step):
    """Every transition that sampling may draw is one of the worlds', whole; returns how many there are."""
    newest = torch.zeros(buffer.rows, buffer.num_envs, dtype=torch.bool)
    for env, cursor in enumerate(buffer.cursors.tolist()):
        for time in range(max(cursor - buffer.window, 0), cursor):
            newest[time % buffer.rows, env] = True
    rows = newest.flatten().nonzero().flatten()
    batch = buffer.gather(rows, n_step, GAMMA)
    assert batch.obs.dtype == batch.next_obs.dtype == torch.uint8
    assert batch.reward.dtype == torch.float32
    for i in batch.weight.nonzero().flatten().tolist():
        world = worlds[int(rows[i]) % buffer.num_envs]
        starts = [j for j, row in enumerate(world.written) if row is not None and torch.equal(row[0], batch.obs[i])]
        assert starts, batch.obs[i]
        _, reward, next_obs, discount = naive(world.written, starts[0], n_step)
        assert torch.equal(batch.next_obs[i], next_obs)
        torch.testing.assert_close(batch.reward[i], torch.tensor(reward))
        torch.testing.assert_close(batch.discount[i], torch.tensor(discount))
    return int(batch.weight.sum())


END = st.sampled_from(["", "", "", "", "terminated", "truncated"])
MASKED = st.sampled_from(["", "", "", "*", "terminated", "truncated*"])


@settings(max_examples=120, deadline=None)
@given(
    data=st.data(),
    stack=st.sampled_from([1, 2, 3, 4]),
    same_step=st.booleans(),
    num_envs=st.integers(1, 3),
    per_env=st.integers(2, 9),
    n_step=st.sampled_from([1, 3]),
    copies=st.integers(1, 2),
)
def test_stacks_come_back_as_they_were(data, stack, same_step, num_envs, per_env, n_step, copies):
    buffer = ReplayBuffer(spec(stack, copies), per_env * num_envs, num_envs)
    worlds = [World(number, stack, same_step, copies) for number in range(num_envs)]
    calls = st.lists(st.lists(END, min_size=num_envs, max_size=num_envs), max_size=3 * per_env)
    drive(buffer, worlds, data.draw(calls))
    count = check_everything(buffer, worlds, n_step)
    for world in worlds:
        if int(buffer.cursors[world.number]) <= buffer.window:
            count -= len(world.written)
        else:
            count -= per_env
    assert count <= 0
    if all(int(cursor) <= buffer.window for cursor in buffer.cursors):
        assert count == 0


@settings(max_examples=80, deadline=None)
@given(data=st.data(), n_step=st.sampled_from([1, 3]), per_env=st.integers(3, 9))
def test_columns_advance_alone_are_cut_and_may_hold_steps_that_do_not_count(data, n_step, per_env):
    stack = 3
    buffer = ReplayBuffer(spec(stack), 3 * per_env, 3)
    worlds = [World(number, stack, same_step=False) for number in range(3)]
    for _ in range(data.draw(st.integers(0, 20))):
        first, last = data.draw(st.sampled_from([(0, 1), (1, 2), (2, 3), (0, 2), (1, 3)]))
        if data.draw(st.integers(0, 5)) == 0:
            buffer.cut(slice(first, last))
            for world in worlds[first:last]:
                world.begin()
                world.written.append(None)
        drive(
            buffer,
            worlds[first:last],
            [data.draw(st.lists(MASKED, min_size=last - first, max_size=last - first))],
            slice(first, last),
        )
    check_everything(buffer, worlds, n_step)


def filled(stack=3, calls=40, same_step=False):
    buffer = ReplayBuffer(spec(stack), 2 * 12, 2)
    worlds = [World(number, stack, same_step) for number in range(2)]
    drive(buffer, worlds, [["terminated" if t % 7 == 6 else "", "truncated" if t % 5 == 4 else ""] for t in range(calls)])
    return buffer, worlds


@pytest.mark.parametrize("same_step", [True, False])
@pytest.mark.parametrize("calls", [13, 40, 97])
def test_a_full_ring_knows_where_its_episodes_begin(calls, same_step):
    buffer, worlds = filled(calls=calls, same_step=same_step)
    assert check_everything(buffer, worlds, 3) >= 2 * 12 - 2 * 4


def test_the_oldest_row_has_its_earlier_frames_though_the_ring_is_full():
    buffer = ReplayBuffer(spec(4), 5, 1)
    worlds = [World(0, 4, same_step=False)]
    for t in range(40):
        drive(buffer, worlds, [[""]])
        assert check_everything(buffer, worlds, 1) == min(t + 1, 5)


@pytest.mark.parametrize("placement", ["shared", "device"])
def test_other_placements_hold_the_same(placement):
    expected, _ = filled()
    buffer = ReplayBuffer(spec(3), 2 * 12, 2, placement, "cpu", guard=3)
    assert (buffer.rows, buffer.window) == (expected.rows + 3, expected.window)
    worlds = [World(number, 3, same_step=False) for number in range(2)]
    drive(buffer, worlds, [["terminated" if t % 7 == 6 else "", "truncated" if t % 5 == 4 else ""] for t in range(40)])
    assert all(table.is_shared() == (placement == "shared") for table in buffer._tables())
    assert check_everything(buffer, worlds, 3) == check_everything(expected, worlds, 3)


def test_a_sampled_batch_is_of_the_worlds():
    buffer, worlds = filled()
    batch = Uniform().build(buffer, 64, 3, GAMMA, 0).sample()
    assert batch.weight.all()
    stacks = {tuple(row[0].tolist()) for world in worlds for row in world.written}
    assert {tuple(row) for row in batch.obs.tolist()} <= stacks


def test_each_frame_is_stored_once():
    big = Spec(obs_size=9 * 84 * 84, action_size=6, picture=(9, 84, 84), frames=3)
    buffer = ReplayBuffer(big, 100, 1)
    assert buffer.row_bytes == 3 * 84 * 84 + 1 + 4 * (6 + 4)
    held = sum(table.numel() * table.element_size() for table in buffer._tables())
    assert buffer.nbytes == held == buffer.row_bytes * (100 + 3)
    assert buffer.describe() == "replay: 103 rows x 21,209 bytes (one 21,168-byte frame each) = 2 MB on host"


def test_replay_that_does_not_fit_is_refused_before_it_is_allocated(monkeypatch):
    monkeypatch.setattr(buffer_module, "free_bytes", lambda *_, **__: 10**9)
    big = Spec(obs_size=9 * 84 * 84, action_size=6, picture=(9, 84, 84), frames=3)
    with pytest.raises(ReplayError, match=r"capacity 1,000,000 needs 21\.2 GB .* at most 42,4"):
        ReplayBuffer(big, 1_000_000, 1)


@pytest.mark.parametrize("calls", [5, 40])
def test_what_was_saved_is_loaded(tmp_path, calls):
    buffer, worlds = filled(calls=calls)
    buffer.save(tmp_path)
    copy, _ = filled(calls=3)
    copy.load(tmp_path)
    assert check_everything(copy, worlds, 3) == check_everything(buffer, worlds, 3)
    stored = min(buffer.rows, int(buffer.cursors.max()) + 1)
    for mine, other in zip(buffer._tables(), copy._tables(), strict=True):
        assert torch.equal(mine[:stored], other[:stored])
    assert torch.equal(buffer.cursors, copy.cursors)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_damaged_frames_are_refused(tmp_path, place):
    buffer, _ = filled()
    buffer.save(tmp_path)
    file = tmp_path / "replay.bin"
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1
    file.write_bytes(content)
    before = [table.clone() for table in buffer._tables()]
    with pytest.raises(ReplayError, match="incomplete or altered"):
        buffer.load(tmp_path)
    assert all(map(torch.equal, before, buffer._tables()))


def test_replay_of_other_pictures_or_of_none_is_refused(tmp_path):
    buffer, _ = filled()
    buffer.save(tmp_path)
    plain = ReplayBuffer(Spec(obs_size=12, action_size=1), 24, 2)
    with pytest.raises(ReplayError, match="rows 15, this run has 13"):
        plain.load(tmp_path)
    plain.save(tmp_path / "plain")
    manifest = tmp_path / "plain" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"rows": 13', '"rows": 15'))
    assert "frames" not in json.loads(manifest.read_text())["layout"]
    with pytest.raises(ReplayError, match="frames None, this run has 3"):
        buffer.load(tmp_path / "plain")


def test_stacks_that_could_not_be_read_back_are_refused():
    stack, world = 3, World(0, 3, same_step=False)
    buffer = ReplayBuffer(spec(stack), 10, 1)
    obs = torch.arange(12, dtype=torch.uint8)[None]
    still = joined([dict(obs=obs[0], next_obs=obs[0], reward=0.0, terminated=False, truncated=False, valid=True)])
    with pytest.raises(ReplayError, match="neither continues obs nor begins an episode"):
        buffer.add(obs, torch.zeros(1, 1), still)
    ahead = torch.cat((obs[:, 4:], obs[:, :4]), 1)
    with pytest.raises(ReplayError, match="obs begins an episode in replay"):
        buffer.add(obs, torch.zeros(1, 1), still._replace(obs=ahead, next_obs=ahead))
    drive(buffer, [world], [[""]] * 4)
    buffer.cut()
    with pytest.raises(ReplayError, match="obs begins an episode in replay"):
        drive(buffer, [world], [[""]])


def test_data_sets_are_refused_and_returns_are_kept():
    buffer, worlds = filled(calls=8)

    class Named:
        name = "hopper-medium-v2"

    with pytest.raises(ReplayError, match="hopper-medium-v2 cannot be appended to replay of pictures"):
        buffer.extend(Named())  # pyright: ignore[reportArgumentType]
    buffer.keep_returns(1.0, lambda reward: reward)
    buffer.columns = frozenset({"goal_return", "next_action"})
    batch = buffer.gather(torch.zeros(1, dtype=torch.int64))
    assert batch.goal_return is not None
    assert batch.next_action is not None
    assert batch.goal_return.item() == sum(row[1] for row in worlds[0].written[:7])
    assert batch.next_action.item() == 1.0


def test_observations_of_any_rows():
    buffer, worlds = filled(calls=4)
    address = torch.tensor([[0, 1], [2, 3], [4, 5]])
    expected = torch.stack([torch.stack([world.written[t][0] for world in worlds]) for t in range(3)])
    assert torch.equal(buffer.obs_at(address), expected)
    assert buffer.obs_at(address[:0]).shape == (0, 2, 12)


def test_gathering_is_one_graph():
    buffer, _ = filled()
    sampler = Uniform().build(buffer, 16, 3, GAMMA, 0)
    noise = sampler.noise()
    compiled = torch.compile(lambda noise: tuple(sampler.gather(noise)), fullgraph=True, backend="aot_eager")
    for expected, found in zip(sampler.gather(noise), compiled(noise), strict=True):
        assert (expected is None) == (found is None)
        if expected is not None and found is not None:
            assert torch.equal(expected, found)


def test_looking_frames_up_is_one_operation_to_the_compiler():
    frames = torch.randint(0, 256, (7, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    place = torch.tensor([3, 3, 0, 6])
    assert torch.equal(frames_at(frames, place), frames[place])
    torch.library.opcheck(frames_at, (frames, place))


def test_numbers_are_seen_as_float_rows_see_them():
    """The flags and rewards of a ring with pictures are those of one with plain observations."""
    buffer, _ = filled()
    plain = ReplayBuffer(Spec(obs_size=1, action_size=1), 2 * 12 + 4, 2)
    worlds = [World(number, 3, same_step=False) for number in range(2)]
    for t in range(40):
        obs = torch.tensor([[float(world.time)] for world in worlds])
        ends = ("terminated" if t % 7 == 6 else "", "truncated" if t % 5 == 4 else "")
        step = joined([world.step(end) for world, end in zip(worlds, ends, strict=True)])
        after = torch.tensor([[float(world.time)] for world in worlds])
        plain.add(obs, obs, step._replace(obs=after, next_obs=after))
    assert plain.rows == buffer.rows
    assert torch.equal(plain.data[..., 1:], buffer.data)
    assert np.array_equal(plain.cursors, buffer.cursors)
