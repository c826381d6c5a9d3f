"""Encoders, augmentation and DrQ-v2, against the definitions of their papers and released code."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from steelyard.agents import meters
from steelyard.agents.agent import Execution
from steelyard.agents.bc import BC
from steelyard.agents.cql import CQL
from steelyard.agents.dqn import DQN
from steelyard.agents.drqv2 import DrQV2
from steelyard.agents.errors import SlotError
from steelyard.agents.iql import IQL
from steelyard.agents.networks import MLP, Bottleneck
from steelyard.agents.networks.augmentation import RandomShift, shift
from steelyard.agents.networks.encoders import ATARI, PictureEncoder
from steelyard.agents.networks.normalizers import RunningNorm
from steelyard.agents.networks.scheduled_noise import ScheduledNoise
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import Ensemble, Family, HuberBellman, InverseVariance, L2Init, ReDo, Reset, SpectralRegularization
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.agents.types import Batch, Spec, Step

SIDE = 12
SPEC = Spec(6 * SIDE**2, 2, 100, picture=(6, SIDE, SIDE), frames=2)
CHOICES = dataclasses.replace(SPEC, action_size=3, discrete=True)
SMALL = PictureEncoder((4, 5), (3, 3), (2, 1))
EAGER = Execution(compile=False)
TINY: dict[str, Any] = {"encoder": SMALL, "augmentation": RandomShift(2), "critic": MLP((8,))}
DRQ = DrQV2(encoder=SMALL, augmentation=RandomShift(2), actor=Bottleneck(5, (8,)), critic=Bottleneck(5, (8,)))


def build(config: Any, spec: Spec = SPEC, seed: int = 0) -> Any:
    return config.build(spec, num_envs=1, total_updates=100, seed=seed, execution=EAGER)


def draw(seed: int = 0, rows: int = 6, spec: Spec = SPEC) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def pictures() -> Tensor:
        return torch.randint(0, 256, (rows, spec.obs_size), dtype=torch.uint8, generator=generator)

    return Batch(
        obs=pictures(),
        action=spec.random_action(rows, generator),
        reward=torch.randn(rows, generator=generator),
        next_obs=pictures(),
        discount=torch.full((rows,), 0.9),
        weight=torch.ones(rows),
        index=torch.arange(rows),
    )


def resampled(pictures: Tensor, pixels: Tensor, padding: int) -> Tensor:
    """DrQ-v2's augmentation as its paper describes it: pad by repetition, then bilinear resampling of a shifted grid."""
    rows, _, side, _ = pictures.shape
    padded = F.pad(pictures.float(), (padding,) * 4, mode="replicate")
    whole = side + 2 * padding
    line = torch.linspace(-1 + 1 / whole, 1 - 1 / whole, whole)[:side]
    y, x = torch.meshgrid(line, line, indexing="ij")
    grid = torch.stack((x, y), -1).expand(rows, -1, -1, -1) + (2 / whole * (pixels + padding)).flip(-1)[:, None, None]
    return F.grid_sample(padded, grid, padding_mode="zeros", align_corners=False)


def test_a_shift_equals_resampling_the_padded_picture() -> None:
    pictures = torch.randint(0, 256, (25, 3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = torch.cartesian_prod(torch.arange(-2, 3), torch.arange(-2, 3))
    moved = shift(pictures, pixels)
    assert moved.dtype == torch.uint8
    torch.testing.assert_close(moved.float(), resampled(pictures, pixels, 2), atol=2e-2, rtol=0)
    down = shift(pictures[:1], torch.tensor([[1, -2]]))[0, 0]
    assert torch.equal(down[0, 2:], pictures[0, 0, 1, :-2])
    assert torch.equal(down[0, :2], pictures[0, 0, 1, :1].expand(2))


def test_a_shift_is_one_operation_to_the_compiler() -> None:
    pictures = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.library.opcheck(shift, (pictures, torch.tensor([[0, 0], [1, -2], [-1, 2], [2, 1]])))
    # Of a transposed picture too, whose copy lies in memory as the compiler is told.
    torch.library.opcheck(shift, (pictures.transpose(2, 3), torch.zeros(4, 2, dtype=torch.int64)))


def test_shifts_are_uniform_and_differ_between_an_observation_and_its_successor() -> None:
    module: Any = RandomShift(1).build(Spec(9, 2, picture=(1, 3, 3), frames=1))
    assert module.draws == 3
    noise = torch.randn(3, 30_000, 2, generator=torch.Generator().manual_seed(0))
    batch = draw()._replace(
        obs=torch.arange(9, dtype=torch.uint8).repeat(30_000, 1), next_obs=torch.arange(9, dtype=torch.uint8).repeat(30_000, 1)
    )
    seen = module(batch, noise)
    centre, after = seen.obs[:, 4].long(), seen.next_obs[:, 4].long()
    counts = torch.bincount(centre * 9 + after, minlength=81).float()
    assert counts.shape == (81,)
    assert (counts / 30_000 * 81 - 1).abs().max() < 0.25  # nine places each, independent of one another


def test_brightness_multiplies_a_picture_by_at_most_two_deviations() -> None:
    module: Any = RandomShift(0, 0.05).build(SPEC)
    noise = torch.zeros(3, 2, 2)
    noise[1, 0, 0], noise[1, 1, 0] = 10.0, -1.0  # the third number of each sample: the brightness of obs
    seen = module(draw(rows=2), noise)
    torch.testing.assert_close(seen.obs[0], draw(rows=2).obs[0] * 1.1)
    torch.testing.assert_close(seen.obs[1], draw(rows=2).obs[1] * 0.95)
    assert torch.equal(seen.next_obs, draw(rows=2).next_obs.float())


def test_the_encoder_is_that_of_drq_v2() -> None:
    spec = Spec(9 * 84**2, 6, picture=(9, 84, 84), frames=3)
    encoder: Any = PictureEncoder().build(spec)
    assert encoder.spec.obs_size == 39_200
    assert encoder.spec.picture == (32, 35, 35)
    picture = draw(rows=2, spec=spec).obs
    x = picture.view(2, 9, 84, 84) / 255.0 - 0.5
    for layer, stride in zip(encoder.convolutions, (2, 1, 1, 1), strict=True):
        x = F.conv2d(x, layer.weight, layer.bias, stride).relu()
    torch.testing.assert_close(encoder(picture), x.flatten(1))
    weight = encoder.convolutions[0].weight.flatten(1)
    torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(32), atol=1e-5, rtol=0)  # orthogonal, gain sqrt 2
    atari: Any = ATARI.build(Spec(4 * 84**2, 6, picture=(4, 84, 84), frames=4))
    assert atari.spec.obs_size == 7 * 7 * 64


def test_the_bottleneck_is_shared_and_the_action_passes_by_it() -> None:
    body: Any = Bottleneck(5, (7,)).build(11, (1,), 2, beside=2)
    x = torch.randn(4, 11)
    features = F.layer_norm(F.linear(x[:, :9], body.trunk.weight, body.trunk.bias), (5,)).tanh()
    torch.testing.assert_close(body(x)[0], body.body(torch.cat((features, x[:, 9:]), -1))[0])
    assert body(x)[0].shape == (2, 4, 1)
    alone: Any = Bottleneck(5, (7,)).build(9, (3,))
    assert alone(x[:, :9])[0].shape == (4, 3)


def test_layers_behind_the_bottleneck_are_of_the_named_kind() -> None:
    config = Bottleneck(5, (8, 6), layer_norm=True, activation="crelu", weight_norm=True)
    body: Any = config.build(11, (1,), 2, beside=2)
    assert body.body.config == MLP((8, 6), gain=1.0, layer_norm=True, activation="crelu", weight_norm=True)
    x = torch.randn(4, 11)
    features = F.layer_norm(F.linear(x[:, :9], body.trunk.weight, body.trunk.bias), (5,)).tanh()
    torch.testing.assert_close(body(x)[0], body.body(torch.cat((features, x[:, 9:]), -1))[0])
    with pytest.raises(SlotError, match="CReLU gives two features per unit"):
        Bottleneck(5, (7,), activation="crelu")
    with pytest.raises(SlotError, match="features of Bottleneck is 0"):
        Bottleneck(0)


def test_the_encoder_is_trained_by_the_critics_loss_in_one_joint_step() -> None:
    agent, other = build(DRQ), build(DRQ)
    batch, generator = draw(), agent.generators["update"].get_state()
    noise = other.draw(6)
    with torch.no_grad():
        seen = other.prepare(batch, noise)
    features = other.encoder(seen.obs)
    loss = other.critic_loss(seen._replace(obs=features), noise, {})[0]
    joint = torch.autograd.grad(loss, [*other.encoder.parameters(), *other.critic.parameters()])
    agent.generators["update"].set_state(generator)
    before = [p.detach().clone() for p in (*agent.encoder.parameters(), *agent.critic.parameters())]
    metrics = agent.update(batch)
    after = [p.detach() for p in (*agent.encoder.parameters(), *agent.critic.parameters())]
    for old, new, gradient in zip(before, after, joint, strict=True):
        torch.testing.assert_close(
            new, old - 1e-4 * gradient / (gradient.abs() + 1e-8), atol=1e-6, rtol=1e-4
        )  # Adam's first step
    torch.testing.assert_close(metrics["encoder_loss"], metrics["critic_loss"])
    assert "features" not in metrics


def test_the_policy_climbs_the_smaller_value_of_the_new_critic_on_the_old_features() -> None:
    agent, other = build(DRQ), build(DRQ)
    noise = torch.randn(agent.draws, 6, 2, generator=torch.Generator().manual_seed(3))
    batch = draw()
    with torch.no_grad():
        seen = other.prepare(batch, noise)
        features = other.encoder(seen.obs)
    metrics = agent.apply_update(agent.due(1), batch, noise)
    std = 1.0
    body = other.actor.body(features)[0].tanh()
    action = body + (std * noise[1]).clamp(-0.3, 0.3)
    action = action.clamp(-1 + 1e-6, 1 - 1e-6)
    value = agent.critic(features, action).squeeze(-1)
    torch.testing.assert_close(metrics["actor_loss"], -value.amin(0).mean())


def test_targets_read_the_present_encoder_and_the_slow_critic() -> None:
    agent = build(DRQ)
    for seed in range(3):
        agent.update(draw(seed))
    noise, batch = agent.draw(6), draw(9)
    with torch.no_grad():
        seen = agent.prepare(batch, noise)
        pixels = agent.augmentation.pixels(noise[2:5].transpose(0, 1).flatten(1)[:, 3:5])
        shown = shift(batch.next_obs.view(6, 6, SIDE, SIDE), pixels).flatten(1)
        torch.testing.assert_close(seen.next_obs, agent.encoder(shown))
        action = (agent.actor(seen.next_obs) + noise[0].clamp(-0.3, 0.3)).clamp(-1 + 1e-6, 1 - 1e-6)
        value = agent.target_critic(seen.next_obs, action).squeeze(-1).amin(0)
        target = agent.backup(agent.target_critic, seen, noise).squeeze(-1)
    torch.testing.assert_close(target, batch.reward + 0.9 * value)
    assert not any("encoder" in name for name in dict(agent.target_critic.named_parameters()))


def test_noise_shrinks_with_the_transitions_and_is_bounded_in_updates_alone() -> None:
    agent = build(dataclasses.replace(DRQ, noise=ScheduledNoise(1.0, 0.2, 4)))
    blank = torch.zeros(1, SPEC.obs_size, dtype=torch.uint8)
    no, yes = torch.zeros(1, dtype=torch.bool), torch.ones(1, dtype=torch.bool)
    expected = [1.0, 0.8, 0.6, 0.4, 0.2, 0.2]
    for deviation in expected:
        assert float(agent.actor.deviation()) == pytest.approx(deviation)
        agent.observe(Step(blank, blank, torch.zeros(1), no, no, yes, {}))
    agent.observe(Step(blank, blank, torch.zeros(1), no, no, no, {}))  # a reset is no transition
    assert float(agent.actor.transitions) == len(expected)
    agent.actor.transitions.zero_()
    features = torch.zeros(1, agent.seen.obs_size)
    noise = torch.tensor([[0.9, -0.2]])
    mean = agent.actor(features)
    torch.testing.assert_close(
        agent.actor.propose(features, noise), (mean + torch.tensor([[0.3, -0.2]])).clamp(-1 + 1e-6, 1 - 1e-6)
    )
    torch.testing.assert_close(agent.actor.sample(features, noise), (mean + noise).clamp(-1 + 1e-6, 1 - 1e-6))


def test_a_cut_action_keeps_its_gradient() -> None:
    agent = build(DRQ)
    with torch.no_grad():
        agent.actor.body.body.output.bias.fill_(1.5)
    features = torch.zeros(1, agent.seen.obs_size)
    action = agent.actor.propose(features, torch.full((1, 2), 5.0))
    assert torch.equal(action.detach(), torch.full((1, 2), 1 - 1e-6))
    (gradient,) = torch.autograd.grad(action.sum(), agent.actor.body.body.output.bias)
    torch.testing.assert_close(gradient, 1 - agent.actor(features)[0].square())


@pytest.mark.parametrize(
    ("config", "spec"),
    [
        (SAC(actor=MLP((8,)), **TINY), SPEC),
        (TD3(actor=MLP((8,)), **TINY), SPEC),
        (IQL(actor=MLP((8,)), value=MLP((8,)), **TINY), SPEC),
        (CQL(actor=MLP((8,)), samples=2, **TINY), SPEC),
        (BC(actor=MLP((8,)), encoder=SMALL, augmentation=RandomShift(2)), SPEC),
        (DQN(double=True, dueling=True, **TINY), CHOICES),
        (dataclasses.replace(DRQ, balance=Family(1.0, 5.0, network=MLP((8,)))), SPEC),
        (dataclasses.replace(DRQ, objective=HuberBellman(1.0, network=Bottleneck(5, (8,)))), SPEC),
        (dataclasses.replace(DRQ, weighting=InverseVariance(network=Bottleneck(5, (8,)), period=2)), SPEC),
    ],
    ids=["sac", "td3", "iql", "cql", "bc", "dqn", "drq-family", "drq-huber", "drq-variance"],
)
def test_every_agent_learns_and_acts_from_pictures_and_continues_exactly(config: Any, spec: Spec) -> None:
    agent = build(config, spec)
    before = [p.clone() for p in agent.encoder.parameters()]
    for seed in range(2):
        metrics = agent.update(draw(seed, spec=spec))
    assert all(bool(value.isfinite().all()) for value in metrics.values())
    assert all(not torch.equal(old, new) for old, new in zip(before, agent.encoder.parameters(), strict=True))
    resumed = build(config, spec, seed=5)
    resumed.load_state_dict(agent.state_dict())
    for each in (agent, resumed):
        each.update(draw(7, spec=spec))
    state, other = agent.state_dict(), resumed.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in state.items() if isinstance(value, Tensor))
    obs = draw(3, spec=spec).obs
    torch.testing.assert_close(agent.act(obs, explore=False), agent.policy()(obs))
    assert agent.act(obs, explore=True).shape == (6, spec.action_size)


def test_the_encoder_sees_gradients_of_its_teacher_alone() -> None:
    agent = build(dataclasses.replace(DRQ, optimizer=Adam(0.0), actor_optimizer=Adam(1e-2)))
    before = [p.clone() for p in agent.encoder.parameters()]
    agent.update(draw())
    assert all(torch.equal(old, new) for old, new in zip(before, agent.encoder.parameters(), strict=True))


def test_meters_see_an_encoder_and_what_stands_behind_it() -> None:
    agent = build(DRQ)
    batch, noise = draw(), agent.draw(6)
    with torch.no_grad():
        prepared = agent.prepare(batch, noise)
        measured = meters.measure(agent, prepared, noise)
        features = agent.encoder(prepared.obs)
        seen = meters.critic_activities(agent, prepared, noise)
    assert {"encoder/weight_norm", "critic/active", "critic/effective_rank", "actor/active"} <= measured.keys()
    maps = [(agent.encoder.convolutions[0](first) > 0) for first in [prepared.obs.view(6, 6, SIDE, SIDE) / 255 - 0.5]]
    positive = maps[0].sum() + (features > 0).sum()
    torch.testing.assert_close(measured["encoder_convolutions/active"], positive / (maps[0].numel() + features.numel()))
    compressed = agent.critic.body.norm(agent.critic.body.trunk(features)).tanh()
    first = agent.critic.body.body.layers[0](torch.cat((compressed, batch.action), -1)).relu()
    assert len(seen) == 1  # neither the encoder's layers nor the bottleneck's
    torch.testing.assert_close(seen[0].values, first)


@pytest.mark.parametrize(
    "part", [Reset(2, keep=("encoder",)), ReDo(2, networks=("critic", "actor")), L2Init(), SpectralRegularization()]
)
def test_interventions_work_behind_an_encoder(part: Any) -> None:
    agent = build(dataclasses.replace(DRQ, plasticity=part))
    for seed in range(3):
        metrics = agent.update(draw(seed))
    assert all(bool(value.isfinite().all()) for value in metrics.values())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: build(DRQ, Spec(17, 2)), "RandomShift needs pictures"),
        (lambda: build(dataclasses.replace(DRQ, augmentation=SAC().augmentation), Spec(17, 2)), "PictureEncoder needs pictures"),
        (lambda: build(DrQV2(), dataclasses.replace(SPEC, picture=(6, 8, 8), obs_size=384)), "8 x 8 are too small"),
        (lambda: build(dataclasses.replace(DRQ, observations=RunningNorm())), "scaled by their encoder"),
        (lambda: build(SAC()), "use the encoder PictureEncoder"),
        (lambda: build(dataclasses.replace(DRQ, model=Ensemble())), "use the model NoModel"),
        (lambda: PictureEncoder((8, 8), (3,), (1,)), "2 channels, 1 kernels and 1 strides"),
        (lambda: RandomShift(-1), "padding -1"),
        (lambda: ScheduledNoise(decay_steps=0), "0 steps"),
        (lambda: build(DRQ, CHOICES), "use a DQN preset"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, sentence: str) -> None:
    with pytest.raises(SlotError) as caught:
        make()
    assert sentence in str(caught.value)
