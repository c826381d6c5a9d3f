"""DQN and its kin: targets by hand, exploration by chance, and the probe worlds whose actions are choices."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from steelyard import envs
from steelyard.agents.agent import Execution
from steelyard.agents.dqn import DQN
from steelyard.agents.errors import SlotError
from steelyard.agents.networks import MLP, Convolution, SimbaV2
from steelyard.agents.networks.greedy import EpsilonGreedy
from steelyard.agents.networks.heads import Categorical
from steelyard.agents.networks.normalizers import RunningNorm
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import ClippedSemiGradient, Greedy, HuberBellman, InverseVariance, Munchausen
from steelyard.agents.td3 import TD3
from steelyard.agents.types import Batch, Spec, Step
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.samplers import Uniform

EAGER = Execution(compile=False)
TASK = Spec(3, 4, discrete=True)


def make(config: DQN, spec: Spec = TASK, seed: int = 0) -> Any:
    return config.build(spec, num_envs=2, total_updates=100, seed=seed, execution=EAGER)


def draw(seed: int = 0, rows: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    obs, next_obs = torch.randn(2, rows, 3, generator=generator)
    discount = 0.9 * (torch.arange(rows) % 3 > 0).float()
    reward = torch.randn(rows, generator=generator)
    return Batch(obs, TASK.random_action(rows, generator), reward, next_obs, discount, torch.ones(rows), torch.arange(rows))


def diverged(agent: Any) -> Any:
    """The agent with a target network that is not its critic."""
    with torch.no_grad():
        for p in agent.target_critic.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return agent


def table(agent: Any, network: Any, obs: Tensor) -> Tensor:
    return network.every(obs)[0, :, :, 0].detach()


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_the_target_by_hand(double: bool, dueling: bool, share: float) -> None:
    agent = diverged(make(DQN(critic=MLP((16,)), double=double, dueling=dueling, improvement=Greedy(share))))
    batch = draw()
    values = table(agent, agent.target_critic, batch.next_obs)
    best = (table(agent, agent.critic, batch.next_obs) if double else values).argmax(-1)
    value = (1 - share) * values[torch.arange(8), best] + share * values.mean(-1)
    expected = batch.reward + batch.discount * value
    torch.testing.assert_close(agent.backup(agent.target_critic, batch, agent.draw(8))[:, 0], expected)
    error = table(agent, agent.critic, batch.obs)[torch.arange(8), batch.action.argmax(-1)] - expected
    torch.testing.assert_close(agent.critic_loss(batch, agent.draw(8), {})[0].detach(), 0.5 * error.square().mean())


def test_the_target_of_m_dqn_by_hand() -> None:
    """Vieillard et al. 2020, equation 3: the clip is on tau log pi, and the bonus of a terminal step is not masked."""
    agent = diverged(make(DQN(critic=MLP((16,)), improvement=Munchausen(0.3, 0.9, -0.6))))
    batch = draw()
    here, there = (table(agent, agent.target_critic, obs).double() for obs in (batch.obs, batch.next_obs))
    bonus = (0.3 * torch.log(torch.softmax(here / 0.3, -1)))[torch.arange(8), batch.action.argmax(-1)]
    policy = torch.softmax(there / 0.3, -1)
    value = (policy * (there - 0.3 * policy.log())).sum(-1)
    expected = batch.reward + 0.9 * bonus.clamp(-0.6, 0) + batch.discount * value
    torch.testing.assert_close(
        agent.backup(agent.target_critic, batch, agent.draw(8))[:, 0].double(), expected, rtol=1e-4, atol=1e-5
    )
    assert bool((bonus < -0.6).any())
    assert bool((bonus > -0.6).any())


def test_a_cold_m_dqn_without_its_bonus_is_dqn() -> None:
    plain, cold = (make(DQN(critic=MLP((16,)), improvement=i)) for i in (Greedy(), Munchausen(1e-4, 0.0)))
    batch = draw()
    one, two = (agent.backup(agent.target_critic, batch, agent.draw(8)) for agent in (plain, cold))
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


def test_a_categorical_critic_moves_the_distribution_of_the_best_action() -> None:
    agent = diverged(make(DQN(critic=MLP((16,)), head=Categorical(21, -5.0, 5.0), improvement=Greedy(0.2))))
    batch = draw()
    probabilities = agent.target_critic.every(batch.next_obs)[0].softmax(-1)
    support = torch.linspace(-5, 5, 21)
    best = (probabilities @ support).argmax(-1)
    mixed = 0.8 * probabilities[torch.arange(8), best] + 0.2 * probabilities.mean(1)
    target = agent.backup(agent.target_critic, batch, agent.draw(8))
    moved = (batch.reward[:, None] + batch.discount[:, None] * support).clamp(-5, 5)
    expected = (mixed * moved).sum(-1)
    torch.testing.assert_close(target.sum(-1), torch.ones(8))
    torch.testing.assert_close((target @ support), expected, rtol=1e-4, atol=1e-4)


def test_dueling_values_have_the_state_value_as_their_mean() -> None:
    agent = make(DQN(critic=MLP((16,)), dueling=True))
    obs = draw().obs
    _, value = agent.critic.body(obs)
    torch.testing.assert_close(agent.critic.every(obs).mean(-2), value)


def test_the_target_network_is_copied_at_every_period() -> None:
    agent = make(DQN(critic=MLP((16,)), target_period=3))
    for count in range(1, 7):
        before = [p.clone() for p in agent.target_critic.parameters()]
        agent.update(draw(count))
        now, critic = list(agent.target_critic.parameters()), list(agent.critic.parameters())
        if count % 3:
            assert all(torch.equal(a, b) for a, b in zip(before, now, strict=True))
        else:
            assert all(torch.equal(a, b) for a, b in zip(critic, now, strict=True))


def test_random_choices_have_the_probability_epsilon_and_are_uniform() -> None:
    agent = make(DQN(critic=MLP((16,)), exploration=EpsilonGreedy(0.5, 0.2, 100)))
    obs = torch.zeros(60_000, 3)
    best = int(agent.act(obs[:1], explore=False).argmax())
    no = torch.zeros(2, dtype=torch.bool)
    step = Step(obs[:2], obs[:2], torch.zeros(2), no, no, ~no, {})
    for transitions, epsilon in ((0, 0.5), (50, 0.35), (100, 0.2), (150, 0.2)):
        while int(agent.exploration.transitions) < transitions:
            agent.observe(step)
        action = agent.act(obs, explore=True)
        assert bool(((action == 0) | (action == 1)).all())
        assert bool((action.sum(-1) == 1).all())
        shares = action.mean(0)
        for choice in range(4):
            assert float(shares[choice]) == pytest.approx(epsilon / 4 + (1 - epsilon) * (choice == best), abs=0.01)
    assert bool((agent.act(obs, explore=False).argmax(-1) == best).all())


def test_counted_transitions_are_saved() -> None:
    agent, other = make(DQN(critic=MLP((16,)))), make(DQN(critic=MLP((16,))), seed=1)
    no = torch.zeros(2, dtype=torch.bool)
    agent.observe(Step(draw().obs[:2], draw().obs[:2], torch.zeros(2), no, no, torch.tensor([True, False]), {}))
    other.load_state_dict(agent.state_dict())
    assert float(other.exploration.transitions) == 1.0


def test_exported_and_exploring_policies_choose_as_the_agent_does() -> None:
    agent = make(DQN(critic=MLP((16,)), observations=RunningNorm(), exploration=EpsilonGreedy(0.0, 0.0)))
    obs = draw().obs
    assert torch.equal(agent.policy()(obs), agent.act(obs, explore=False))
    assert torch.equal(agent.explorer()(obs, torch.Generator().manual_seed(0)), agent.act(obs, explore=False))


def test_a_convolution_is_that_of_torch_and_each_member_has_its_own() -> None:
    body: Any = Convolution((5,), 3, (7,), size=4).build(32, (3, 2), 2)
    x = torch.randn(6, 32)
    one, two = body(x)
    assert one.shape == (2, 6, 3)
    assert two.shape == (2, 6, 2)
    for member in range(2):
        filters = body.convolutions[0]
        maps = torch.nn.functional.conv2d(
            x.view(6, 2, 4, 4), filters.weight[5 * member : 5 * member + 5], filters.bias[5 * member : 5 * member + 5]
        )
        hidden = (maps.relu().flatten(1) @ body.layers[0].weight[member].T + body.layers[0].bias[member]).relu()
        output = hidden @ body.output.weight[member].T + body.output.bias[member]
        torch.testing.assert_close(torch.cat((one, two), -1)[member], output)
    alone: Any = Convolution((5,), 3, (7,), size=4).build(32, (3,))
    assert alone(x)[0].shape == (6, 3)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: make(DQN(critic=Convolution()), Spec(17, 3, discrete=True)), "17 numbers is no picture of 10 x 10"),
        (lambda: Convolution((8,) * 5).build(100, (1,)), "5 kernels of 3 leave nothing of 10 x 10"),
        (lambda: make(DQN(), Spec(3, 2)), "DQN needs a few choices of action"),
        (lambda: TD3().build(TASK, num_envs=1, total_updates=1, seed=0, execution=EAGER), "TD3 needs actions in a box"),
        (lambda: EpsilonGreedy(1.5), "give probabilities"),
        (lambda: EpsilonGreedy(decay_steps=0), "one step or more"),
        (lambda: Munchausen(0.0), "temperature of Munchausen is 0.0; give a positive number"),
        (lambda: Munchausen(weight=1.5), "weight of Munchausen is 1.5"),
        (lambda: Munchausen(lowest=0.5), "lowest of Munchausen is 0.5"),
        (lambda: Greedy(1.5), "random_share of Greedy is 1.5"),
    ],
)
def test_what_makes_no_sense_is_refused(build: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(SlotError, match=sentence):
        build()


VARIANTS = {
    "dqn": DQN(),
    "double-dueling": DQN(double=True, dueling=True),
    "m-dqn": DQN(improvement=Munchausen(0.03, 0.0)),
    "clipped": DQN(objective=ClippedSemiGradient()),
    "qrc-huber": DQN(objective=HuberBellman(1.0, network=MLP((32,), output_gain=0.0), optimizer=Adam(1e-2))),
    "dvw": DQN(weighting=InverseVariance(MLP((16,)), period=10)),
    "c51": DQN(head=Categorical(21, -1.0, 2.0)),
    "twin-simba-v2": DQN(critic=SimbaV2(32, 1), critics=2, head=Categorical(51, -3.0, 3.0)),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("task", ["probe-choice", "probe-choice-observation", "probe-choice-discount"])
def test_the_probes_of_choice_are_solved(name: str, task: str) -> None:
    """Values of the choices taken, and the right choice, within a few hundred updates."""
    config: Any = VARIANTS[name]
    critic = config.critic if isinstance(config.critic, SimbaV2) else MLP((32,))
    config = dataclasses.replace(config, critic=critic, optimizer=Adam(1e-2), discount=0.5, target_period=5, batch_size=64)
    env = envs.make(task, 64)
    agent: Any = config.build(env.spec, num_envs=64, total_updates=300, seed=0, execution=EAGER)
    buffer = ReplayBuffer(env.spec, 64 * 12, num_envs=64)
    obs, generator = env.reset(0), torch.Generator().manual_seed(0)
    for _ in range(10):
        action = env.spec.random_action(64, generator)
        step = env.step(action)
        buffer.add(obs, action, step)
        obs = step.obs
    sampler = Uniform().build(buffer, 64, 1, agent.gamma, 0)
    for _ in range(300):
        agent.update(sampler.gather(sampler.noise()))
    if task == "probe-choice":
        expected = {(0.0,): [0.0, 0.0, 1.0]}
    elif task == "probe-choice-observation":
        expected = {(-0.7,): [1.0, 0.0], (0.6,): [0.0, 1.0]}
    else:
        expected = {(0.0,): [0.5, 0.5], (1.0,): [0.0, 1.0]}
    for seen, values in expected.items():
        found = agent.head.value(agent.critic.every(torch.tensor([seen])))[:, 0].detach()
        for row in found:
            assert row.tolist() == pytest.approx(values, abs=0.15), (seen, row)
