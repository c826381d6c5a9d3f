"""Meters have the values that their definitions say, on networks whose units were set by hand, and change nothing."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from steelyard.agents import meters
from steelyard.agents.agent import Execution
from steelyard.agents.dqn import DQN
from steelyard.agents.errors import SlotError
from steelyard.agents.networks import MLP, Convolution, SimbaV2
from steelyard.agents.networks.hidden import Activity, HiddenLayer, hidden_layers, watched
from steelyard.agents.networks.matrices import gains, matrices
from steelyard.agents.types import Batch, Spec


def activity(values: Tensor) -> Activity:
    layer = torch.nn.Linear(1, 1)
    return Activity(HiddenLayer(layer, None, layer, values.shape[0]), values)


def outputs(network: torch.nn.Module, x: Tensor) -> list[Activity]:
    with torch.no_grad(), watched(network) as recorders:
        network(x)
    return [activity for recorder in recorders for activity in recorder.activities()]


def test_a_fresh_critic_has_half_of_its_units_active(build: Callable[..., Any], draw_batch: Callable[..., Batch], configs: Any):
    agent = build(configs["sac"], critic=MLP((256, 256)))
    share = meters.active_share(meters.critic_activities(agent, draw_batch(0, 256), agent.draw(256)))
    assert abs(float(share) - 0.5) < 0.05
    with torch.no_grad():
        for layer in agent.critic.body.layers:
            layer.bias.sub_(10)
    found = meters.measure(agent, draw_batch(0, 256), agent.draw(256))
    assert float(found["critic/active"]) == 0
    assert float(found["critic/dormant"]) == 1  # a layer without any output is dormant
    assert float(found["critic/effective_rank"]) == float(found["critic/rank_99"]) == 0


def test_shares_are_pooled_over_layers_by_their_sizes():
    first, second = torch.tensor([[[1.0, 0.0], [1.0, 2.0]]]), torch.tensor([[[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 4.0]]])
    both = [activity(first), activity(second)]
    assert float(meters.active_share(both)) == pytest.approx(4 / 12)
    # Means (1, 1) and (0, 0, 0, 2): scores (1, 1) and (0, 0, 0, 4).
    torch.testing.assert_close(meters.scores(second), torch.tensor([[0.0, 0.0, 0.0, 4.0]]))
    assert float(meters.dormant_share(both)) == pytest.approx(3 / 6)


def test_a_unit_is_dormant_up_to_tau_and_no_further():
    values = torch.tensor([[[0.025, 1.975, 0.03, 1.97]]])  # of mean one
    assert meters.dormant_units(values, 0.0250001).tolist() == [[True, False, False, False]]
    assert meters.dormant_units(values, 0.0301).tolist() == [[True, False, True, False]]


def test_ranks_of_known_features():
    identity = torch.eye(8)[None]
    assert [float(rank) for rank in meters.ranks(identity)] == pytest.approx([8, 8])
    one = torch.outer(torch.ones(8), torch.arange(1.0, 5))[None]
    assert [float(rank) for rank in meters.ranks(one)] == pytest.approx([1, 1])
    # Singular values 98, 1, 1: two of them make 99 %; entropy by hand.
    steep = torch.diag(torch.tensor([98.0, 1.0, 1.0]))[None]
    share = torch.tensor([0.98, 0.01, 0.01])
    assert [float(rank) for rank in meters.ranks(steep)] == pytest.approx([float((-share * share.log()).sum().exp()), 2])


def test_each_member_and_each_channel_is_a_unit_of_its_own():
    torch.manual_seed(0)
    network: Any = Convolution((3,), hidden=(5,), size=4).build(32, (1,), 2)
    convolution = network.convolutions[0]
    with torch.no_grad():
        convolution.bias.fill_(5)
        convolution.bias[4] = -100  # the second member's second channel
    picture = torch.rand(7, 32)
    first, second = outputs(network, picture)
    assert first.layer.convolution
    assert not second.layer.convolution
    assert first.values.shape == (2, 7 * 4, 3)
    assert second.values.shape == (2, 7, 5)
    expected = convolution(picture.view(7, 2, 4, 4).repeat(1, 2, 1, 1)).relu()
    torch.testing.assert_close(first.values[1, :, 0], expected[:, 3].flatten())
    assert meters.dormant_units(first.values).tolist() == [[False] * 3, [False, True, False]]


def test_the_first_pass_counts_and_hooks_are_gone_after():
    network = MLP((4,)).build(3, (1,))
    one, two = torch.randn(2, 6, 3)
    with watched(network) as recorders:
        network(one)
        network(two)
    (found,) = recorders[0].activities()
    torch.testing.assert_close(found.values[0], network.layers[0](one).relu())  # pyright: ignore
    assert not network._forward_pre_hooks
    assert not network.activation._forward_hooks  # pyright: ignore


def test_singular_values_and_norms(build: Callable[..., Any], draw_batch: Callable[..., Batch], configs: Any):
    agent = build(configs["sac"])
    with torch.no_grad():
        agent.critic.body.layers[0].weight[1].mul_(3)  # the second member's
    found = meters.measure(agent, draw_batch(0), agent.draw(8))
    assert float(found["critic/singular_value/body.layers.0"]) == pytest.approx(3**0.5, rel=1e-4)
    assert float(found["critic/singular_value/body.output"]) == pytest.approx(3**-0.5, rel=1e-4)
    flat = torch.cat([p.detach().flatten() for p in agent.critic.parameters()])
    assert float(found["critic/weight_norm"]) == pytest.approx(float(flat.norm()), rel=1e-5)
    noise = agent.draw(8)
    loss, _ = agent.critic_loss(draw_batch(0), noise, {})
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(agent.critic.parameters()))])
    measured = meters.measure(agent, draw_batch(0), noise)["critic/gradient_norm"]
    assert float(measured) == pytest.approx(float(gradient.norm()), rel=1e-4)


def test_convolutions_are_matrices_of_outputs_by_inputs_times_kernel():
    network = Convolution((3,), hidden=(5,), size=4).build(32, (1,), 2)
    first = matrices(network)[0]
    assert first.weight().shape == (2, 3, 18)
    assert first.bias().shape == (2, 3)  # pyright: ignore
    assert [matrix.output for matrix in matrices(network)] == [False, False, True]
    assert len(gains(MLP((4, 4), layer_norm=True).build(3, (1,), 2))) == 2


@pytest.mark.parametrize(
    ("network", "present", "absent"),
    [
        (MLP((8,), activation="crelu"), "feature_norm", ("active", "dormant")),
        (MLP((8,), activation="tanh"), "unsaturated", ("active",)),
        (MLP((8,), activation="silu"), "dormant", ("active",)),
        (MLP((8,), layer_norm=True, norm_after=True), "dormant", ("active",)),
        (MLP((8,), layer_norm=True), "active", ()),
        (SimbaV2(8, 1), "dormant", ("active",)),
    ],
)
def test_nothing_is_said_where_a_measure_means_nothing(
    network: Any, present: str, absent: tuple[str, ...], build: Callable[..., Any], draw_batch: Callable[..., Batch], configs: Any
):
    agent = build(configs["sac"], critic=network)
    found = meters.measure(agent, draw_batch(0), agent.draw(8))
    assert f"critic/{present}" in found
    assert not {f"critic/{name}" for name in absent} & found.keys()
    assert all(bool(value.isfinite()) for value in found.values())


@pytest.mark.parametrize("name", ["sac", "td3", "iql", "awac", "cal-ql", "iql-famo2o-simba-v2", "bc"])
def test_measuring_changes_nothing(name: str, build: Callable[..., Any], draw_batch: Callable[..., Batch], configs: Any):
    agent, other = build(configs[name]), build(configs[name])
    for count in range(3):
        meters.measure(agent, agent.prepare(draw_batch(7), torch.zeros(agent.draws, 8, 2)), torch.zeros(agent.draws, 8, 2))
        agent.update(draw_batch(count))
        other.update(draw_batch(count))
    mine, theirs = agent.state_dict(), other.state_dict()
    for key, value in theirs.items():
        if isinstance(value, Tensor):
            assert torch.equal(mine[key], value), key
        else:
            assert all(torch.equal(mine[key][part], value[part]) for part in value), key


def test_pictures_and_choices():
    spec = Spec(4 * 9, 3, discrete=True)
    config = DQN(critic=Convolution((4,), hidden=(8,), size=3), dueling=True)
    agent = config.build(spec, num_envs=1, total_updates=1, seed=0, execution=Execution(compile=False))
    generator = torch.Generator().manual_seed(0)
    obs, one = torch.rand(6, 36, generator=generator), torch.ones(6)
    batch = Batch(obs, spec.random_action(6, generator), one, obs, one, one, torch.arange(6))
    found = meters.measure(agent, batch, agent.draw(6))
    assert {"critic/active", "critic_convolutions/active", "critic/singular_value/body.convolutions.0"} <= found.keys()
    assert len(meters.critic_activities(agent, batch, agent.draw(6))) == 1  # the perceptron's


def test_a_weight_normalised_layer_begins_as_the_plain_one():
    torch.manual_seed(0)
    plain = MLP((8, 8)).build(3, (2,), 2)
    torch.manual_seed(0)
    normalised = MLP((8, 8), weight_norm=True).build(3, (2,), 2)
    x = torch.randn(5, 3)
    torch.testing.assert_close(normalised(x)[0], plain(x)[0])
    with torch.no_grad():
        normalised.layers[0].direction.mul_(7)  # pyright: ignore
    torch.testing.assert_close(normalised(x)[0], plain(x)[0])  # the length alone counts


def test_crelu_halves_the_units_and_keeps_the_width():
    network = MLP((8, 6), activation="crelu").build(3, (2,))
    x = torch.randn(5, 3)
    first = network.layers[0](x)  # pyright: ignore
    assert first.shape == (5, 4)
    hidden = torch.cat((first.clamp(min=0), (-first).clamp(min=0)), -1)
    second = network.layers[1](hidden)  # pyright: ignore
    hidden = torch.cat((second.clamp(min=0), (-second).clamp(min=0)), -1)
    torch.testing.assert_close(network(x)[0], network.output(hidden))  # pyright: ignore
    with pytest.raises(SlotError, match="even"):
        MLP((7,), activation="crelu")


def test_hidden_layers_are_declared_in_the_order_of_calls():
    network = copy.deepcopy(MLP((4, 5), layer_norm=True)).build(3, (1,), 2)
    first, second = hidden_layers(network)
    assert first.incoming is network.layers[0]  # pyright: ignore
    assert first.outgoing is second.incoming
    assert second.outgoing is network.output
    assert second.norm is network.norms[1]  # pyright: ignore
