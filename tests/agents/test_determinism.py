"""The seed decides everything, and a saved agent continues as if nothing had happened."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from steelyard.agents.networks.heads import Categorical
from steelyard.agents.sac import SAC
from steelyard.agents.types import Batch, Step

Build = Callable[..., Any]
DrawBatch = Callable[..., Batch]
NAMES = [
    "sac",
    "td3",
    "sac-simba-v2",
    "td3-simba-v2",
    "bc",
    "rebrac",
    "awac",
    "cal-ql",
    "iql-famo2o-simba-v2",
    "cql-famo2o-simba-v2",
]


def observed(batch: Batch) -> Step:
    """The first two rows of a batch as a step of two worlds."""
    no = torch.zeros(2, dtype=torch.bool)
    return Step(batch.next_obs[:2], batch.next_obs[:2], batch.reward[:2], no, no, ~no, {})


def live(agent: Any, draw_batch: DrawBatch, counts: range) -> list[Tensor]:
    """Observe, act and update; everything that the agent answers."""
    answers = []
    for count in counts:
        batch = draw_batch(count)
        agent.observe(observed(batch))
        answers += [agent.act(batch.obs, explore=True), *agent.update(batch).values()]
    return [answer.clone() for answer in answers]


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Whether two states are equal bit for bit."""
    assert left.keys() == right.keys()
    pairs = [(left[key], right[key]) for key in left]
    return all(same(a, b) if isinstance(a, dict) else torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_agent_and_the_same_life(
    name: str, build: Build, draw_batch: DrawBatch, configs: Any
) -> None:
    one = build(configs[name], seed=3)
    torch.manual_seed(99)  # nothing may depend on the global stream
    two = build(configs[name], seed=3)
    assert same(one.state_dict(), two.state_dict())
    answers = live(one, draw_batch, range(4))
    torch.rand(7)
    assert all(map(torch.equal, answers, live(two, draw_batch, range(4))))
    assert same(one.state_dict(), two.state_dict())


@pytest.mark.parametrize("name", ["sac", "td3-simba-v2"])
def test_another_seed_gives_other_weights_and_other_noise(name: str, build: Build, configs: Any) -> None:
    one, two = build(configs[name], seed=3), build(configs[name], seed=4)
    assert not torch.equal(one.critic(torch.ones(1, 3), torch.ones(1, 2)), two.critic(torch.ones(1, 3), torch.ones(1, 2)))
    two.load_state_dict({key: value for key, value in one.state_dict().items() if "extra" not in key}, strict=False)
    assert torch.equal(one.act(torch.ones(1, 3), explore=False), two.act(torch.ones(1, 3), explore=False))
    assert not torch.equal(one.act(torch.ones(1, 3), explore=True), two.act(torch.ones(1, 3), explore=True))
    assert not torch.equal(one.draw(4), two.draw(4))


def test_building_leaves_the_global_stream_alone(build: Build, configs: Any) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    agent = build(configs["sac"])
    agent.act(torch.zeros(1, 3), explore=True)
    agent.draw(3)
    assert torch.equal(torch.rand(3), expected)


def test_exploration_and_updates_have_streams_of_their_own(build: Build, configs: Any) -> None:
    """How often an agent acts between updates must not change the updates' noise."""
    one, two = build(configs["sac"]), build(configs["sac"])
    assert not torch.equal(one.generators["update"].get_state(), one.generators["explore"].get_state())
    two.act(torch.zeros(5, 3), explore=True)
    assert torch.equal(one.draw(4), two.draw(4))
    two.act(torch.zeros(5, 3), explore=False)
    one.act(torch.zeros(5, 3), explore=True)
    assert torch.equal(one.act(torch.zeros(5, 3), explore=True), two.act(torch.zeros(5, 3), explore=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_explorer_and_the_policy_act_as_the_agent_does(name: str, build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agent, obs = build(configs[name]), draw_batch(0).obs
    live(agent, draw_batch, range(2))
    generator = torch.Generator()
    generator.set_state(agent.generators["explore"].get_state())
    assert torch.equal(agent.explorer()(obs, generator), agent.act(obs, explore=True))
    assert torch.equal(agent.policy()(obs), agent.act(obs, explore=False))
    assert not agent.act(obs, explore=True).requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_a_loaded_agent_continues_bit_for_bit(name: str, build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    """Saved after three updates, in the middle of TD3's delay, through a file that loads with `weights_only`."""
    agent = build(configs[name])
    live(agent, draw_batch, range(3))
    file = io.BytesIO()
    torch.save(agent.state_dict(), file)
    file.seek(0)
    other = build(configs[name], seed=17)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.update_count == 3
    assert same(agent.state_dict(), other.state_dict())
    answers = live(agent, draw_batch, range(3, 7))
    assert all(map(torch.equal, answers, live(other, draw_batch, range(3, 7))))
    assert same(agent.state_dict(), other.state_dict())


def test_a_state_of_another_network_is_refused(build: Build, configs: Any) -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        build(configs["sac"]).load_state_dict(build(configs["sac"], head=Categorical(21)).state_dict())


def test_the_first_loss_that_is_not_finite_is_named(build: Build) -> None:
    agent = build(SAC())
    good = {"actor_loss": torch.tensor(1.0), "critic_loss": torch.tensor(2.0), "entropy": torch.tensor(float("nan"))}
    assert agent.check(good) is None
    assert agent.check(good | {"critic_loss": torch.tensor(float("inf"))}) == "critic_loss"
    assert agent.check(good | {"actor_loss": torch.tensor(float("nan"))}) == "actor_loss"
