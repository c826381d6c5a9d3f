"""Which trajectories replay holds, against the episodes that were written; and the numbers of weighting, by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor

from steelyard.agents.types import Spec, Step
from steelyard.envs.datasets import Dataset
from steelyard.trainers import trajectories
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.trajectories import advantage_scores, normalized_scores, probabilities, top_fraction

SPEC = Spec(obs_size=1, action_size=1)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def step(buffer, column, obs, reward, end, same_step):
    """One step of one world; with next-step autoreset the reset that follows an end is a call of its own."""
    columns = slice(column, column + 1)
    no, yes = torch.zeros(1, dtype=torch.bool), torch.ones(1, dtype=torch.bool)
    here, after, fresh = (torch.tensor([[float(value)]]) for value in (obs, obs + 0.5, obs + 100))
    over = (torch.tensor([end == "terminated"]), torch.tensor([end == "truncated"]))
    buffer.add(here, here, Step(fresh if end and same_step else after, after, tensor([float(reward)]), *over, yes, {}), columns)
    if end and not same_step:
        buffer.add(after, here, Step(fresh, fresh, torch.zeros(1), no, no, no, {}), columns)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), same_step=st.booleans(), num_envs=st.integers(1, 3), per_env=st.integers(3, 25))
def test_found_are_exactly_the_whole_finished_episodes(data, same_step, num_envs, per_env):
    buffer = ReplayBuffer(SPEC, per_env * num_envs, num_envs)
    written, after_cut = [], set()
    for column in range(num_envs):
        now = 0
        for number in range(data.draw(st.integers(0, 8))):
            length, end = data.draw(st.integers(1, 6)), data.draw(st.sampled_from(["terminated", "truncated", "cut"]))
            begun = int(buffer.cursors[column])
            for moment in range(length):
                ended = end if moment == length - 1 and end != "cut" else ""
                step(buffer, column, 1000 * column + now, 10 * number + moment, ended, same_step)
                now += 1
            if end == "cut":
                buffer.cut(slice(column, column + 1))
                after_cut.add((column, number + 1))
            elif (column, number) not in after_cut:
                total = sum(10 * number + moment for moment in range(length))
                written.append((column, begun, length, total, 1000 * column + now - length))
    found = trajectories.find(buffer)
    got = list(zip(*(part.flatten().tolist() for part in found), strict=True))
    assert len(set(got)) == len(got)
    oldest = (buffer.cursors - buffer.window).tolist()
    stored = [episode for episode in written if episode[1] >= oldest[episode[0]]]
    assert set(got) <= set(stored)
    # In a full column the oldest may be a piece as far as the rows tell; all others are there.
    for column in range(num_envs):
        mine = [episode for episode in stored if episode[0] == column]
        kept = [episode for episode in mine if episode in got]
        assert kept == mine or (oldest[column] > 0 and kept == mine[1:])


def test_a_dropped_reward_counts_and_the_columns_do_not_mix():
    n = 5
    obs = np.arange(n, dtype=np.float32)[:, None]
    ended = np.array([0, 1, 0, 0, 1], bool)
    source = Dataset(
        "two", None, obs, obs, np.ones(n, np.float32), obs + 1, obs + 1, np.zeros(n, bool), ended, np.array([2.5, 3.0])
    )
    buffer = ReplayBuffer(SPEC, 20, 2)
    buffer.extend(source)
    found = trajectories.find(buffer)
    assert [part.flatten().tolist() for part in found] == [[0, 1], [0, 0], [2, 3], [2.5, 3.0], [0, 2]]
    assert found.returns.dtype == found.first_obs.dtype == torch.float64


def test_a_dropped_reward_is_not_given_to_the_column_before():
    row = np.arange(2, dtype=np.float32)[:, None]
    yes = np.ones(2, bool)
    source = Dataset("two", None, row, row, np.ones(2, np.float32), row, row, ~yes, yes, np.array([1.0, -6.0]))
    buffer = ReplayBuffer(SPEC, 12, 2)
    buffer.extend(source)
    ended, going = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)
    same, one = torch.ones(1, 1), torch.ones(1)
    buffer.add(same, same, Step(same, same, one, ended, going, ended, {}), slice(0, 1))
    for _ in range(5):
        buffer.add(same, same, Step(same, same, one, going, going, ended, {}), slice(1, 2))
    # The oldest row of column 1 is now the one behind its first episode, and the newest of column 0 ended an episode.
    assert trajectories.find(buffer).returns.tolist() == [1, 1]


def test_episodes_that_follow_each_other_without_a_row_between_are_two():
    """Where the reset looks like the last observation."""
    buffer = ReplayBuffer(SPEC, 12, 1)
    same, yes, no = torch.ones(1, 1), torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)
    for over in (no, yes, no, no, yes):
        buffer.add(same, same, Step(same, same, torch.ones(1), over, no, yes, {}))
    found = trajectories.find(buffer)
    assert [part.tolist() for part in found[:4]] == [[0, 0], [0, 2], [2, 3], [2, 3]]


def test_nothing_is_found_in_empty_replay():
    found = trajectories.find(ReplayBuffer(SPEC, 20, 2))
    assert found.first_obs.shape == (0, 1)
    assert len(found.length) == 0


def test_scores_go_from_zero_to_one():
    assert normalized_scores(numbers(-3, 1, 5)).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("returns", [[7, 7, 7], [0, 0], [1000, 1000 + 1e-10]])
def test_equal_scores_are_all_zero(returns):
    assert normalized_scores(numbers(*returns)).tolist() == [0] * len(returns)


def test_probabilities_are_per_transition_and_sum_to_one_over_transitions():
    """By hand: weights e^0 and e^2, lengths 3 and 1, so 3 + e^2 is the sum over transitions."""
    p = probabilities(numbers(0, 1), tensor([3, 1]), 0.5)
    torch.testing.assert_close(p, numbers(1, math.e**2) / (3 + math.e**2))
    assert float((p * tensor([3, 1])).sum()) == pytest.approx(1, abs=1e-15)


@settings(max_examples=100, deadline=None)
@given(
    episodes=st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(1, 1000)), min_size=2, max_size=30),
    temperature=st.floats(1e-3, 10),
)
def test_probabilities_are_finite_and_ordered(episodes, temperature):
    returns, lengths = numbers(*(x for x, _ in episodes)), tensor([length for _, length in episodes])
    p = probabilities(normalized_scores(returns), lengths, temperature)
    assert bool(p.isfinite().all())
    assert float((p * lengths).sum()) == pytest.approx(1, rel=1e-12)
    assert bool((p[returns.argsort()].diff() >= 0).all())


def test_scores_need_not_be_scaled_for_a_stable_softmax():
    p = probabilities(numbers(5000, 5001), tensor([1, 1]), 0.1)
    torch.testing.assert_close(p, numbers(1, math.e**10) / (1 + math.e**10))


@pytest.mark.parametrize(
    ("share", "masses"),
    [
        (0.01, [1.000, 0.9955, 0.600, 0.070, 0.027]),
        (0.05, [1.000, 0.9991, 0.887, 0.280, 0.125]),
        (0.10, [1.000, 0.9996, 0.943, 0.451, 0.232]),
    ],
)
def test_mass_of_the_good_in_a_mixture_of_two_levels(share, masses):
    """Table A.6 of the specification: p e^(1/alpha) / (p e^(1/alpha) + 1 - p)."""
    good = round(1000 * share)
    scores, lengths = numbers(*[1] * good, *[0] * (1000 - good)), torch.full((1000,), 7)
    for temperature, mass in zip([0.05, 0.1, 0.2, 0.5, 1.0], masses, strict=True):
        p = probabilities(scores, lengths, temperature)
        assert float((7 * p[:good]).sum()) == pytest.approx(mass, abs=6e-4)


def test_return_weighting_prefers_lucky_contexts():
    """E-A2: two contexts s, G = 10 s + a, a good one in ten, alpha 0.1."""
    returns, counts, obs = contexts()
    p = probabilities(normalized_scores(returns), counts, 0.1)
    for context in (0, 1):
        assert float(share_of_good(p, counts, obs, returns, context)) == pytest.approx(0.216, abs=5e-4)
    mass = p * counts
    ratio = float(mass[obs[:, 0] == 1].sum() / mass[obs[:, 0] == 0].sum())
    assert ratio == pytest.approx(math.exp(10 / 11 / 0.1))
    assert ratio == pytest.approx(8866, rel=1e-3)  # the specification rounds the exponent to 9.09


def test_advantage_weighting_keeps_the_contexts_and_finds_the_good():
    returns, counts, obs = contexts()
    # Ordinary least squares weighs trajectories alike, so each is written out.
    each, each_obs = returns.repeat_interleave(counts), obs.repeat_interleave(counts, 0)
    one = torch.ones(len(each), dtype=torch.int64)
    p = probabilities(normalized_scores(advantage_scores(each, each_obs)), one, 0.1)
    for context in (0, 1):
        assert float(share_of_good(p, one, each_obs, each, context)) == pytest.approx(0.9996, abs=5e-5)
        assert float(p[each_obs[:, 0] == context].sum()) == pytest.approx(0.5, abs=1e-9)


def contexts():
    """Returns 0, 1, 10, 11; as many of each; first observations 0, 0, 1, 1."""
    return numbers(0, 1, 10, 11), tensor([9, 1, 9, 1]), numbers(0, 0, 1, 1)[:, None]


def share_of_good(p, counts, obs, returns, context):
    here = obs[:, 0] == context
    return (p * counts)[here & (returns % 10 == 1)].sum() / (p * counts)[here].sum()


def test_advantages_by_hand():
    """Line through (0, 1), (1, 2), (2, 6): slope 5/2, intercept 1/2."""
    scores = advantage_scores(numbers(1, 2, 6), numbers(0, 1, 2)[:, None])
    torch.testing.assert_close(scores, numbers(0.5, -1, 0.5))


def test_an_even_return_needs_squares():
    obs = torch.linspace(-1, 1, 41, dtype=torch.float64)[:, None]
    luck = (torch.arange(41) % 2).double() * 0.1
    returns = -obs[:, 0].square() + luck
    linear = advantage_scores(returns, obs)
    torch.testing.assert_close(linear, returns - returns.mean(), atol=1e-9, rtol=0)
    quadratic = advantage_scores(returns, obs, "quadratic")
    torch.testing.assert_close(quadratic, luck - luck.mean(), atol=0.01, rtol=0)


@pytest.mark.parametrize("features", ["linear", "quadratic"])
def test_constant_and_dependent_components_do_not_matter(features):
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    returns = obs[:, 0] + torch.randn(50, generator=generator, dtype=torch.float64)
    rounded = 0.1 + 1e-14 * torch.randn(50, 1, generator=generator, dtype=torch.float64)
    wide = torch.cat((obs, rounded, obs[:, :1] * 1e6 + 3, torch.zeros(50, 1)), 1)
    torch.testing.assert_close(advantage_scores(returns, wide, features), advantage_scores(returns, obs, features))


def test_what_the_start_explains_fully_is_no_advantage():
    obs = numbers(0.3, 1.7, 2.9, -4.1)[:, None]
    assert not advantage_scores(1000 * obs[:, 0] + 3, obs).any()
    assert not advantage_scores(numbers(3, 9, 4), torch.eye(3, dtype=torch.float64)).any()


def test_the_best_fraction_counts_trajectories():
    returns, lengths = numbers(3, 9, 1, 9, 5), tensor([10, 20, 30, 40, 50])
    assert top_fraction(returns, lengths, 0.4).tolist() == [0, 1 / 60, 0, 1 / 60, 0]
    assert top_fraction(returns, lengths, 0.59).tolist() == [0, 1 / 60, 0, 1 / 60, 0]  # int(2.95)
    assert top_fraction(returns, lengths, 0.2).tolist() == [0, 1 / 20, 0, 0, 0]
    assert top_fraction(returns, lengths, 0.01).tolist() == [0, 1 / 20, 0, 0, 0]
    torch.testing.assert_close(top_fraction(returns, lengths, 1.0), torch.full((5,), 1 / 150, dtype=torch.float64))


def test_figures_by_hand():
    assert trajectories.positive_sided_variance(numbers(0, 0, 0, 4)) == 9 / 4
    assert trajectories.positive_sided_variance(numbers(5, 5)) == 0
    assert trajectories.weighted_return(numbers(1, 5), numbers(3, 1)) == 2
    assert trajectories.effective_sample_size(numbers(2, 2, 2)) == 3
    assert trajectories.effective_sample_size(numbers(1, 3)) == pytest.approx(1.6)


@pytest.mark.parametrize(("temperature", "size"), [(0.1, 10), (0.2, 28)])
def test_weighting_makes_a_small_data_set(temperature, size):
    """A.6: of 1,000 trajectories of which one in a hundred is good."""
    p = probabilities(numbers(*[1] * 10, *[0] * 990), torch.ones(1000, dtype=torch.int64), temperature)
    assert round(trajectories.effective_sample_size(p)) == size
