"""ReDo behind an encoder: channels are scored over batch and places, made anew, and silenced in everything that reads the encoder's features."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from steelyard.agents.agent import Execution
from steelyard.agents.dqn import DQN
from steelyard.agents.drqv2 import DrQV2
from steelyard.agents.errors import SlotError
from steelyard.agents.iql import IQL
from steelyard.agents.networks import MLP, Bottleneck, Convolution, SimbaV2
from steelyard.agents.networks.augmentation import RandomShift
from steelyard.agents.networks.encoders import PictureEncoder
from steelyard.agents.networks.hidden import entries
from steelyard.agents.parts import Combined, DensityRatio, Family, HuberBellman, InverseVariance, PlasticityInjection, ReDo
from steelyard.agents.parts.fresh import SEEDS, moments_of
from steelyard.agents.parts.redo import silence
from steelyard.agents.sac import SAC
from steelyard.agents.types import Batch, Spec

SIDE = 8
SPEC = Spec(2 * SIDE**2, 2, 100, picture=(2, SIDE, SIDE), frames=2)
CHOICES = dataclasses.replace(SPEC, action_size=3, discrete=True)
ENCODER = PictureEncoder((3, 4), (3, 3), (2, 1))
"""Channels 3 of 3 x 3 places, then 4 of one place."""
WIDER = PictureEncoder((3, 4), (3, 2), (2, 1))
"""Channels 3 of 3 x 3 places, then 4 of 2 x 2."""
TRUNK = Bottleneck(5, (8,))
DRQ = DrQV2(encoder=WIDER, augmentation=RandomShift(1), actor=TRUNK, critic=TRUNK)
PLAIN: dict[str, Any] = {"encoder": WIDER, "critic": MLP((8,)), "actor": MLP((8,))}
DEAD = 1
"""The channel that is dead in each convolution."""


def build(config: Any, spec: Spec = SPEC, **changes: Any) -> Any:
    config = dataclasses.replace(config, **changes)
    return config.build(spec, num_envs=1, total_updates=100, seed=0, execution=Execution(compile=False))


def draw(seed: int = 0, spec: Spec = SPEC, rows: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    obs, after = torch.randint(0, 256, (2, rows, spec.obs_size), dtype=torch.uint8, generator=generator)
    one = torch.ones(rows)
    action, reward = spec.random_action(rows, generator), torch.randn(rows, generator=generator)
    return Batch(obs, action, reward, after, 0.9 * one, one, torch.arange(rows))


def kill(agent: Any) -> None:
    """One channel of each convolution is dead, and all other units of the encoder live."""
    with torch.no_grad():
        for convolution in agent.encoder.convolutions:
            convolution.bias.fill_(5.0)
            convolution.bias[DEAD] = -1_000.0


def features(agent: Any, obs: Tensor) -> Tensor:
    with torch.no_grad():
        return agent.encoder(obs)


def said(agent: Any, batch: Batch) -> dict[str, Tensor]:
    """What every network behind the encoder says, the copies of learned parts included."""
    seen = features(agent, batch.obs)
    critics = {name: child for name, child in agent.named_modules() if type(child).__name__ in ("Critic", "ChoiceCritic")}
    with torch.no_grad():
        found = {name: critic(seen, batch.action) for name, critic in critics.items()}
        found["action"] = agent.act(batch.obs, False)
        if hasattr(agent, "value"):
            found["value"] = agent.value(seen)[0]
        if hasattr(agent.balance, "body"):
            found["balance"] = agent.balance.body(seen)[0]
        if hasattr(agent.weighting, "ratios"):
            found["action_ratio"], found["state_ratio"] = agent.weighting.ratios(seen, batch.action)
    return found


def test_a_channels_score_is_its_mean_size_over_batch_and_places() -> None:
    """Channels that answer constants 4, 0.1, 1.9 and 0 have the scores 2.67, 0.07, 1.27 and 0."""
    agent = build(DRQ, encoder=ENCODER, plasticity=ReDo(period=1, threshold=0.1))
    with torch.no_grad():
        last = agent.encoder.convolutions[1]
        last.weight.zero_()
        last.bias.copy_(torch.tensor([4.0, 0.1, 1.9, -3.0]))
        # Half of the places of the first channel at 2, the others at 0: a mean of 1 beside 1 and 0.01.
        first = agent.encoder.convolutions[0]
        first.weight.zero_()
        first.bias.copy_(torch.tensor([0.0, 1.0, 0.01]))
        first.weight[0, 0, 1, 1] = 4.0  # of a pixel that is -0.5 or 0.5, which gives 0 or 2
    pictures = torch.zeros(6, 2, SIDE, SIDE, dtype=torch.uint8)
    pictures[:3, 0] = 255
    noise = agent.draw(6)
    agent.plasticity.watch(agent, agent.prepare(draw(), noise)._replace(obs=pictures.flatten(1)), noise)
    of_encoder = [found for found in agent.plasticity.found if found.child == "encoder"]
    assert [found.layer for found in of_encoder] == [0, 1]
    assert of_encoder[0].units.tolist() == [[False, False, True]]
    assert of_encoder[1].units.tolist() == [[False, True, False, True]]


def test_dormant_channels_are_those_of_the_definition() -> None:
    agent = build(DRQ, plasticity=ReDo(period=1, threshold=0.9))
    batch, noise = draw(), agent.draw(6)
    prepared = agent.prepare(batch, noise)
    agent.plasticity.watch(agent, prepared, noise)
    x = prepared.obs.float().view(6, 2, SIDE, SIDE) / 255 - 0.5
    of_encoder = [found for found in agent.plasticity.found if found.child == "encoder"]
    marked = 0
    for convolution, found in zip(agent.encoder.convolutions, of_encoder, strict=True):
        x = F.conv2d(x, convolution.weight, convolution.bias, convolution.stride).relu()
        size = x.detach().abs().mean((0, 2, 3))
        assert torch.equal(found.units, (size / size.mean() <= 0.9)[None])
        marked += int(found.units.sum())
    assert marked > 0


def test_a_recycled_channel_is_fresh_and_silent_and_nothing_else_changes() -> None:
    agent, plain = (build(DRQ, plasticity=ReDo(period, 0.0, networks=("encoder",))) for period in (2, 99))
    for each in (agent, plain):
        each.update(draw(0))
        kill(each)
        each.update(draw(1))
    fresh = agent.twin(SEEDS)
    alive = [channel for channel in range(4) if channel != DEAD]
    (first, last), (old_first, old_last) = agent.encoder.convolutions, plain.encoder.convolutions
    for mine, old, new, others in ((first, old_first, 0, [0, 2]), (last, old_last, 1, alive)):
        start = fresh.encoder.convolutions[new]
        kept = [c for c in range(3) if c != DEAD] if mine is last else [0, 1]
        assert torch.equal(mine.weight[DEAD][kept], start.weight[DEAD][kept])
        assert mine.bias[DEAD].item() == 0
        assert torch.equal(mine.weight[others][:, kept], old.weight[others][:, kept])
        assert torch.equal(mine.bias[others], old.bias[others])
    assert not bool(
        last.weight[:, DEAD].any()
    )  # out of the first convolution's channel, also into a channel that is fresh itself
    pairs, old_pairs = moments_of(agent, "encoder"), moments_of(plain, "encoder")
    for moment, other in zip(pairs[first.weight], old_pairs[old_first.weight], strict=True):
        assert not bool(moment[DEAD].any())
        assert bool(moment[0].any())
        assert torch.equal(moment[[0, 2]], other[[0, 2]])
    assert not any(bool(moment[:, DEAD].any()) for moment in pairs[last.weight])
    for child in ("critic", "target_critic", "actor"):
        trunk, other = (each.get_submodule(child).body.trunk for each in (agent, plain))
        columns, others = trunk.weight.view(5, 4, 4), other.weight.view(5, 4, 4)  # [outputs, channels, places]
        assert not bool(columns[:, DEAD].any())
        assert torch.equal(columns[:, alive], others[:, alive])
        assert bool(others[:, DEAD].all())
        assert torch.equal(trunk.bias, other.bias)
        if child in agent.trained:
            for moment in moments_of(agent, child)[trunk.weight]:
                assert not bool(moment.view(5, 4, 4)[:, DEAD].any())
                assert bool(moment.view(5, 4, 4)[:, 0].any())
    inner, other = (parameters.critic.body.body.state_dict() for parameters in (agent, plain))
    assert all(torch.equal(value, other[name]) for name, value in inner.items())  # networks that were not named stay


EVERY = {
    "drq": (DRQ, SPEC),
    "drq, family": (dataclasses.replace(DRQ, balance=Family(0.5, 1.5, network=TRUNK)), SPEC),
    "drq, huber": (dataclasses.replace(DRQ, objective=HuberBellman(1.0, network=TRUNK)), SPEC),
    "drq, variance": (dataclasses.replace(DRQ, weighting=InverseVariance(network=TRUNK, period=1)), SPEC),
    "sac": (SAC(**PLAIN), SPEC),
    "sac, ratios": (SAC(**PLAIN, weighting=DensityRatio(network=MLP((8,)))), SPEC),
    "iql": (IQL(**PLAIN, value=MLP((8,), layer_norm=True)), SPEC),
    "dqn": (DQN(encoder=WIDER, critic=MLP((8,)), critics=2, dueling=True), CHOICES),
    "dqn, no hidden layer": (DQN(encoder=WIDER, critic=MLP(())), CHOICES),
    "dqn, convolutions": (DQN(encoder=WIDER, critic=Convolution((3,), 2, (8,), size=2), critics=2), CHOICES),
}


@pytest.mark.parametrize("name", EVERY)
def test_recycling_dead_channels_changes_nothing_that_is_said(name: str) -> None:
    config, spec = EVERY[name]
    agent, plain = (build(config, spec, plasticity=ReDo(period, 0.0, networks=("encoder",))) for period in (2, 99))
    for each in (agent, plain):
        kill(each)
        for count in range(2):
            each.update(draw(count, spec))
    batch = draw(7, spec)
    mine, others = said(agent, batch), said(plain, batch)
    assert mine.keys() == others.keys()
    for key, value in mine.items():
        torch.testing.assert_close(value, others[key], rtol=1e-4, atol=1e-5, msg=key)
    changed = features(agent, batch.obs).view(6, 4, -1) != features(plain, batch.obs).view(6, 4, -1)
    assert bool(changed[:, DEAD].any())  # the fresh channel says something, and nobody listens yet
    agent.update(draw(8, spec))
    entry = agent.critic.body.entry()
    columns = entry.weight.flatten(2) if entry.weight.ndim == 4 else entry.weight[..., :16].unflatten(-1, (4, 4))
    assert bool(columns.movedim(-2, 0)[DEAD].any())  # they learn to


def test_columns_of_members_places_and_actions() -> None:
    """A map of two members from two units of three places each, and an action beside them."""
    linear: Any = MLP(()).build(7, (1,), 2).output  # pyright: ignore[reportAttributeAccessIssue]
    with torch.no_grad():
        linear.weight.copy_(torch.arange(1.0, 15.0).view(2, 1, 7))
        moments = {linear.weight: (torch.ones(2, 1, 7), torch.full((2, 1, 7), 2.0))}
        silence(linear, torch.tensor([[False, True]]), moments, 6)
    assert linear.weight.tolist() == [[[1, 2, 3, 0, 0, 0, 7]], [[8, 9, 10, 0, 0, 0, 14]]]
    assert [moment[1].tolist() for moment in moments[linear.weight]] == [[[1, 1, 1, 0, 0, 0, 1]], [[2, 2, 2, 0, 0, 0, 2]]]


@pytest.mark.parametrize("plasticity", [ReDo(2, 0.9), Combined(ReDo(2, 0.9), PlasticityInjection(update=3))])
def test_saved_and_continued_equals_uninterrupted(plasticity: Any) -> None:
    config = dataclasses.replace(DRQ, plasticity=plasticity, weighting=InverseVariance(network=TRUNK, period=2))
    whole, first, resumed = (build(config) for _ in range(3))
    places = {name: parameter.data_ptr() for name, parameter in whole.named_parameters()}
    for count in range(3):
        whole.update(draw(count))
        first.update(draw(count))
    resumed.load_state_dict(first.state_dict())
    for count in range(3, 7):
        assert whole.check(whole.update(draw(count))) is None
        resumed.update(draw(count))
    mine, theirs = whole.state_dict(), resumed.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in mine.items() if isinstance(value, Tensor))
    assert {name: parameter.data_ptr() for name, parameter in whole.named_parameters()} == places


def test_an_injected_networks_copies_are_silenced_too() -> None:
    plasticity = Combined(ReDo(2, 0.0, networks=("encoder",)), PlasticityInjection(update=1))
    agent, plain = (build(DRQ, plasticity=p) for p in (plasticity, PlasticityInjection(update=1)))
    for each in (agent, plain):
        kill(each)
        for count in range(2):
            each.update(draw(count))
    batch = draw(7)
    for key, value in said(plain, batch).items():
        torch.testing.assert_close(said(agent, batch)[key], value, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("critic", [SimbaV2(8, 1), MLP((8,), weight_norm=True)], ids=["simba", "weight norm"])
def test_networks_that_do_not_read_features_by_a_plain_map_are_refused(critic: Any) -> None:
    with pytest.raises(SlotError, match="what critic does first with the encoder's features is another thing"):
        build(SAC(encoder=WIDER, critic=critic, plasticity=ReDo(networks=("encoder",))))
    build(SAC(encoder=WIDER, critic=critic, plasticity=ReDo(networks=("actor",))))


def test_entries_are_found_inside_whatever_holds_networks() -> None:
    agent = build(DRQ)
    assert [*entries(agent.critic)] == [agent.critic.body.trunk]  # not the perceptron behind it
    assert [*entries(torch.nn.Sequential(torch.nn.Linear(2, 2)))] == [None]
    assert [*entries(torch.nn.ReLU())] == []
