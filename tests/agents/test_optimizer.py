"""Adam against torch's own, and its learning rate's decay."""

import pytest
import torch

from steelyard.agents.agent import Agent, Execution
from steelyard.agents.networks import MLP
from steelyard.agents.optimizer import Adam, AdamState
from steelyard.agents.td3 import TD3
from steelyard.agents.types import Spec

SHAPES = {"matrix": (4, 3), "vector": (5,), "scalar": ()}


def gradients(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {name: torch.randn(shape, generator=generator) * 10.0 ** (step % 3 - 1) for name, shape in SHAPES.items()}


@pytest.mark.parametrize(
    ("config", "total_updates"),
    [
        (Adam(learning_rate=3e-3), 1),
        (Adam(learning_rate=1e-2, final_learning_rate=1e-3), 8),
        (Adam(learning_rate=1e-2, first_decay=0.5, second_decay=0.9, epsilon=1e-2), 20),
        (Adam(learning_rate=1e-2, first_decay=0.0), 1),
        (Adam(learning_rate=1e-2, second_decay=0.0), 1),
    ],
)
def test_steps_equal_torchs_adam(config: Adam, total_updates: int) -> None:
    """Twelve steps, so that a decay over eight has ended."""
    ours = {name: torch.ones(shape) for name, shape in SHAPES.items()}
    theirs = {name: torch.ones(shape, requires_grad=True) for name, shape in SHAPES.items()}
    state = config.build(ours, total_updates)
    adam = torch.optim.Adam(
        theirs.values(), lr=config.learning_rate, betas=(config.first_decay, config.second_decay), eps=config.epsilon
    )
    final = config.learning_rate if config.final_learning_rate is None else config.final_learning_rate
    for step in range(12):
        rate = config.learning_rate + (final - config.learning_rate) * min(step / total_updates, 1.0)
        for group in adam.param_groups:
            group["lr"] = rate
        drawn = gradients(step)
        for name, parameter in theirs.items():
            parameter.grad = drawn[name].clone()
        adam.step()
        with torch.no_grad():
            state.step(ours, drawn)
        assert state.learning_rate().item() == pytest.approx(rate, rel=1e-5)
        for name in SHAPES:
            moved, expected = ours[name] - 1, theirs[name].detach() - 1
            torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-6)


def test_gradients_find_their_parameters_by_name() -> None:
    parameters = {"a": torch.zeros(2), "b": torch.zeros(2)}
    Adam(learning_rate=0.1).build(parameters, 1).step(
        parameters, {"b": torch.tensor([-1.0, -1.0]), "a": torch.tensor([1.0, 1.0])}
    )
    torch.testing.assert_close(parameters["a"], torch.full((2,), -0.1))
    torch.testing.assert_close(parameters["b"], torch.full((2,), 0.1))


def test_moments_and_steps_are_saved_and_take_no_gradient() -> None:
    parameters = {"a": torch.zeros(2)}
    state = Adam().build(parameters, 10)
    state.step(parameters, {"a": torch.ones(2)})
    assert set(state.state_dict()) == {"steps", "means.0", "squares.0"}
    assert not any(p.requires_grad for p in state.parameters())
    again = Adam().build(parameters, 10)
    again.load_state_dict(state.state_dict())
    one, other = {"a": torch.zeros(2)}, {"a": torch.zeros(2)}
    state.step(one, {"a": torch.tensor([2.0, -3.0])})
    again.step(other, {"a": torch.tensor([2.0, -3.0])})
    assert torch.equal(one["a"], other["a"])


def test_learning_rates_of_delayed_losses_arrive() -> None:
    """They take fewer steps than the run has updates."""
    decaying = Adam(1e-3, final_learning_rate=1e-4)
    agent = TD3(policy_delay=3, optimizer=decaying, actor=MLP((8,)), critic=MLP((8,))).build(
        Spec(obs_size=2, action_size=1), num_envs=1, total_updates=30, seed=0, execution=Execution(compile=False)
    )
    assert isinstance(agent, Agent)
    taken = {}
    for name, loss in agent.optimizers.items():
        assert isinstance(loss, AdamState)
        for _ in range(30 // agent.every.get(name, 1) + 1):
            loss.steps.add_(1)
        taken[name] = (float(loss.steps), float(loss.learning_rate()))
    assert taken == {"critic": (31, pytest.approx(1e-4)), "actor": (11, pytest.approx(1e-4))}
