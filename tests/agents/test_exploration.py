"""Noise of many worlds, and critics with targets of their own: the options that massively parallel agents ask for."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from steelyard.agents.acting import ActingAgent
from steelyard.agents.agent import Execution
from steelyard.agents.errors import SlotError
from steelyard.agents.networks.exploration import HeldNoise, NoiseRange, SameNoise
from steelyard.agents.parts import AbsoluteBellman, ClippedSemiGradient, InverseVariance
from steelyard.agents.types import Batch, Step

Build = Callable[..., Any]
DrawBatch = Callable[..., Batch]
WORLDS = 512


def ended(done: Tensor) -> Step:
    obs, no = torch.zeros(len(done), 3), torch.zeros_like(done)
    return Step(obs, obs + done[:, None], torch.zeros(len(done)), done, no, ~no, {})


@pytest.mark.parametrize("name", ["sac", "td3", "sac-simba-v2"])
@pytest.mark.parametrize("exploration", [SameNoise(), NoiseRange(1.0, 1.0), HeldNoise(longest=1)])
def test_neutral_exploration_is_none_bit_for_bit(
    name: str, exploration: Any, build: Build, configs: Any, draw_batch: DrawBatch
) -> None:
    agent, bare = build(configs[name], exploration=exploration), build(configs[name])
    bare.run_act = bare.choose
    del bare.exploration
    bare.observe = lambda step: ActingAgent.observe(bare, step)  # what acting agents without the slot do
    for count in range(4):
        obs = draw_batch(count, rows=2).obs
        assert torch.equal(agent.act(obs, explore=True), bare.act(obs, explore=True))
        for learner in (agent, bare):
            learner.observe(ended(torch.tensor([True, False])))
            learner.update(draw_batch(count))
    for key, p in bare.named_parameters():
        assert torch.equal(p, agent.get_parameter(key)), key


def test_the_neutral_occupant_holds_nothing(build: Build, configs: Any) -> None:
    assert not build(configs["sac"]).exploration.state_dict()


def test_factors_are_uniform_and_change_with_the_episode_alone(build: Build, configs: Any) -> None:
    agent = build(configs["td3"], num_envs=WORLDS, exploration=NoiseRange(0.1, 0.5), exploration_noise=1.0)
    first = agent.exploration.factor()[:, 0]
    ranks = ((first.sort().values - 0.1) / 0.4 - torch.arange(WORLDS) / WORLDS).abs().max()
    assert float(ranks) < 0.07  # Kolmogorov-Smirnov's statistic; 0.072 is exceeded in one of a hundred samples
    done = torch.arange(WORLDS) % 3 == 0
    agent.observe(ended(done))
    second = agent.exploration.factor()[:, 0]
    assert torch.equal(first[~done], second[~done])
    assert (first[done] != second[done]).all()
    assert abs(float(torch.corrcoef(torch.stack((first[done], second[done])))[0, 1])) < 0.25


def test_a_factor_is_the_deviation_of_the_actions(build: Build, configs: Any) -> None:
    agent = build(configs["td3"], exploration=NoiseRange(0.01, 0.3), exploration_noise=1.0)
    agent.choose = lambda obs, noise: noise
    obs = torch.zeros(2, 3)
    spread = torch.stack([agent.explore(obs, torch.randn(2, 2)) for _ in range(3000)]).std((0, 2))
    torch.testing.assert_close(spread, agent.exploration.factor()[:, 0], rtol=0.05, atol=0)
    # The deterministic policy knows none of it.
    assert torch.equal(build(configs["td3"]).act(obs, False), build(configs["td3"], exploration=NoiseRange()).act(obs, False))


def test_noise_is_held_for_as_long_as_its_distribution_says(build: Build, configs: Any) -> None:
    agent = build(configs["sac"], exploration=HeldNoise(2.0, 16))
    lengths, before = [], None
    for _ in range(6000):
        noise = agent.exploration(torch.randn(2, 2))
        if before is not None and torch.equal(noise, before):
            lengths[-1] += 1
        else:
            lengths.append(1)
        before = noise
    counted = torch.bincount(torch.tensor(lengths[:-1]), minlength=17)[1:].double()
    expected = torch.arange(1, 17).double() ** -2
    expected = expected / expected.sum()
    assert max(lengths) <= 16
    torch.testing.assert_close(counted[:4] / counted.sum(), expected[:4], rtol=0, atol=0.025)


@pytest.mark.parametrize("exploration", [NoiseRange(), HeldNoise()])
def test_a_restored_agent_explores_as_if_it_had_gone_on(exploration: Any, build: Build, configs: Any) -> None:
    agent, other = build(configs["td3"], exploration=exploration), build(configs["td3"], exploration=exploration)
    obs, done = torch.randn(2, 3), torch.tensor([True, False])
    for _ in range(5):
        agent.act(obs, True)
        agent.observe(ended(done))
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    for _ in range(10):
        assert torch.equal(agent.act(obs, True), other.act(obs, True))
        for one in (agent, other):
            one.observe(ended(~done))


def test_acting_with_held_noise_is_one_graph(build: Build, configs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **given: compiler(function, **given, backend="aot_eager"))
    for exploration in (HeldNoise(), NoiseRange()):
        eager, compiled = (
            build(configs["td3"], exploration=exploration, execution=Execution(compile=flag)) for flag in (False, True)
        )
        for _ in range(6):
            obs = torch.randn(2, 3)
            torch.testing.assert_close(compiled.act(obs, True), eager.act(obs, True))
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["sac", "td3", "sac-simba-v2", "td3-simba-v2", "cql", "awac"])
def test_each_critic_regresses_to_its_own_target(name: str, build: Build, configs: Any, draw_batch: DrawBatch) -> None:
    agent = build(configs[name], target_value="own")
    alone = build(configs[name])
    batch, noise = agent.prepare(draw_batch(1), agent.draw(8)), agent.draw(8)
    regression = agent.regression(batch, noise)
    target = regression.target()
    assert target.shape[0] == 2
    for critic in range(2):
        # With both critics equal to this one the smallest of them is its own.
        alone.load_state_dict(agent.state_dict())
        for p in alone.target_critic.parameters():
            p.copy_(p[critic : critic + 1].expand_as(p).clone())
        torch.testing.assert_close(target[critic], alone.backup(alone.target_critic, batch, noise))
    loss = agent.head.loss(regression.output, target)
    expected = sum((batch.weight * loss[critic]).mean() for critic in range(2))
    if name != "cql":  # conservative terms come on top
        torch.testing.assert_close(agent.critic_loss(batch, noise, {})[0], expected)
    assert agent.check(agent.update(draw_batch(2))) is None


@pytest.mark.parametrize("objective", [ClippedSemiGradient(), AbsoluteBellman()])
def test_other_objectives_take_targets_of_each_critic(objective: Any, build: Build, configs: Any, draw_batch: DrawBatch) -> None:
    agent = build(configs["sac"], target_value="own", objective=objective)
    assert agent.check(agent.update(draw_batch(0))) is None


def test_one_critic_has_no_other_target(build: Build, configs: Any, draw_batch: DrawBatch) -> None:
    agents = [build(configs["sac-simba-v2"], critics=1, target_value=value) for value in ("own", "lowest")]
    for count in range(3):
        first, second = (agent.update(draw_batch(count)) for agent in agents)
        assert all(torch.equal(first[key], second[key]) for key in second)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("iql", {"target_value": "own"}, "come from another network"),
        ("rlpd", {"target_value": "own"}, "leave target_subset out"),
        ("sac", {"target_value": "own", "weighting": InverseVariance()}, "one target for all critics"),
    ],
)
def test_targets_that_make_no_sense_are_refused(name: str, changes: Any, words: str, build: Build, configs: Any) -> None:
    with pytest.raises(SlotError, match=words):
        build(configs[name], **changes)


@pytest.mark.parametrize("make", [lambda: NoiseRange(0.4, 0.1), lambda: NoiseRange(-1.0), lambda: HeldNoise(longest=0)])
def test_ranges_that_make_no_sense_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(SlotError, match="give"):
        make()


@pytest.mark.parametrize("exploration", [NoiseRange(), HeldNoise()])
def test_more_worlds_than_the_agent_was_built_for_are_refused(exploration: Any, build: Build, configs: Any) -> None:
    agent = build(configs["td3"], exploration=exploration)
    assert agent.act(torch.zeros(1, 3), True).shape == (1, 2)  # fewer are fine: a film, a recording
    with pytest.raises(SlotError, match="num_envs=3"):
        agent.act(torch.zeros(3, 3), True)
