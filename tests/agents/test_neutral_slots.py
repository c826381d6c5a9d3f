"""Neutral is absent: with every slot at its default an update is, bit for bit, what it is without slots."""

from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor

from steelyard.agents.parts import Fixed, Part
from steelyard.agents.types import Batch, Metrics

SLOTS = ("objective", "weighting", "balance", "model", "plasticity")


class Absent(Part):
    """Fails the test if anything asks for it."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the bare agent asked its slot for {name}")

    def forward(self, *arguments: Any) -> Tensor:
        raise AssertionError("the bare agent called its slot")


def prepare(agent: Any, batch: Batch, noise: Tensor) -> Batch:
    obs, next_obs, reward = agent.normalizer(batch.obs), agent.normalizer(batch.next_obs), agent.reward_scale(batch.reward)
    return batch._replace(obs=obs, next_obs=next_obs, reward=reward)


def critic_loss(agent: Any, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
    output = agent.critic(batch.obs, batch.action)
    with torch.no_grad():
        target = agent.backup(agent.target_critic, batch, noise)
    return (batch.weight * agent.head.loss(output, target)).mean(-1).sum(), {}


def sac_actor_loss(agent: Any, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
    action, log_prob = agent.actor(batch.obs, noise[0])
    value = agent.head.value(agent.critic(batch.obs, action)).amin(0)
    return (agent.temperature().detach() * log_prob - value).mean(), {"entropy": -log_prob.mean()}


def sac_backup(agent: Any, critic: Any, batch: Batch, noise: Tensor) -> Tensor:
    action, log_prob = agent.actor(batch.next_obs, noise[1])
    output = agent.pessimistic(critic(batch.next_obs, action), noise)
    return agent.head.backup(output, batch.reward, batch.discount, agent.temperature() * log_prob)


def sac_choose(agent: Any, obs: Tensor, noise: Tensor) -> Tensor:
    return agent.actor(agent.normalizer(obs), noise)[0].detach()


def td3_actor_loss(agent: Any, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
    return -agent.head.value(agent.critic(batch.obs, agent.actor(batch.obs)))[0].mean(), {}


def td3_backup(agent: Any, critic: Any, batch: Batch, noise: Tensor) -> Tensor:
    action = (agent.target_actor(batch.next_obs) + (noise[0] * 0.2).clamp(-0.5, 0.5)).clamp(-1, 1)
    output = agent.pessimistic(critic(batch.next_obs, action), noise)
    return agent.head.backup(output, batch.reward, batch.discount, torch.zeros_like(batch.reward))


def td3_choose(agent: Any, obs: Tensor, noise: Tensor) -> Tensor:
    return (agent.actor(agent.normalizer(obs)) + 0.1 * noise).clamp(-1, 1).detach()


BARE = {
    "sac": {"actor_loss": sac_actor_loss, "backup": sac_backup, "run_act": sac_choose},
    "td3": {"actor_loss": td3_actor_loss, "backup": td3_backup, "run_act": td3_choose},
}


def without_slots(agent: Any, name: str) -> Any:
    """The same agent with methods that know no slot."""
    methods = {
        "prepare": prepare,
        "critic_loss": critic_loss,
        "intervene": lambda agent: None,
        "regularized": lambda agent, name, loss: loss,
        **BARE[name.split("-")[0]],
    }
    for method, function in methods.items():
        setattr(agent, method, MethodType(function, agent))
    for slot in SLOTS:
        setattr(agent, slot, Absent())
    return agent


@pytest.mark.parametrize("name", ["sac", "td3", "sac-simba-v2", "td3-simba-v2"])
def test_neutral_slots_equal_no_slots_bit_for_bit(
    name: str, build: Callable[..., Any], draw_batch: Callable[..., Batch], configs: dict[str, Any]
) -> None:
    agent, bare = build(configs[name]), without_slots(build(configs[name]), name)
    for count in range(4):
        metrics, expected = agent.update(draw_batch(count)), bare.update(draw_batch(count))
        assert all(torch.equal(metrics[key], value) for key, value in expected.items())
        assert torch.equal(agent.act(draw_batch(9).obs, explore=True), bare.act(draw_batch(9).obs, explore=True))
    parameters = dict(agent.named_parameters())
    assert set(parameters) == {key for key, _ in bare.named_parameters()}
    for key, p in bare.named_parameters():
        assert torch.equal(parameters[key], p), key


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_neutral_occupants_hold_nothing_and_are_not_trained(
    name: str, build: Callable[..., Any], configs: dict[str, Any]
) -> None:
    agent = build(configs[name])
    assert set(SLOTS) <= set(agent.slots)
    for slot in SLOTS:
        assert not agent.get_submodule(slot).state_dict(), slot
    assert agent.trained == agent.losses
    assert set(agent.optimizers) == set(agent.losses)


def test_neutral_occupants_hand_over_what_they_are_given(
    build: Callable[..., Any], draw_batch: Callable[..., Batch], configs: Any
) -> None:
    agent, batch = build(configs["sac"]), draw_batch(0)
    assert agent.model.mix(agent, batch, agent.draw(8)) is batch
    assert agent.balance.condition(batch.obs, agent.balance.choose(batch.obs)) is batch.obs
    assert agent.balance.sample(batch.obs, agent.draw(8)) == agent.balance.choose(batch.obs) == 1.0
    assert agent.weighting(batch.weight, None) is batch.weight
    regression = agent.regression(batch, agent.draw(8))
    assert torch.equal(agent.objective(regression), agent.head.loss(regression.output, regression.target()))
    assert not regression.target().requires_grad


def test_a_fixed_balance_multiplies_improvement(
    build: Callable[..., Any], draw_batch: Callable[..., Batch], configs: Any
) -> None:
    one, two, batch = build(configs["td3"]), build(configs["td3"], balance=Fixed(2.0)), draw_batch(0)
    noise = one.draw(8)
    assert float(two.actor_loss(batch, noise, {})[0]) == pytest.approx(2 * float(one.actor_loss(batch, noise, {})[0]))
