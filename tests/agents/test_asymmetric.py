"""Policies that see less of an observation than critics do."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steelyard.agents.agent import Execution
from steelyard.agents.bc import BC
from steelyard.agents.dqn import DQN
from steelyard.agents.errors import SlotError
from steelyard.agents.networks import MLP
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import Family
from steelyard.agents.sac import SAC
from steelyard.agents.types import Batch, Spec

WHOLE, SEEN = 5, 3
HIDING = Spec(obs_size=WHOLE, action_size=2, horizon=1000, policy_obs_size=SEEN)
AGENTS = (
    "sac",
    "sac-simba-v2",
    "td3-bc",
    "awac",
    "iql",
    "cal-ql",
    "rlpd",
    "iql-famo2o-simba-v2",
    "awac-famo2o-simba-v2",
    "cql-famo2o-simba-v2",
)


def build(config: Any, spec: Spec = HIDING) -> Any:
    return config.build(spec, num_envs=2, total_updates=100, seed=0, execution=Execution(compile=False))


def widened(batch: Batch, seed: int = 0) -> Batch:
    """The batch with two numbers more behind each observation."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(2, len(batch.obs), WHOLE - SEEN, generator=generator)
    obs, next_obs = (torch.cat([part, more], 1) for part, more in zip((batch.obs, batch.next_obs), hidden, strict=True))
    return batch._replace(obs=obs, next_obs=next_obs)


def hidden_changed(obs: Tensor) -> Tensor:
    return torch.cat([obs[:, :SEEN], 7 - 3 * obs[:, SEEN:]], 1)


@pytest.mark.parametrize("name", AGENTS)
def test_policies_act_by_their_part_and_critics_see_all(
    name: str, configs: dict[str, Any], draw_batch: Callable[..., Batch]
) -> None:
    agent = build(configs[name])
    for seed in range(3):
        metrics = agent.update(widened(draw_batch(seed), seed))
    assert agent.check(metrics) is None
    obs = widened(draw_batch(9)).obs
    action = agent.act(obs, explore=False)
    assert action.std() > 0
    assert torch.equal(action, agent.act(hidden_changed(obs), explore=False))
    assert torch.equal(action, agent.act(obs[:, :SEEN], explore=False))
    assert torch.equal(action, agent.act(obs[:, : SEEN + 1], explore=False))
    noise = torch.randn(len(obs), 2)
    assert torch.equal(agent.choose(obs, noise), agent.choose(hidden_changed(obs), noise))
    policy, explorer = agent.policy(), agent.explorer()
    assert torch.equal(policy(obs[:, :SEEN]), policy(hidden_changed(obs)))
    drawn = [explorer(shown, torch.Generator().manual_seed(0)) for shown in (obs, hidden_changed(obs), obs[:, :SEEN])]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    values = [agent.head.value(agent.critic(agent.perceive(seen), action)) for seen in (obs, hidden_changed(obs))]
    assert not torch.allclose(values[0], values[1], atol=1e-4)


def test_a_balance_policy_picks_by_the_policys_part(configs: dict[str, Any], draw_batch: Callable[..., Batch]) -> None:
    agent = build(dataclasses.replace(configs["iql"], balance=Family(1.0, 5.0, network=MLP((8,)))))
    obs, noise = widened(draw_batch(0)).obs, torch.randn(agent.draws, 8, 2)
    other = hidden_changed(obs)
    agent.begin_online()
    for pick in (
        agent.balance.choose,
        lambda shown: agent.balance.draw(shown, noise),
        lambda shown: agent.balance.sample(shown, noise),
    ):
        assert pick(obs).std() > 0
        assert torch.equal(pick(obs), pick(other))


def test_what_a_policy_does_not_see_is_as_if_it_were_not_there(draw_batch: Callable[..., Batch]) -> None:
    config = BC(actor=MLP((16,)))
    hiding, plain = build(config), build(config, Spec(obs_size=SEEN, action_size=2, horizon=1000))
    for seed in range(5):
        hiding.update(widened(draw_batch(seed)))
        plain.update(draw_batch(seed))
    for name, tensor in plain.actor.state_dict().items():
        assert torch.equal(tensor, hiding.actor.state_dict()[name]), name


def test_a_critic_learns_from_what_the_policy_does_not_see(draw_batch: Callable[..., Batch]) -> None:
    """Rewards are a hidden number: known, they can be learned; unknown, their variance remains."""
    config = SAC(actor=MLP((16,)), critic=MLP((32,)), discount=0.0, optimizer=Adam(1e-3))
    errors = {}
    for spec in (HIDING, dataclasses.replace(HIDING, obs_size=SEEN, policy_obs_size=None)):
        agent = build(config, spec)
        for seed in range(400):
            batch = widened(draw_batch(seed, rows=64), seed)
            batch = batch._replace(reward=batch.obs[:, -1], discount=torch.zeros(64))
            shown = batch._replace(obs=batch.obs[:, : spec.obs_size], next_obs=batch.next_obs[:, : spec.obs_size])
            loss = agent.update(shown)["critic_loss"]
        errors[spec.obs_size] = float(loss)
    assert errors[WHOLE] < 0.2 * errors[SEEN]


@pytest.mark.parametrize(("config", "spec", "words"), [
    (DQN(), Spec(4, 3, discrete=True, policy_obs_size=2), "DQN acts by its critics"),
    (SAC(), Spec(4, 3, policy_obs_size=5), "see 5 of 4 numbers"),
    (SAC(), Spec(4, 3, policy_obs_size=0), "see 0 of 4 numbers"),
    (SAC(), Spec(4, 3, picture=(1, 2, 2), policy_obs_size=2), "no pictures"),
])  # fmt: skip
def test_parts_that_cannot_be_are_refused(config: Any, spec: Spec, words: str) -> None:
    with pytest.raises(SlotError, match=words):
        build(config, spec)


def test_seeing_all_is_seeing_what_there_is(configs: dict[str, Any], draw_batch: Callable[..., Batch]) -> None:
    plain, whole = (build(configs["sac"], Spec(3, 2, horizon=1000, policy_obs_size=size)) for size in (None, 3))
    for seed in range(3):
        plain.update(draw_batch(seed))
        whole.update(draw_batch(seed))
    assert all(map(torch.equal, nn.ParameterList(plain.parameters()), nn.ParameterList(whole.parameters())))
