"""Scalar and categorical value heads: the projection against a slow loop, and clipped double Q on whole distributions."""

import math

import pytest
import torch
from torch import Tensor

from steelyard.agents.networks.heads import Categorical, CategoricalValue, Scalar, pessimistic


def slow_projection(probabilities: Tensor, head: Categorical, reward: float, discount: float, bonus: float) -> list[float]:
    """C51's algorithm 1, one atom after the other, with all of the mass to an atom that is hit exactly."""
    spacing = (head.high - head.low) / (head.atoms - 1)
    target = [0.0] * head.atoms
    for i, mass in enumerate(probabilities.double().tolist()):
        atom = head.low + i * spacing
        moved = min(max(reward + discount * (atom - bonus), head.low), head.high)
        position = (moved - head.low) / spacing
        position = round(position) if abs(position - round(position)) < 1e-9 else position
        lower, upper = math.floor(position), math.ceil(position)
        if lower == upper:
            target[lower] += mass
        else:
            target[lower] += mass * (upper - position)
            target[upper] += mass * (position - lower)
    return target


CASES = {
    "ordinary": (0.37, 0.9, 0.11),
    "exactly on the atoms": (1.0, 1.0, 0.0),
    "nothing moves": (0.0, 1.0, 0.0),
    "terminal, between atoms": (0.234, 0.0, 3.0),
    "terminal, on an atom": (2.0, 0.0, 0.0),
    "terminal, on the last atom": (5.0, 0.0, 0.0),
    "terminal, beyond the support": (-77.0, 0.0, 0.0),
    "clipped above": (4.5, 0.99, -0.3),
    "clipped below": (-7.0, 0.5, 0.2),
    "entropy shifts all over the end": (0.0, 0.99, -40.0),
}


@pytest.mark.parametrize(
    "config", [Categorical(), Categorical(11, -5.0, 5.0), Categorical(2, 0.0, 1.0), Categorical(7, -0.3, 2.9)], ids=str
)
def test_projection_equals_the_slow_loop(config: Categorical) -> None:
    head = config.build()
    logits = 2 * torch.randn(len(CASES), config.atoms, generator=torch.Generator().manual_seed(0))
    reward, discount, bonus = torch.tensor(list(CASES.values())).T
    target = head.backup(logits, reward, discount, bonus)
    assert target.shape == (len(CASES), config.atoms)
    assert (target >= 0).all()
    torch.testing.assert_close(target.sum(-1), torch.ones(len(CASES)))
    for row, (name, case) in enumerate(CASES.items()):
        expected = torch.tensor(slow_projection(logits[row].softmax(-1), config, *case))
        torch.testing.assert_close(target[row], expected, atol=2e-5, rtol=0, msg=name)


def test_mass_that_lands_on_an_atom_stays_whole() -> None:
    head = Categorical(11, -5.0, 5.0).build()
    logits = torch.full((1, 11), -1e9)
    logits[0, 7] = 0.0  # all at the value 2
    one, zero = torch.ones(1), torch.zeros(1)
    assert head.backup(logits, zero, one, zero).argmax().item() == 7
    assert head.backup(logits, one, one, zero)[0, 8].item() == 1.0
    assert head.backup(logits, one * 100, one, zero)[0, 10].item() == 1.0
    assert head.backup(logits, -one * 3, zero, zero)[0, 2].item() == 1.0
    assert head.backup(logits, one * 0.25, zero, zero)[0, 5:7].tolist() == pytest.approx([0.75, 0.25])


def test_entropy_shifts_the_atoms_before_they_are_clipped() -> None:
    """With e = alpha log pi = 2 and reward 2 everything cancels; shifting after clipping would move what was clipped."""
    head = Categorical(11, -5.0, 5.0).build()
    logits = torch.randn(4, 11, generator=torch.Generator().manual_seed(0))
    target = head.backup(logits, torch.full((4,), 2.0), torch.ones(4), torch.full((4,), 2.0))
    torch.testing.assert_close(target, logits.softmax(-1))


def test_entropy_is_discounted_with_the_value_it_belongs_to() -> None:
    head = Categorical(1_001, -50.0, 50.0).build()
    logits = -((head.support - 3).square())[None]
    target = head.backup(logits, torch.tensor([1.0]), torch.tensor([0.5]), torch.tensor([4.0]))
    assert (target * head.support).sum().item() == pytest.approx(1 + 0.5 * (3 - 4), abs=1e-3)


def test_value_is_the_mean_of_the_distribution() -> None:
    head = Categorical(3, -1.0, 2.0).build()
    assert head.support.tolist() == [-1.0, 0.5, 2.0]
    logits = torch.tensor([0.1, 0.2, 0.7]).log()
    assert head.value(logits[None, None]).item() == pytest.approx(-0.1 + 0.1 + 1.4)
    assert head.value(torch.zeros(2, 5, 3)).shape == (2, 5)


def test_loss_is_the_cross_entropy_of_each_sample() -> None:
    head = Categorical(4, -1.0, 1.0).build()
    generator = torch.Generator().manual_seed(0)
    output, target = torch.randn(2, 5, 4, generator=generator), torch.rand(5, 4, generator=generator).softmax(-1)
    loss = head.loss(output, target)
    assert loss.shape == (2, 5)
    for critic in range(2):
        expected = torch.nn.functional.cross_entropy(output[critic], target, reduction="none")
        torch.testing.assert_close(loss[critic], expected)


def test_scalar_head_is_the_number_itself() -> None:
    head = Scalar().build()
    output = torch.tensor([[[1.0], [2.0]], [[3.0], [-4.0]]])
    assert head.value(output).tolist() == [[1.0, 2.0], [3.0, -4.0]]
    target = head.backup(output[1], torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.0]), torch.tensor([1.0, 1.0]))
    assert target.flatten().tolist() == pytest.approx([0.5 + 0.9 * 2.0, 0.5])
    assert head.loss(output, target).flatten().tolist() == pytest.approx([0.5 * 1.3**2, 0.5 * 1.5**2, 0.5 * 0.7**2, 0.5 * 4.5**2])


def test_pessimism_takes_the_whole_distribution_of_the_critic_with_the_smaller_mean() -> None:
    """Sample 0: critic 1 has the smaller mean though its distribution reaches higher. Neither mixing nor atom-wise minima may occur."""
    head: CategoricalValue = Categorical(3, -1.0, 1.0).build()
    probabilities = torch.tensor([[[0.0, 1.0, 0.0], [0.8, 0.1, 0.1]], [[0.7, 0.0, 0.3], [0.1, 0.1, 0.8]]])
    output = probabilities.log().clamp(min=-1e9)
    chosen = pessimistic(head, output)
    assert torch.equal(chosen, torch.stack([output[1, 0], output[0, 1]]))


def test_pessimism_on_scalars_is_the_minimum_of_any_number_of_critics() -> None:
    output = torch.randn(5, 30, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pessimistic(Scalar().build(), output), output.amin(0))
    assert torch.equal(pessimistic(Scalar().build(), output[:1]), output[0])
