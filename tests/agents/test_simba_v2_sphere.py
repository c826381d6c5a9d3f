"""SimbaV2 in training: what stays on the sphere, what does not, how it starts, and how large it is."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from steelyard.agents.networks import SimbaV2
from steelyard.agents.networks.critic import Critic
from steelyard.agents.networks.heads import Categorical
from steelyard.agents.networks.policies import Gaussian, GaussianPolicy
from steelyard.agents.networks.simba_v2 import LerpBlock, Scaler
from steelyard.agents.optimizer import Adam
from steelyard.agents.types import Batch

Build = Callable[..., Any]
DrawBatch = Callable[..., Batch]


def matrices(agent: Any, child: str) -> dict[str, Tensor]:
    """Hyperspherical weights: every parameter that is neither a scaler nor a bias."""
    found = {name: p.detach() for name, p in agent.get_submodule(child).named_parameters()}
    return {name: p for name, p in found.items() if not any(word in name for word in ("scaler", "interpolation", "bias"))}


def assert_unit_rows(weights: dict[str, Tensor], expected: int) -> None:
    assert len(weights) == expected
    for name, weight in weights.items():
        norms = weight.norm(dim=-1)
        torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-6, rtol=0, msg=name)


@pytest.mark.parametrize("name", ["sac-simba-v2", "td3-simba-v2"])
def test_rows_have_norm_one_from_the_start_and_after_every_update(
    name: str, build: Build, draw_batch: DrawBatch, configs: Any
) -> None:
    """A large learning rate would take them far off. One embedding, two matrices per block, two per head."""
    agent = build(configs[name], optimizer=Adam(learning_rate=0.3))
    heads = {"sac-simba-v2": 2, "td3-simba-v2": 1}[name]
    for count in range(5):
        assert_unit_rows(matrices(agent, "critic"), expected=1 + 2 * 2 + 2)
        assert_unit_rows(matrices(agent, "actor"), expected=1 + 2 * 1 + 2 * heads)
        if count == 0:
            assert_unit_rows(matrices(agent, "target_critic"), expected=1 + 2 * 2 + 2)
        agent.update(draw_batch(count))


def test_scalers_and_biases_move_as_adam_says_and_are_not_projected(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    """Adam's first step is the learning rate, with the gradient's sign, wherever there is a gradient."""
    agent = build(configs["sac-simba-v2"], optimizer=Adam(learning_rate=1e-3))
    before = {name: p.detach().clone() for name, p in agent.critic.named_parameters()}
    agent.update(draw_batch(0))
    free = {
        name: p.detach() - before[name] for name, p in agent.critic.named_parameters() if name not in matrices(agent, "critic")
    }
    assert len(free) == 1 + 2 * 2 + 2
    for name, step in free.items():
        assert (step.abs() > 0.9e-3).float().mean() > 0.5, name
        assert step.abs().max() < 1.01e-3, name


def test_slow_targets_are_a_plain_average_that_leaves_the_sphere(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agent = build(configs["sac-simba-v2"], optimizer=Adam(learning_rate=0.3), target_rate=0.25)
    for count in range(3):
        slow = {name: p.detach().clone() for name, p in agent.target_critic.named_parameters()}
        agent.update(draw_batch(count))
        for name, fast in agent.critic.named_parameters():
            expected = 0.25 * fast.detach() + 0.75 * slow[name]
            torch.testing.assert_close(agent.target_critic.get_parameter(name).detach(), expected, atol=1e-6, rtol=1e-6)
    for name, weight in matrices(agent, "target_critic").items():
        assert weight.norm(dim=-1).max() < 1 + 1e-6, name
        assert weight.norm(dim=-1).min() < 0.99, name


def test_scalers_start_at_their_initial_value_and_not_at_its_square() -> None:
    x = torch.full((1, 4), 2.0)
    for initial, scale in ((1 / 3, 0.0442), (1.0, 1.0), (0.5, 2.0)):
        scaler = Scaler(4, initial, scale, None)
        torch.testing.assert_close(scaler(x), initial * x)
        torch.testing.assert_close(scaler.weight.detach(), torch.full((4,), scale))


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_blocks_start_by_moving_one_part_in_blocks_plus_one(blocks: int) -> None:
    block = LerpBlock(SimbaV2(16, blocks), None)
    torch.testing.assert_close(block.interpolation(torch.ones(16)), torch.full((16,), 1 / (blocks + 1)))


def size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("inputs", "critics", "millions"),
    [(17 + 6, 2, 9.05), (376 + 17, 2, 9.43), (223 + 38, 1, 4.65)],
    ids=["HalfCheetah", "Humanoid", "dog"],
)
def test_published_critic_has_its_published_size(inputs: int, critics: int, millions: float) -> None:
    with torch.device("meta"):
        critic = Critic(SimbaV2(512, 2).build(inputs, (Categorical().atoms,), critics))
        larger = Critic(SimbaV2(512, 2).build(inputs + 1, (Categorical().atoms,), critics))
    assert size(critic) / 1e6 == pytest.approx(millions, abs=0.006)
    assert size(larger) - size(critic) == 512 * critics


@pytest.mark.parametrize(("observations", "actions", "millions"), [(5, 1, 0.166), (376, 17, 0.218)])
def test_published_actor_has_its_published_size(observations: int, actions: int, millions: float) -> None:
    with torch.device("meta"):
        actor = SimbaV2(128, 1).build(observations, (actions, actions))
    assert size(actor) / 1e6 == pytest.approx(millions, abs=0.001)


def test_a_dead_layer_gives_finite_outputs_and_gradients() -> None:
    network: Any = SimbaV2(8, 2).build(3, (4,), 2)
    with torch.no_grad():
        for block in network.blocks:
            block.scaler.weight.zero_()
    x = torch.randn(5, 3, requires_grad=True)
    h = network.embedding(x)
    for block in network.blocks:
        moved = block(h)
        torch.testing.assert_close(moved.norm(dim=-1), torch.ones(2, 5))
        assert (moved - h).norm(dim=-1).min() > 0.01  # the added 1e-8 keeps a direction: the block does not give a zero vector
        h = moved
    output = network(x)[0]
    gradients = torch.autograd.grad(output.sum(), [x, *network.parameters()], allow_unused=True)
    assert output.isfinite().all()
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_a_zero_observation_is_no_special_case() -> None:
    network = SimbaV2(8, 1).build(3, (4,))
    assert network(torch.zeros(1, 3))[0].isfinite().all()


def test_gradients_reach_every_scaler_and_every_matrix() -> None:
    network = SimbaV2(16, 2).build(3, (4,), 2)
    network(torch.randn(32, 3, generator=torch.Generator().manual_seed(0)))[0].square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).float().mean() > 0.5, name


def test_the_first_policy_of_published_size_is_nearly_deterministic_and_near_zero() -> None:
    torch.manual_seed(0)
    policy = GaussianPolicy(SimbaV2(128, 1).build(17, (6, 6)), Gaussian(-10.0, 2.0, "tanh"))
    obs = torch.randn(500, 17)
    mode, sample = policy.mode(obs), policy(obs, torch.randn(500, 6))[0]
    assert mode.abs().max() < 0.5
    assert mode.abs().mean() < 0.15
    assert (sample - mode).std().item() == pytest.approx(math.exp(-4), rel=0.5)
