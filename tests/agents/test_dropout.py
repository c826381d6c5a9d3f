"""Dropout: hand values of its masks, only in the loss of its own network, the same after a resume, and in one graph."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from steelyard.agents.agent import Execution
from steelyard.agents.errors import SlotError
from steelyard.agents.iql import IQL
from steelyard.agents.networks import MLP
from steelyard.agents.networks.dropout import Dropout, scrambled
from steelyard.agents.types import Batch

Build = Callable[..., Any]
DrawBatch = Callable[..., Batch]
DROPPING = IQL(actor=MLP((16, 16), dropout=0.25), critic=MLP((16,)), value=MLP((16,)))


def plain_hash(x: int) -> int:
    """The hash in Python's own integers."""
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) % 2**32
    x = ((x ^ (x >> 15)) * 0x735A2D97) % 2**32
    return x ^ (x >> 15)


def test_the_hash_is_that_of_32_bit_numbers() -> None:
    numbers = [0, 1, 2, 12345, 2**31 - 1, 2**31, 2**32 - 1]
    assert scrambled(torch.tensor(numbers)).tolist() == [plain_hash(number) for number in numbers]


def test_masks_are_the_hash_of_place_and_key() -> None:
    layer, x = Dropout(0.25), torch.arange(1.0, 13.0).view(3, 4)
    assert torch.equal(layer(x), x)
    layer.key = torch.tensor(77)
    keep = [plain_hash(plain_hash(place) ^ 77) >= 2**30 for place in range(12)]
    assert 0 < sum(keep) < 12
    expected = [value / 0.75 if kept else 0.0 for value, kept in zip(x.flatten().tolist(), keep, strict=True)]
    assert layer(x).flatten().tolist() == pytest.approx(expected)


def test_features_are_kept_with_their_probability_and_scaled_to_the_same_mean() -> None:
    layer, x = Dropout(0.1), torch.ones(2, 256, 256)
    masks = []
    for steps in (0, 1, 1000):
        layer.key = layer.make_key(torch.tensor(float(steps)))
        masks.append(layer(x))
        kept = masks[-1] > 0
        assert float(kept.float().mean()) == pytest.approx(0.9, abs=5 * (0.09 / x.numel()) ** 0.5)
        assert torch.equal(masks[-1][kept].unique(), torch.tensor([1 / 0.9]))
        # Neither rows, nor columns, nor members share a mask.
        for axis in range(3):
            both = (kept & kept.roll(1, axis)).float().mean()
            assert float(both) == pytest.approx(0.81, abs=0.005)
    agreement = (masks[0] == masks[1]).float().mean()
    assert float(agreement) == pytest.approx(0.82, abs=0.005), "masks of successive updates are independent"


def test_only_the_loss_of_the_network_itself_drops(build: Build, draw_batch: DrawBatch) -> None:
    agent, without = build(DROPPING), build(DROPPING, actor=MLP((16, 16)))
    without.load_state_dict({key: value for key, value in agent.state_dict().items() if "dropouts" not in key})
    batch, noise = agent.prepare(draw_batch(0), agent.draw(8)), agent.draw(8)
    for explore in (False, True):
        assert torch.equal(agent.act(batch.obs, explore), without.act(batch.obs, explore))
    losses: dict[str, Any] = {}
    for name in agent.losses:
        losses[name] = [each.evaluate(each.own(name), name, batch, noise, {})[0] for each in (agent, without)]
    assert torch.equal(*losses["value"])
    assert torch.equal(*losses["critic"])
    assert not torch.equal(*losses["actor"])
    assert all(layer.key is None for layer in agent.actor.body.dropouts)
    # By hand: the same masks, given to the layers themselves.
    for layer in agent.actor.body.dropouts:
        layer.key = layer.make_key(agent.optimizers["actor"].steps)
    assert torch.equal(agent.actor_loss(batch, noise, {})[0], losses["actor"][0])


def test_gradients_do_not_flow_through_dropped_features() -> None:
    network = MLP((8,), dropout=0.5).build(3, (1,))
    (layer,) = network.get_submodule("dropouts").children()
    assert isinstance(layer, Dropout)
    layer.key = torch.tensor(5)
    x = torch.randn(1, 3, generator=torch.Generator().manual_seed(0))
    network(x)[0].sum().backward()
    dropped = layer(torch.ones(1, 8))[0] == 0
    gradient = network.get_parameter("layers.0.weight").grad
    assert gradient is not None
    assert dropped.any()
    assert not gradient[dropped].any()


def test_each_layer_and_update_has_a_mask_of_its_own(build: Build, draw_batch: DrawBatch) -> None:
    agent, keys = build(DROPPING), []
    for count in range(4):
        keys += [int(key) for key in agent.dropout_keys("actor").values()]
        assert not agent.dropout_keys("critic")
        agent.update(draw_batch(count))
    assert len(set(keys)) == 8


def test_stopping_and_resuming_changes_nothing(build: Build, draw_batch: DrawBatch) -> None:
    straight, stopped = build(DROPPING), build(DROPPING)
    for count in range(3):
        straight.update(draw_batch(count))
        stopped.update(draw_batch(count))
    resumed = build(DROPPING, seed=9)
    resumed.load_state_dict(stopped.state_dict())
    for count in range(3, 6):
        expected, got = straight.update(draw_batch(count)), resumed.update(draw_batch(count))
        assert all(torch.equal(got[key], value) for key, value in expected.items())


def test_no_dropout_is_no_layer(build: Build) -> None:
    agent = build(dataclasses.replace(DROPPING, actor=MLP((16, 16), dropout=0.0)))
    assert not any(isinstance(module, Dropout) for module in agent.modules())
    assert not any("dropout" in key for key in agent.state_dict())


def test_the_update_stays_one_graph(build: Build, draw_batch: DrawBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = torch.compile
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda function, **given: compiler(function, **given, backend="aot_eager"))
    eager, compiled = build(DROPPING), build(DROPPING, execution=Execution(compile=True))
    for count in range(4):
        expected, got = eager.update(draw_batch(count)), compiled.update(draw_batch(count))
        for key, value in expected.items():
            torch.testing.assert_close(got[key], value, rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2.0])
def test_impossible_probabilities_are_refused(rate: float) -> None:
    with pytest.raises(SlotError, match="give a probability below 1"):
        MLP(dropout=rate).build(3, (1,))
