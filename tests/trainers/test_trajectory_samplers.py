"""Weighted samplers draw with the probabilities that they state, never what was overwritten, and resume; mixed ones mix exactly."""

import math

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from steelyard.agents.types import Spec, Step
from steelyard.envs.datasets import Dataset
from steelyard.trainers import trajectories
from steelyard.trainers.buffer import ReplayBuffer, ReplayError
from steelyard.trainers.samplers import CANDIDATES, MixedSampler, Uniform
from steelyard.trainers.trajectory_samplers import TopFraction, TrajectoryWeighted

SPEC = Spec(obs_size=1, action_size=1)
RETURNS = [0.0, 10.0, 4.0, 8.0, 10.0, 1.0]
LENGTHS = [4, 2, 7, 1, 3, 5]


def dataset(returns=RETURNS, lengths=LENGTHS, first=None):
    """Rows are numbered by their observations, but for the first of an episode if `first` names it; the return comes with the first row."""
    n, ends = sum(lengths), np.cumsum(lengths) - 1
    starts = ends - np.array(lengths) + 1
    obs = np.arange(n, dtype=np.float32)[:, None]
    if first is not None:
        obs[starts, 0] = first
    reward, ended = np.zeros(n, np.float32), np.zeros(n, bool)
    reward[starts], ended[ends] = returns, True
    after = np.where(ended[:, None], obs + 1000, np.roll(obs, -1, 0))
    action = np.where(ended[:, None], obs, after)
    return Dataset("rows", None, obs, obs, reward, after, action, np.zeros(n, bool), ended, np.array(returns, float))


def holding(source, num_envs=1, room=0):
    buffer = ReplayBuffer(SPEC, ReplayBuffer.rows_needed(source, num_envs) + room, num_envs)
    buffer.extend(source)
    return buffer


def play(buffer, episodes, start=0.0, unfinished=0):
    """Episodes (return, length) of one world, observations counting on from `start`; returns where the count stopped."""
    no, yes = torch.zeros(1, dtype=torch.bool), torch.ones(1, dtype=torch.bool)
    now = float(start)
    for number, (total, length) in enumerate([*episodes, (0.0, unfinished)]):
        for moment in range(length):
            over = yes if number < len(episodes) and moment == length - 1 else no
            obs = torch.tensor([[now]])
            step = Step(
                obs + (50 if bool(over) else 1), obs + 1, torch.tensor([total if moment == 0 else 0.0]), no, over, yes, {}
            )
            buffer.add(obs, obs, step)
            now += 1
    return now


def frequencies(sampler, buffer, size=200_000):
    """Share of the draws that fell on each row, by the row's observation."""
    batch = sampler.sample(size)
    assert bool((batch.weight == 1).all())
    rows, counts = batch.obs[:, 0].unique(return_counts=True)
    return dict(zip(rows.int().tolist(), (counts / size).tolist(), strict=True))


def assert_drawn(sampler, buffer, probability):
    """Chi-squared of the draws against the probability [rows] of each row of the data set; none where it is zero."""
    size = 200_000
    found = frequencies(sampler, buffer, size)
    possible = {row: p for row, p in enumerate(probability) if p > 0}
    assert set(found) <= set(possible)
    chi = sum(size * (found.get(row, 0) - p) ** 2 / p for row, p in possible.items())
    # Beyond mean + 6 standard deviations once in a million seeds or so; a wrong probability is worth thousands.
    assert chi < len(possible) + 6 * math.sqrt(2 * len(possible)) + 6


def per_row(per_transition):
    return np.repeat(per_transition, LENGTHS)


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("room", [0, 100])
def test_draws_follow_the_published_probabilities(num_envs, room):
    buffer = holding(dataset(), num_envs, room)
    sampler = TrajectoryWeighted(by="return", temperature=0.5).build(buffer, 256, 1, 0.9, seed=0)
    weights = np.exp(np.array(RETURNS) / 10 / 0.5)
    p = weights / (weights * LENGTHS).sum()
    assert (p * LENGTHS).sum() == pytest.approx(1)
    assert_drawn(sampler, buffer, per_row(p))


def test_a_uniform_share_reaches_everything():
    buffer = holding(dataset(), 2)
    sampler = TrajectoryWeighted(by="return", temperature=0.1, uniform_share=0.25).build(buffer, 256, 1, 0.9, seed=1)
    weights = np.exp(np.array(RETURNS) / 10 / 0.1)
    p = 0.75 * weights / (weights * LENGTHS).sum() + 0.25 / sum(LENGTHS)
    assert_drawn(sampler, buffer, per_row(p))


def test_advantages_depend_on_where_an_episode_began():
    """Of the contexts 1,000 and 2,000 the second returns 10 more whatever one does; in each one episode is 1 better."""
    first = [1000, 1000, 2000, 2000]
    source = dataset([0, 1, 10, 11], [1, 1, 1, 1], first)
    sampler = TrajectoryWeighted(temperature=0.5).build(holding(source), 100_000, 1, 0.9, seed=0)
    reward = sampler.sample().reward
    good = math.e**2 / (1 + math.e**2) / 2
    for value, share in zip([0, 1, 10, 11], [0.5 - good, good, 0.5 - good, good], strict=True):
        assert float((reward == value).float().mean()) == pytest.approx(share, abs=0.006)


def test_squares_are_offered():
    first = [-2, -1, 0, 1, 2, -2, -1, 0, 1, 2]
    returns = [-(x**2) + (10 if i >= 5 else 0) for i, x in enumerate(first)]
    source = dataset(returns, [1] * 10, first)
    sampler = TrajectoryWeighted(temperature=0.1, features="quadratic").build(holding(source), 2000, 1, 0.9, seed=0)
    assert set(sampler.sample().reward.tolist()) == set(returns[5:])
    assert sampler.diagnostics()["sampler/effective_sample_size"] == pytest.approx(5, abs=0.01)


@pytest.mark.parametrize("config", [TrajectoryWeighted(), TrajectoryWeighted(by="return", temperature=0.01), TopFraction(1.0)])
def test_equal_returns_are_drawn_uniformly(config):
    buffer = holding(dataset(returns=[3.0] * 6), 2)
    assert_drawn(config.build(buffer, 256, 1, 0.9, seed=2), buffer, np.full(sum(LENGTHS), 1 / sum(LENGTHS)))


def test_the_top_fraction_is_uniform_over_the_transitions_of_the_best():
    buffer = holding(dataset(), 2)
    sampler = TopFraction(0.5).build(buffer, 256, 1, 0.9, seed=0)
    kept = np.array([0, 1, 0, 1, 1, 0])
    assert_drawn(sampler, buffer, per_row(kept / 6))
    assert sampler.diagnostics()["sampler/effective_sample_size"] == 3
    assert sampler.diagnostics()["sampler/weighted_return"] == pytest.approx(28 / 3)


def test_extremes_of_noise_stay_inside_and_off_trajectories_of_no_weight():
    buffer = holding(dataset(), room=50)
    sampler = TopFraction(0.5).build(buffer, 4, 1, 0.9, seed=0)
    low, high = 0.0, 1 - 2**-53
    noise = torch.tensor([[low, low, high, high], [low, high, low, high]], dtype=torch.float64).repeat(2, 1)
    index, weight = sampler.select(noise)
    assert buffer.gather(index).obs[:, 0].tolist() == [4, 5, 14, 16]
    assert weight.tolist() == [1] * 4
    assert sampler.noise().shape == (CANDIDATES, 4)
    assert sampler.noise(7).shape == (CANDIDATES, 7)
    assert sampler.noise().dtype == torch.float64


def test_windows_of_several_steps_stay_in_their_trajectory():
    source = dataset()
    batch = TrajectoryWeighted().build(holding(source), 500, 3, 0.9, seed=0).sample()
    end = torch.from_numpy(np.repeat(source.ends, source.lengths))[batch.obs[:, 0].long()]
    third = batch.obs[:, 0] + 3
    assert torch.equal(batch.next_obs[:, 0], torch.where(third > end, end + 1000, third))


def test_diagnostics_by_hand():
    sampler = TrajectoryWeighted(by="return", temperature=0.5).build(holding(dataset()), 16, 1, 0.9, seed=0)
    returns = np.array(RETURNS)
    weights = np.exp(returns / 5)
    assert sampler.diagnostics() == pytest.approx(
        {
            "sampler/weighted_return": (weights * returns).sum() / weights.sum(),
            "sampler/mean_return": 5.5,
            "sampler/effective_sample_size": weights.sum() ** 2 / (weights**2).sum(),
            "sampler/positive_sided_variance": 2 * 4.5**2 / 6 + 2.5**2 / 6,
            "sampler/episodes": 6,
        }
    )
    assert Uniform().build(ReplayBuffer(SPEC, 8), 16, 1, 0.9, seed=0).diagnostics() == {}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (TrajectoryWeighted(temperature=0), "temperature is 0"),
        (TrajectoryWeighted(uniform_share=1.5), r"uniform_share is 1\.5"),
        (TrajectoryWeighted(refresh=0), "refresh is 0"),
        (TopFraction(0), "fraction is 0"),
    ],
)
def test_settings_out_of_range_are_refused(config, words):
    with pytest.raises(ReplayError, match=words):
        config.build(holding(dataset()), 16, 1, 0.9, seed=0)


def test_data_of_one_trajectory_is_refused():
    with pytest.raises(ReplayError, match="Replay holds 1 finished trajectory but weighting compares at least 2"):
        TrajectoryWeighted().build(holding(dataset([1.0], [5])), 16, 1, 0.9, seed=0)


def test_online_rows_are_uniform_until_two_episodes_finished():
    buffer = ReplayBuffer(SPEC, 100)
    sampler = TrajectoryWeighted(by="return", temperature=0.1, refresh=2).build(buffer, 20_000, 1, 0.9, seed=0)
    assert not sampler.sample().weight.any()
    assert sampler.diagnostics() == {}
    now = play(buffer, [(1.0, 4)], unfinished=2)
    for _ in range(3):
        batch = sampler.sample()
        assert batch.obs[batch.weight > 0].unique().tolist() == [0, 1, 2, 3, 4, 5]
    # The step that is to finish the second episode; `refresh` calls later at the latest it counts.
    now = play(buffer, [(0.0, 2), (9.0, 3)], start=now, unfinished=2)
    for _ in range(2):
        batch = sampler.sample()
    assert sampler.diagnostics()["sampler/episodes"] == 3
    good = (batch.obs[:, 0] >= 8) & (batch.obs[:, 0] < 11)
    assert float(good.float().mean()) > 0.99
    assert not bool((batch.obs[:, 0] >= 11).any())  # unfinished
    assert bool((batch.weight == 1).all())


def test_replay_is_looked_at_only_every_so_often():
    buffer = holding(dataset(), room=60)
    sampler = TrajectoryWeighted(refresh=5).build(buffer, 16, 1, 0.9, seed=0)
    play(buffer, [(99.0, 3)])
    seen = []
    for _ in range(6):
        sampler.noise()
        seen.append(sampler.diagnostics()["sampler/episodes"])
        if len(seen) == 1:
            assert seen == [7]
            play(buffer, [(99.0, 3)])
    assert seen == [7, 7, 7, 7, 7, 8]


@pytest.mark.parametrize("refresh", [1, 3, 1000])
def test_rows_that_were_overwritten_are_never_drawn(refresh):
    buffer = ReplayBuffer(SPEC, 40)
    sampler = TrajectoryWeighted(by="return", temperature=0.1, refresh=refresh).build(buffer, 300, 1, 0.9, seed=0)
    now = play(buffer, [(9.0, 5), (1.0, 5), (8.0, 5)])
    sampler.look()
    empty = 0
    for _ in range(12):
        now = play(buffer, [(float(now % 7), 3)], start=now)
        batch = sampler.sample()
        stored = batch.obs[:, 0] >= buffer.flat[:, 0][buffer.address(buffer.cursors - buffer.window, torch.zeros(1).long())]
        drawn = batch.weight > 0
        assert bool(stored[drawn].all())
        # What was drawn is a transition and not what came to lie there.
        assert bool((batch.next_obs == batch.obs + 1)[drawn].all())
        assert bool(drawn.all()) == bool(drawn.any())  # rows that are left stand in for those that are gone
        empty += int(not drawn.any())
    assert (empty == 0) == (refresh < 1000)


def test_the_second_draw_or_another_row_takes_the_place_of_one_that_was_overwritten():
    buffer = ReplayBuffer(SPEC, 20)
    sampler = TopFraction(1.0).build(buffer, 3, 1, 0.9, seed=0)
    now = play(buffer, [(1.0, 8), (1.0, 8)])
    sampler.look()
    play(buffer, [], start=now, unfinished=8)  # of 20 rows 18 are taken; the window moves over six
    noise = torch.tensor([[0.0, 0.9, 0.0], [0.0, 0.0, 0.0], [0.9, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    index, weight = sampler.select(noise)
    assert weight.tolist() == [1, 1, 1]
    assert buffer.gather(index).obs[:, 0].tolist() == [8, 8, 8]


def test_fewer_trajectories_than_before_leave_nothing_of_the_old_tables():
    buffer = ReplayBuffer(SPEC, 40)
    sampler = TrajectoryWeighted(by="return", refresh=1).build(buffer, 500, 1, 0.9, seed=0)
    now = play(buffer, [(float(number % 4), 1) for number in range(20)])
    sampler.sample()
    addresses = [table.data_ptr() for table in (sampler.origins, sampler.lengths, sampler.bounds, sampler.ready)]
    before = sampler.count
    play(buffer, [(1.0, 12), (5.0, 12), (1.0, 12)], start=now)
    batch = sampler.sample()
    assert sampler.count == 2 < before
    assert bool((batch.weight == 1).all())
    assert set(batch.obs[:, 0].tolist()) <= {float(row) for row in range(32, 56)}
    # A captured graph holds these addresses.
    assert addresses == [table.data_ptr() for table in (sampler.origins, sampler.lengths, sampler.bounds, sampler.ready)]


def test_online_rows_are_uniform_again_when_too_few_trajectories_are_left():
    buffer = ReplayBuffer(SPEC, 20)
    sampler = TrajectoryWeighted(by="return", refresh=1).build(buffer, 2000, 1, 0.9, seed=0)
    now = play(buffer, [(1.0, 3), (2.0, 3)])
    sampler.sample()
    assert sampler.diagnostics()["sampler/episodes"] == 2
    play(buffer, [], start=now, unfinished=30)
    batch = sampler.sample()
    assert sorted(set(batch.obs[:, 0].tolist())) == [float(row) for row in range(16, 36)]
    assert sampler.diagnostics() == {}


def test_a_ring_of_one_endless_episode_stops_a_run_that_began_with_data():
    buffer = holding(dataset())
    sampler = TrajectoryWeighted(refresh=1).build(buffer, 16, 1, 0.9, seed=0)
    play(buffer, [], unfinished=60)
    with pytest.raises(ReplayError, match="Replay holds 0 finished"):
        sampler.sample()


@pytest.mark.parametrize("begun_with_data", [True, False])
def test_a_resumed_sampler_draws_the_same(begun_with_data):
    def make():
        buffer = ReplayBuffer(SPEC, 60, 1)
        if begun_with_data:
            buffer.extend(dataset())
        return buffer, TrajectoryWeighted(refresh=4).build(buffer, 16, 1, 0.9, seed=5)

    buffer, sampler = make()
    now = 0.0
    for _ in range(6):
        now = play(buffer, [(float(now % 5), 3)], start=now)
        sampler.sample()
    now = play(buffer, [(20.0, 2)], start=now)  # not yet looked at: the draws go on as if it were not there
    state = sampler.state_dict()
    other, resumed = make()
    resumed.load_state_dict(state)
    other.data.copy_(buffer.data)
    other.cursors.copy_(buffer.cursors)
    assert resumed.diagnostics() == sampler.diagnostics()
    for _ in range(10):
        later = play(buffer, [(7.0, 1)], start=now)
        play(other, [(7.0, 1)], start=now)
        now = later
        for got, want in zip(resumed.sample(), sampler.sample(), strict=True):
            assert got is want is None or torch.equal(got, want)  # pyright: ignore[reportArgumentType]
    assert resumed.diagnostics() == sampler.diagnostics()


def test_a_state_from_before_the_second_episode_resumes_uniformly():
    buffer = ReplayBuffer(SPEC, 60)
    sampler = TrajectoryWeighted(refresh=4).build(buffer, 16, 1, 0.9, seed=5)
    play(buffer, [(1.0, 3)], unfinished=3)
    sampler.sample()
    resumed = TrajectoryWeighted(refresh=4).build(ReplayBuffer(SPEC, 60), 16, 1, 0.9, seed=6)
    resumed.load_state_dict(sampler.state_dict())
    resumed.buffer.data.copy_(buffer.data)
    resumed.buffer.cursors.copy_(buffer.cursors)
    assert torch.equal(resumed.sample().index, sampler.sample().index)


@pytest.mark.parametrize("begun_with_data", [True, False])
def test_a_compiled_graph_goes_on_after_a_refit(begun_with_data):
    torch._dynamo.reset()
    buffer = ReplayBuffer(SPEC, 80, 1)
    if begun_with_data:
        buffer.extend(dataset())
    sampler = TrajectoryWeighted(by="return", refresh=1).build(buffer, 64, 2, 0.9, seed=5)
    traces = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda noise: tuple(sampler.gather(noise)), fullgraph=True, backend=traces)
    episodes, now = [], 0.0
    for _ in range(8):
        now = play(buffer, [(float(now), 4)], start=now)
        noise = sampler.noise()
        episodes.append(sampler.diagnostics().get("sampler/episodes"))
        for got, want in zip(compiled(noise), sampler.gather(noise), strict=True):
            assert got is want is None or torch.equal(got, want)  # pyright: ignore[reportArgumentType]
    assert len(set(episodes)) == 8
    assert traces.frame_count == 1


def mixed(share, batch_size=16):
    """Data whose observations are not negative, and new rows whose observations are."""
    data, fresh = holding(dataset()), ReplayBuffer(SPEC, 200)
    play(fresh, [(1.0, 20), (2.0, 20)], start=-1000)
    first = TrajectoryWeighted(by="return").build(data, batch_size, 1, 0.9, seed=0)
    second = Uniform().build(fresh, batch_size, 1, 0.9, seed=1)
    return MixedSampler(first, second, share)


@pytest.mark.parametrize(
    ("share", "size", "own"), [(0.5, 16, 8), (0.25, 16, 4), (0.3, 17, 5), (0.0, 5, 0), (1.0, 5, 5), (0.9, 64, 58)]
)
def test_a_mix_is_exact_in_every_batch_and_even_in_every_piece(share, size, own):
    sampler = mixed(share, size)
    for _ in range(3):
        batch = sampler.sample()
        fresh = batch.obs[:, 0] < 0
        assert int((~fresh).sum()) == own
        assert bool((batch.weight == 1).all())
        for first in range(size):
            for last in range(first + 1, size + 1):
                assert abs(int((~fresh[first:last]).sum()) - (last - first) * own / size) < 1


def test_a_mix_of_another_size_than_built():
    sampler = mixed(0.25, 16)
    batch = sampler.sample(8)
    assert len(batch.obs) == 8
    assert int((batch.obs[:, 0] >= 0).sum()) == 2


def test_halves_alternate():
    assert (mixed(0.5, 6).sample().obs[:, 0] < 0).tolist() == [True, False] * 3


def test_rows_of_a_mix_are_those_of_its_samplers_and_stay_whole():
    sampler, alone = mixed(0.25), mixed(0.25)
    noise = sampler.noise()
    assert noise.shape == (CANDIDATES, 16)
    parts = alone.first.noise(4), alone.second.noise(12)
    assert torch.equal(noise, torch.cat(parts, 1))
    batch, offline, online = sampler.gather(noise), alone.first.gather(parts[0]), alone.second.gather(parts[1])
    ours = batch.obs[:, 0] >= 0
    for name in ("obs", "action", "reward", "next_obs", "discount", "weight", "index"):
        assert torch.equal(getattr(batch, name)[ours], getattr(offline, name))
        assert torch.equal(getattr(batch, name)[~ours], getattr(online, name))
    assert batch.next_action is batch.goal_return is None
    index, weight = sampler.select(noise)
    assert torch.equal(index, batch.index)
    assert torch.equal(weight, batch.weight)


def test_a_mix_delivers_the_columns():
    sampler = mixed(0.5)
    buffers = [part.buffer for part in (sampler.first, sampler.second)]  # pyright: ignore[reportAttributeAccessIssue]
    for buffer in buffers:
        buffer.columns = frozenset({"next_action", "goal_return"})
        buffer.keep_returns(0.9, lambda reward: reward)
    batch = sampler.sample()
    assert batch.next_action is not None
    assert batch.goal_return is not None
    ours = batch.obs[:, 0] >= 0
    for buffer, rows in zip(buffers, (ours, ~ours), strict=True):
        alone = buffer.gather(batch.index[rows])
        assert torch.equal(batch.next_action[rows], alone.next_action)
        assert torch.equal(batch.goal_return[rows], alone.goal_return)


def test_a_mix_resumes_and_compiles():
    sampler, other = mixed(0.3), mixed(0.3)
    sampler.sample()
    other.load_state_dict(sampler.state_dict())
    noise = other.noise()
    assert torch.equal(noise, sampler.noise())
    compiled = torch.compile(lambda noise: tuple(other.gather(noise)), fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(noise), sampler.gather(noise), strict=True):
        assert got is want is None or torch.equal(got, want)  # pyright: ignore[reportArgumentType]


def test_diagnostics_of_a_mix_say_whose_they_are():
    sampler = mixed(0.5)
    assert sampler.diagnostics() == {f"offline/{name}": value for name, value in sampler.first.diagnostics().items()}
    assert sampler.diagnostics()["offline/sampler/episodes"] == 6


def test_a_mix_refuses_other_shares():
    sampler = mixed(0.5)
    with pytest.raises(ReplayError, match=r"share is 1\.2"):
        MixedSampler(sampler.first, sampler.second, 1.2)


def test_the_machinery_finds_what_was_put_in():
    found = trajectories.find(holding(dataset()))
    assert found.returns.tolist() == RETURNS
    assert found.length.tolist() == LENGTHS
