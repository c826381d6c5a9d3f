"""Each loss moves the parameters of the child of its name and of no other, and an update is the published sequence of steps."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from steelyard.agents.networks import MLP
from steelyard.agents.networks.heads import Categorical
from steelyard.agents.optimizer import Adam
from steelyard.agents.types import Batch

Build = Callable[..., Any]
DrawBatch = Callable[..., Batch]


def snapshot(agent: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in agent.named_parameters()}


def changed(before: dict[str, Tensor], agent: Any) -> set[str]:
    return {name for name, p in agent.named_parameters() if not torch.equal(before[name], p.detach())}


def test_each_loss_moves_all_of_its_own_child_and_nothing_else(
    name: str, build: Build, draw_batch: DrawBatch, configs: Any
) -> None:
    agent = build(configs[name])
    for loss in agent.losses:
        # The temperature reads the entropy that the actor's loss saw, the multiplier the gap that the critic's saw.
        earlier = {"temperature": ("actor",), "multiplier": ("critic",)}.get(loss, ())
        agent.apply_update(earlier, draw_batch(0), agent.draw(8))
        apart, before = copy.deepcopy(agent), snapshot(agent)
        noise = agent.draw(8)
        agent.apply_update((*earlier, loss), draw_batch(1), noise)
        own = {key for key in before if key.startswith(f"{loss}.")}
        moments = {key for key in before if key.startswith(f"optimizers.{loss}.")}
        assert own
        if not earlier:
            assert changed(before, agent) == own | moments
        else:
            apart.apply_update(earlier, draw_batch(1), noise)
            assert changed(snapshot(apart), agent) == own | moments


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_no_gradient_is_left_anywhere(name: str, build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agent = build(configs[name])
    metrics = {**agent.update(draw_batch(0)), **agent.update(draw_batch(1))}
    assert all(p.grad is None for p in agent.parameters())
    assert not any(value.requires_grad for value in metrics.values())
    assert all(value.shape == () for value in metrics.values())


def test_slow_targets_move_by_the_target_rate_and_start_equal(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agent = build(configs["sac"], target_rate=0.1)
    for key, value in agent.critic.state_dict().items():
        assert torch.equal(agent.target_critic.state_dict()[key], value)
    slow = snapshot(agent.target_critic)
    agent.update(draw_batch(0))
    for key, fast in agent.critic.named_parameters():
        expected = 0.1 * fast.detach() + 0.9 * slow[key]
        torch.testing.assert_close(agent.target_critic.get_parameter(key).detach(), expected, atol=1e-7, rtol=1e-5)


def descend(
    agent: Any, optimizers: dict[str, torch.optim.Adam], name: str, batch: Batch, noise: Tensor, seen: dict[str, Tensor]
) -> None:
    """One loss the ordinary way: backward through everything, a step of one child."""
    agent.zero_grad()
    loss, metrics = getattr(agent, f"{name}_loss")(batch, noise, seen)
    loss.backward()
    optimizers[name].step()
    seen.update({key: value.detach() for key, value in metrics.items()})


def by_hand(agent: Any, optimizers: dict[str, torch.optim.Adam], batch: Batch, noise: Tensor, count: int) -> None:
    """An update with autograd and torch's Adam, in the order that the papers give."""
    if "temperature" in optimizers:
        order, slow = ("actor", "temperature", "critic"), {"target_critic": "critic"}
    else:
        order, slow = ("critic", "actor"), {"target_critic": "critic", "target_actor": "actor"}
        if count % 2:
            order, slow = ("critic",), {}
    seen: dict[str, Tensor] = {}
    for name in order:
        descend(agent, optimizers, name, batch, noise, seen)
    with torch.no_grad():
        for target, source in slow.items():
            for p, q in zip(agent.get_submodule(target).parameters(), agent.get_submodule(source).parameters(), strict=True):
                p.copy_(0.995 * p + 0.005 * q)


@pytest.mark.parametrize("name", ["sac", "td3"])
@pytest.mark.parametrize("head", ["scalar", "categorical"])
def test_updates_equal_autograd_with_torchs_adam_in_the_published_order(
    name: str, head: str, build: Build, draw_batch: DrawBatch, configs: Any
) -> None:
    """SAC: actor, temperature, then the critic with the new policy and temperature, then targets. TD3: critic, then the delayed rest."""
    config = configs[name]
    changes = {"head": Categorical(21, -5.0, 5.0)} if head == "categorical" else {}
    changes |= {"optimizer": Adam(learning_rate=1e-2), "critic": MLP((16,), layer_norm=True)}
    agent, reference = build(config, **changes), build(config, **changes)
    optimizers = {loss: torch.optim.Adam(reference.get_submodule(loss).parameters(), lr=1e-2) for loss in reference.losses}
    for count in range(1, 6):
        batch = draw_batch(count)
        agent.update(batch)
        by_hand(reference, optimizers, batch, reference.draw(8), count)
    for key, p in reference.named_parameters():
        if not key.startswith("optimizers"):
            torch.testing.assert_close(agent.get_parameter(key).detach(), p.detach(), atol=2e-5, rtol=2e-4, msg=key)
