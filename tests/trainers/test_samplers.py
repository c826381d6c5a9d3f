"""Uniform sampling: every valid row equally often, whatever the columns look like; the random stream is saved."""

import pytest
import torch

from steelyard.agents.types import Spec, Step
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.samplers import CANDIDATES, Uniform, filled_up

SPEC = Spec(obs_size=1, action_size=1)


def fill(buffer, column, rows, invalid=()):
    """Rows whose reward is their time; those in `invalid` are no transitions."""
    zero = torch.zeros(1, dtype=torch.bool)
    for time in range(rows):
        obs, after = torch.tensor([[float(time)]]), torch.tensor([[time + 1.0]])
        valid = torch.tensor([time not in invalid])
        step = Step(after, after, torch.tensor([float(time)]), zero, zero, valid, {})
        buffer.add(obs, torch.zeros(1, 1), step, slice(column, column + 1))


def uneven():
    buffer = ReplayBuffer(SPEC, 40, 4)
    fill(buffer, 0, 3)
    fill(buffer, 2, 25, invalid=(18, 20))  # wrapped more than once
    fill(buffer, 3, 7, invalid=(0,))
    return buffer


def test_uniform_over_the_valid_rows_of_uneven_columns():
    buffer = uneven()
    sampler = Uniform().build(buffer, 40_000, 1, 0.9, seed=0)
    index, weight = sampler.select(sampler.noise())
    assert weight.all()
    expected = {(0, t) for t in range(3)} | {(2, t) for t in range(15, 25) if t not in (18, 20)} | {(3, t) for t in range(1, 7)}
    rewards = buffer.gather(index, 1, 0.9).reward
    drawn = list(zip((index % 4).tolist(), rewards.int().tolist(), strict=True))
    counts = torch.tensor([drawn.count(row) for row in sorted(expected)])
    assert counts.sum() == len(drawn)
    mean = len(drawn) / len(expected)
    # Chi-squared with 16 degrees of freedom: beyond 45 once in 10,000 seeds.
    assert ((counts - mean) ** 2 / mean).sum() < 45


def test_no_row_beyond_the_capacity_is_drawn():
    buffer = ReplayBuffer(SPEC, 10, 1, guard=5)
    fill(buffer, 0, 37)
    sampler = Uniform().build(buffer, 2000, 1, 0.9, seed=0)
    assert sorted(set(sampler.sample().reward.int().tolist())) == list(range(27, 37))


def test_an_empty_buffer_gives_weight_zero():
    batch = Uniform().build(ReplayBuffer(SPEC, 10, 2), 16, 1, 0.9, seed=0).sample()
    assert not batch.weight.any()


def test_rows_without_a_valid_candidate_repeat_others():
    """With episodes of one step every second row is no transition, and one batch row in 16 meets four of them."""
    buffer = ReplayBuffer(SPEC, 400, 1)
    fill(buffer, 0, 400, invalid=range(0, 400, 2))
    batch = Uniform().build(buffer, 20_000, 1, 0.9, seed=0).sample()
    assert batch.weight.all()
    counts = batch.reward.int().bincount(minlength=400)
    assert not counts[::2].any()
    assert counts[1::2].float().std() < 13  # alone 10; a repeated row counts twice, which makes it 10.6
    assert (batch.index[1:] == batch.index[:-1]).float().mean().item() == pytest.approx(0.5**CANDIDATES, abs=0.01)


def test_the_last_rows_of_a_batch_stand_in_for_its_first():
    index, weight = filled_up(torch.arange(5), torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0]))
    assert index.tolist() == [4, 4, 2, 2, 4]
    assert weight.tolist() == [1, 1, 1, 1, 1]
    nothing = filled_up(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    assert [len(part) for part in nothing] == [0, 0]


def test_the_largest_random_number_stays_inside():
    buffer = uneven()
    sampler = Uniform().build(buffer, 2, 1, 0.9, seed=0)
    assert sampler.noise().dtype == torch.float64  # 24 bits would leave out rows of a ring of more than 16 million
    extremes = torch.tensor([[0.0, 1 - 2**-53]], dtype=torch.float64).repeat(CANDIDATES, 1)
    index, weight = sampler.select(extremes)
    assert buffer.gather(index).reward.tolist() == [0, 6]
    assert (index % 4).tolist() == [0, 3]
    assert weight.tolist() == [1, 1]


def test_the_stream_is_seeded_and_resumes():
    buffer = uneven()
    first, second = (Uniform().build(buffer, 16, 2, 0.9, seed=3) for _ in range(2))
    assert torch.equal(first.sample().index, second.sample().index)
    state = first.state_dict()
    ahead = [first.sample().index for _ in range(3)]
    second.sample()
    second.load_state_dict(state)
    assert all(torch.equal(second.sample().index, index) for index in ahead)
    other = Uniform().build(buffer, 16, 2, 0.9, seed=4)
    assert not torch.equal(other.sample().index, first.sample().index)


def test_batch_size_can_differ_from_the_one_built():
    sampler = Uniform().build(uneven(), 16, 1, 0.9, seed=0)
    assert sampler.sample().obs.shape == (16, 1)
    assert sampler.sample(48).obs.shape == (48, 1)


def test_compiled_sampling_equals_eager():
    sampler = Uniform().build(uneven(), 64, 3, 0.9, seed=0)
    compiled = torch.compile(lambda noise: tuple(sampler.gather(noise)), fullgraph=True, backend="aot_eager")
    for _ in range(3):
        noise = sampler.noise()
        for got, want in zip(compiled(noise), sampler.gather(noise), strict=True):
            assert got is want is None or torch.equal(got, want)  # pyright: ignore[reportArgumentType]
