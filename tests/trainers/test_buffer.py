"""Replay against a slow list of transitions: every number in a row names the world, the episode and the time it comes from."""

import json
import multiprocessing
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.agents.types import Spec, Step
from steelyard.trainers import buffer as buffer_module
from steelyard.trainers.buffer import ReplayBuffer, ReplayError

SPEC = Spec(obs_size=3, action_size=2)
GAMMA = 0.9


@dataclass
class World:
    """A world whose observation is (its number, its episode, the time in the episode)."""

    number: int
    same_step: bool
    episode: int = 0
    time: int = 0
    over: bool = False
    written: list[tuple] = field(default_factory=list)
    """(obs, action, reward, terminated, truncated, next_obs) of every transition, in order."""

    def obs(self):
        return torch.tensor([self.number, self.episode, self.time], dtype=torch.float32)

    def step(self, action, end):
        """`end` is "", "terminated", "truncated" or "both". Returns one world's share of a `Step`."""
        before = self.obs()
        if self.over:
            self.episode, self.time, self.over = self.episode + 1, 0, False
            return dict(obs=self.obs(), next_obs=self.obs(), reward=0.0, terminated=False, truncated=False, valid=False)
        self.time += 1
        after = self.obs()
        reward = float(100 * self.number + 10 * self.episode + self.time)
        terminated, truncated = end in ("terminated", "both"), end in ("truncated", "both")
        self.written.append((before, action, reward, terminated, truncated, after))
        if end and self.same_step:
            self.episode, self.time = self.episode + 1, 0
        elif end:
            self.over = True
        return dict(obs=self.obs(), next_obs=after, reward=reward, terminated=terminated, truncated=truncated, valid=True)


def stack(parts):
    rows = {name: [part[name] for part in parts] for name in parts[0]}
    return Step(
        obs=torch.stack(rows["obs"]),
        next_obs=torch.stack(rows["next_obs"]),
        reward=torch.tensor(rows["reward"]),
        terminated=torch.tensor(rows["terminated"]),
        truncated=torch.tensor(rows["truncated"]),
        valid=torch.tensor(rows["valid"]),
        info={},
    )


def drive(buffer, worlds, ends, columns=None):
    """One call per entry of `ends`, each a list with one end per world."""
    for row in ends:
        obs = torch.stack([world.obs() for world in worlds])
        action = torch.stack([torch.tensor([world.time, -world.number], dtype=torch.float32) for world in worlds])
        buffer.add(obs, action, stack([world.step(a, end) for world, a, end in zip(worlds, action, row, strict=True)]), columns)


def all_rows(buffer):
    return torch.arange(buffer.rows * buffer.num_envs)


def expected(world, start, n_step):
    """The slow way: walk along the list of transitions until the episode or the list ends."""
    obs, action, *_ = world.written[start]
    reward, k = 0.0, 0
    while True:
        _, _, r, terminated, truncated, after = world.written[start + k]
        reward += GAMMA**k * r
        k += 1
        if k == n_step or terminated or truncated or start + k == len(world.written):
            return obs, action, reward, after, GAMMA**k * (1 - terminated)


def check_everything(buffer, worlds, n_step):
    batch = buffer.gather(all_rows(buffer), n_step, GAMMA)
    found = {world.number: set() for world in worlds}
    for i in batch.weight.nonzero().flatten().tolist():
        world = worlds[i % buffer.num_envs]
        number, episode, time = batch.obs[i].tolist()
        assert number == world.number
        start = next(j for j, row in enumerate(world.written) if row[0].tolist() == [number, episode, time])
        obs, action, reward, next_obs, discount = expected(world, start, n_step)
        assert torch.equal(batch.obs[i], obs)
        assert torch.equal(batch.action[i], action)
        assert torch.equal(batch.next_obs[i], next_obs)
        torch.testing.assert_close(batch.reward[i], torch.tensor(reward))
        torch.testing.assert_close(batch.discount[i], torch.tensor(discount))
        found[number].add(start)
    for world in worlds:
        # What is there is the newest part of the list without a hole, and nothing is there twice.
        count = len(world.written)
        assert found[world.number] == set(range(count - len(found[world.number]), count))
    assert sum(map(len, found.values())) == int(batch.weight.sum())
    return found


end = st.sampled_from(["", "", "", "", "terminated", "truncated", "both"])


@settings(max_examples=150, deadline=None)
@given(data=st.data(), same_step=st.booleans(), num_envs=st.integers(1, 3), per_env=st.integers(2, 9), n_step=st.integers(1, 5))
def test_matches_a_list_of_transitions(data, same_step, num_envs, per_env, n_step):
    buffer = ReplayBuffer(SPEC, per_env * num_envs, num_envs)
    worlds = [World(number, same_step) for number in range(num_envs)]
    calls = data.draw(st.lists(st.lists(end, min_size=num_envs, max_size=num_envs), max_size=3 * per_env))
    drive(buffer, worlds, calls)
    found = check_everything(buffer, worlds, n_step)
    for world in worlds:
        rows_used = buffer.cursors[world.number]
        if rows_used <= buffer.window:
            assert len(found[world.number]) == len(world.written)
        # Every row that sampling may draw from is a transition or accounted for by an episode's end.
        ends = sum(row[3] or row[4] for row in world.written)
        assert len(found[world.number]) >= min(int(rows_used), buffer.window) - ends


@settings(max_examples=50, deadline=None)
@given(data=st.data(), same_step=st.booleans(), n_step=st.integers(1, 4))
def test_columns_advance_alone(data, same_step, n_step):
    buffer = ReplayBuffer(SPEC, 24, 3)
    worlds = [World(number, same_step) for number in range(3)]
    for _ in range(data.draw(st.integers(0, 12))):
        first, last = data.draw(st.sampled_from([(0, 1), (1, 2), (2, 3), (0, 2), (1, 3)]))
        call = data.draw(st.lists(end, min_size=last - first, max_size=last - first))
        drive(buffer, worlds[first:last], [call], slice(first, last))
    check_everything(buffer, worlds, n_step)


def test_truncation_bootstraps_and_termination_does_not():
    buffer = ReplayBuffer(SPEC, 20, 1)
    drive(buffer, [World(0, same_step=True)], [[""], ["terminated"], [""], ["truncated"], [""]])
    # Rows 0 1 (2: last observation) 3 4 (5: last observation) 6.
    batch = buffer.gather(torch.tensor([0, 1, 3, 4, 6]), 3, GAMMA)
    torch.testing.assert_close(batch.discount, torch.tensor([0.0, 0.0, GAMMA**2, GAMMA, GAMMA]))
    assert batch.next_obs.tolist() == [[0, 0, 2], [0, 0, 2], [0, 1, 2], [0, 1, 2], [0, 2, 1]]
    torch.testing.assert_close(batch.reward, torch.tensor([1 + GAMMA * 2, 2.0, 11 + GAMMA * 12, 12.0, 21.0]))


def test_a_window_ends_at_a_time_limit_even_if_the_new_episode_looks_like_the_end_of_the_old():
    buffer = ReplayBuffer(SPEC, 20, 1)
    one, yes, no = torch.ones(1, 3), torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)
    for truncated in (yes, no, yes, no):
        buffer.add(one, torch.zeros(1, 2), Step(one, one, torch.ones(1), no, truncated, yes, {}))
    batch = buffer.gather(torch.tensor([0, 1]), 3, GAMMA)
    torch.testing.assert_close(batch.reward, torch.tensor([1, 1 + GAMMA]))
    torch.testing.assert_close(batch.discount, torch.tensor([GAMMA, GAMMA**2]))


def test_next_action():
    buffer = ReplayBuffer(SPEC, 20, 1)
    drive(buffer, [World(0, same_step=True)], [[""], [""], [""]])
    assert buffer.gather(torch.tensor([0]), 1).next_action is None
    buffer.columns = frozenset({"next_action"})
    next_action = buffer.gather(torch.tensor([0, 0, 2]), 1).next_action
    assert next_action is not None
    assert next_action.tolist() == [[1, 0], [1, 0], [0, 0]]
    two = buffer.gather(torch.tensor([0]), 2).next_action
    assert two is not None
    assert two.tolist() == [[2, 0]]


@pytest.mark.parametrize("killed_in_add", [False, True])
def test_cut_separates_the_old_episode_from_the_new(killed_in_add):
    buffer = ReplayBuffer(SPEC, 20, 2)
    old = [World(0, same_step=False), World(1, same_step=False)]
    drive(buffer, old, [["", ""], ["", ""]])
    if killed_in_add:
        # The transition is complete, but the writer of column 1 did not live to move its cursor.
        buffer.cursors[1] -= 1
    buffer.cut(slice(1, 2))
    new = World(1, same_step=False, episode=7, written=list(old[1].written))
    drive(buffer, [new], [[""], [""]], slice(1, 2))
    batch = buffer.gather(all_rows(buffer), 3, GAMMA)
    mine = [i for i in batch.weight.nonzero().flatten().tolist() if i % 2 == 1]
    assert len(mine) == 4
    assert (batch.obs[mine][:, 1] == batch.next_obs[mine][:, 1]).all()
    torch.testing.assert_close(batch.reward[mine], torch.tensor([101 + GAMMA * 102, 102, 171 + GAMMA * 172, 172]))


def test_cut_before_anything_is_written_costs_nothing():
    buffer = ReplayBuffer(SPEC, 20, 2)
    buffer.cut()
    assert buffer.cursors.tolist() == [0, 0]


def test_a_writer_that_dies_at_any_operation_leaves_no_false_transition(monkeypatch):
    """The orders of the writes in `add` matter to readers in other processes; here every prefix of them is looked at."""
    names = ["index_fill_", "index_copy_"]
    for same_step in (False, True):
        for survive in range(6):
            buffer = ReplayBuffer(SPEC, 4, 1)
            world = World(0, same_step)
            drive(buffer, [world], [[""]] * 7)
            done = 0

            def dying(original, limit=survive):
                def operation(*args):
                    nonlocal done
                    done += 1
                    if done > limit:
                        raise KeyboardInterrupt
                    return original(*args)

                return operation

            with monkeypatch.context() as patch:
                for name in names:
                    patch.setattr(torch.Tensor, name, dying(getattr(torch.Tensor, name)))
                try:
                    drive(buffer, [world], [["truncated"]])
                except KeyboardInterrupt:
                    pass
                else:
                    assert done == (6 if same_step else 4)
            seen = buffer.gather(all_rows(buffer), 1, GAMMA)
            for i in seen.weight.nonzero().flatten().tolist():
                assert seen.next_obs[i].tolist() == [0, 0, seen.obs[i, 2] + 1]
                assert seen.obs[i, 2] < 7 or survive >= done
            buffer.cut()
            fresh = World(0, same_step, episode=5)
            drive(buffer, [fresh], [[""]])
            seen = buffer.gather(all_rows(buffer), 1, GAMMA)
            for i in seen.weight.nonzero().flatten().tolist():
                assert seen.next_obs[i].tolist() == [0, seen.obs[i, 1], seen.obs[i, 2] + 1]


@pytest.mark.parametrize("n_step", [1, 3])
def test_compiled_gather_equals_eager(n_step):
    buffer = ReplayBuffer(SPEC, 16, 2)
    drive(buffer, [World(0, same_step=True), World(1, same_step=True)], [["", ""], ["terminated", ""], ["", "truncated"]] * 5)
    compiled = torch.compile(lambda index: buffer.gather(index, n_step, GAMMA), fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(all_rows(buffer)), buffer.gather(all_rows(buffer), n_step, GAMMA), strict=True):
        assert got is want is None or torch.equal(got, want)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("calls", [0, 3, 40])
def test_save_and_load_are_exact(tmp_path, calls):
    ends = [["", "truncated"], ["", ""], ["terminated", ""]]
    worlds = [World(0, same_step=True), World(1, same_step=True)]
    buffer = ReplayBuffer(SPEC, 20, 2)
    drive(buffer, worlds, [ends[i % 3] for i in range(calls)])
    buffer.save(tmp_path / "buffer")
    copy = ReplayBuffer(SPEC, 20, 2)
    copy.data.fill_(torch.nan)
    copy.load(tmp_path / "buffer")
    assert torch.equal(copy.data.view(torch.int32), buffer.data.view(torch.int32))
    assert torch.equal(copy.cursors, buffer.cursors)
    stored = min(buffer.rows, int(buffer.cursors.max()) + 1)
    assert (tmp_path / "buffer" / "replay.bin").stat().st_size == 8 * 2 + stored * 2 * buffer.width * 4
    drive(copy, worlds, [["", ""]])
    check_everything(copy, worlds, 2)


def test_a_large_ring_is_saved_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("steelyard.trainers.replay_files._CHUNK", 200)
    buffer = ReplayBuffer(SPEC, 40, 2)
    drive(buffer, [World(0, same_step=True), World(1, same_step=True)], [["", ""]] * 33)
    buffer.save(tmp_path)
    copy = ReplayBuffer(SPEC, 40, 2)
    copy.load(tmp_path)
    assert torch.equal(copy.data, buffer.data)


def damage_nothing(folder):
    pass


def truncate(folder):
    file = folder / "replay.bin"
    file.write_bytes(file.read_bytes()[:-4])


def flip_a_bit(folder):
    raw = bytearray((folder / "replay.bin").read_bytes())
    raw[11] ^= 1
    (folder / "replay.bin").write_bytes(raw)


def no_data(folder):
    (folder / "replay.bin").unlink()


def no_manifest(folder):
    (folder / "manifest.json").unlink()


def noise_as_manifest(folder):
    (folder / "manifest.json").write_bytes(bytes(range(256)))


def edit(name, value):
    def change(folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest[name] = value
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return change


@pytest.mark.parametrize(
    ("damage", "spec", "capacity", "words"),
    [
        (truncate, SPEC, 20, "replay.bin is incomplete or altered"),
        (flip_a_bit, SPEC, 20, "replay.bin is incomplete or altered"),
        (no_data, SPEC, 20, "replay.bin is incomplete or altered"),
        (no_manifest, SPEC, 20, "does not exist"),
        (noise_as_manifest, SPEC, 20, "no JSON"),
        (edit("format", "something else"), SPEC, 20, "format 'something else'"),
        (edit("stored_rows", 2), SPEC, 20, "incomplete or altered"),
        (edit("layout", None), SPEC, 20, "manifest.json is damaged"),
        (edit("byteorder", "middle"), SPEC, 20, "middle-endian"),
        (damage_nothing, Spec(obs_size=4, action_size=2), 20, "obs_size 3, this run has 4"),
        (damage_nothing, SPEC, 30, "rows 11, this run has 16"),
    ],
)
def test_damaged_or_foreign_files_are_refused_and_nothing_is_overwritten(tmp_path, damage, spec, capacity, words):
    buffer = ReplayBuffer(SPEC, 20, 2)
    drive(buffer, [World(0, same_step=True), World(1, same_step=True)], [["", ""]] * 3)
    buffer.save(tmp_path)
    damage(tmp_path)
    other = ReplayBuffer(spec, capacity, 2)
    with pytest.raises(ReplayError, match=words):
        other.load(tmp_path)
    assert not other.data.any()
    assert not other.cursors.any()


def test_description_and_size():
    buffer = ReplayBuffer(Spec(17, 6), 1000, 4, guard=3)
    assert buffer.rows == 250 + 1 + 3
    assert buffer.describe() == "replay: 1,016 rows x 27 floats = 0 MB on host"
    assert buffer.nbytes == 1016 * 27 * 4 == buffer.data.nbytes
    assert "shared memory" in ReplayBuffer(SPEC, 10, 1, placement="shared").describe()


def test_device_placement_stores_the_same():
    host, device = ReplayBuffer(SPEC, 20, 2), ReplayBuffer(SPEC, 20, 2, placement="device", device="cpu")
    for buffer in (host, device):
        drive(buffer, [World(0, same_step=True), World(1, same_step=True)], [["", "truncated"], ["", ""]] * 9)
    assert torch.equal(host.data, device.data)


def test_capacity_beyond_the_free_memory_is_refused(monkeypatch):
    with pytest.raises(ReplayError, match=r"capacity 1,000,000,000,000 needs .* GB free; choose a capacity of at most"):
        ReplayBuffer(SPEC, 10**12, 1)
    monkeypatch.setattr(buffer_module, "free_bytes", lambda device, shared: 64_000_000 if shared else 10**12)
    with pytest.raises(ReplayError, match=r"shared memory \(/dev/shm\) has 0.1 GB free"):
        ReplayBuffer(SPEC, 10**7, 1, placement="shared")


def test_capacity_too_small_is_refused():
    with pytest.raises(ReplayError, match="capacity is 5 for 3 worlds"):
        ReplayBuffer(SPEC, 5, 3)


def step_of(**changes):
    zero = torch.zeros(2, dtype=torch.bool)
    step = Step(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2), zero, zero, ~zero, {})
    return step._replace(**changes)


@pytest.mark.parametrize(
    ("obs", "action", "step", "words"),
    [
        (torch.zeros(2, 4), torch.zeros(2, 2), step_of(), r"obs has shape \[2, 4\] where replay stores \[2, 3\]"),
        (torch.zeros(2, 3), torch.zeros(2, 1), step_of(), "action has shape"),
        (torch.zeros(2, 3), torch.zeros(2, 2), step_of(next_obs=torch.zeros(1, 3)), "step.next_obs has shape"),
        (torch.zeros(2, 3), torch.zeros(2, 2), step_of(reward=torch.zeros(2, 1)), "step.reward has shape"),
        (torch.full((2, 3), torch.nan), torch.zeros(2, 2), step_of(), "obs holds NaN"),
        (torch.zeros(2, 3), torch.full((2, 2), torch.inf), step_of(), "action holds NaN or an infinity"),
        (torch.zeros(2, 3), torch.zeros(2, 2), step_of(next_obs=torch.full((2, 3), torch.nan)), "next_obs holds NaN"),
        (torch.zeros(2, 3), torch.zeros(2, 2), step_of(reward=torch.full((2,), torch.nan)), "reward holds NaN"),
    ],
)
def test_bad_input_is_refused_by_name_and_not_stored(obs, action, step, words):
    buffer = ReplayBuffer(SPEC, 20, 2)
    with pytest.raises(ReplayError, match=words):
        buffer.add(obs, action, step)
    assert not buffer.data.any()
    assert not buffer.cursors.any()


def write_column(buffer, column, calls):
    drive(
        buffer,
        [World(column, same_step=column == 1)],
        [["truncated" if i % 5 == 4 else ""] for i in range(calls)],
        slice(column, column + 1),
    )


def test_processes_write_their_own_columns_of_shared_memory():
    buffer = ReplayBuffer(SPEC, 60, 2, placement="shared")
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_column, args=(buffer, column, 20)) for column in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    alone = ReplayBuffer(SPEC, 60, 2)
    for column in range(2):
        write_column(alone, column, 20)
    assert torch.equal(buffer.data, alone.data)
    assert torch.equal(buffer.cursors, alone.cursors)
