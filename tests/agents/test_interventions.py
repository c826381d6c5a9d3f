"""Interventions do exactly what they say: what is fresh, what is kept, and what does not change."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from steelyard.agents.agent import Execution
from steelyard.agents.dqn import DQN
from steelyard.agents.errors import SlotError
from steelyard.agents.networks import MLP, Convolution, SimbaV2
from steelyard.agents.networks.normalizers import RunningNorm
from steelyard.agents.parts import (
    Combined,
    InverseVariance,
    L2Init,
    PlasticityInjection,
    ReDo,
    Reset,
    ShrinkAndPerturb,
    SpectralRegularization,
)
from steelyard.agents.parts.fresh import SEEDS, moments_of
from steelyard.agents.types import Batch, Spec, Step

Build = Callable[..., Any]
Draw = Callable[..., Batch]
MATRICES = MLP((16, 12))
PICTURE = Spec(4 * 9, 3, discrete=True)


def picture_agent(**changes: Any) -> Any:
    config = DQN(critic=Convolution((4,), hidden=(8,), size=3), critics=2, target_period=1, target_rate=0.5, **changes)
    return config.build(PICTURE, num_envs=1, total_updates=9, seed=0, execution=Execution(compile=False))


def picture_batch(seed: int, rows: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    obs, after = torch.rand(2, rows, PICTURE.obs_size, generator=generator)
    one = torch.ones(rows)
    action, reward = PICTURE.random_action(rows, generator), torch.randn(rows, generator=generator)
    return Batch(obs, action, reward, after, 0.9 * one, one, torch.arange(rows))


def values(agent: Any, batch: Batch, child: str = "critic") -> Tensor:
    with torch.no_grad():
        return agent.get_submodule(child)(batch.obs, batch.action)


def moments(agent: Any, name: str) -> list[Tensor]:
    return [*agent.optimizers[name].means, *agent.optimizers[name].squares]


def parameters(agent: Any, *names: str) -> dict[str, Tensor]:
    return {f"{name}.{key}": p.detach().clone() for name in names for key, p in agent.get_submodule(name).named_parameters()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


# Resets


@pytest.mark.parametrize("name", ["sac", "td3", "iql", "cal-ql"])
def test_a_reset_makes_everything_trained_anew_and_nothing_else(name: str, build: Build, draw_batch: Draw, configs: Any):
    changes = {"observations": RunningNorm(), "plasticity": Reset(period=3)}
    agent = build(configs[name], weighting=InverseVariance(network=MLP((8,)), period=2), **changes)
    no = torch.zeros(8, dtype=torch.bool)
    for count in range(3):
        batch = draw_batch(count)
        agent.observe(Step(batch.obs, batch.next_obs, batch.reward, no, no, ~no, {}))
        before = parameters(agent, *agent.losses)
        agent.update(batch)
    fresh = agent.twin(agent.setting.seed + SEEDS)
    for child in (*agent.losses, *agent.slow, "weighting"):
        assert same(parameters(agent, child), parameters(fresh, child)), child
    assert not same(before, parameters(agent, *agent.losses))
    for loss in agent.trained:
        assert not any(bool(moment.any()) for moment in moments(agent, loss))
        assert float(agent.optimizers[loss].steps) == 0
    assert agent.update_count == 3
    assert any(bool((a != b).any()) for a, b in zip(agent.normalizer.buffers(), fresh.normalizer.buffers(), strict=True))
    first = parameters(agent, "critic")
    for count in range(3):
        agent.update(draw_batch(count))
    assert same(parameters(agent, "critic"), parameters(agent.twin(agent.setting.seed + 2 * SEEDS), "critic"))
    assert not same(first, parameters(agent, "critic"))


def test_resets_end_when_they_are_to(build: Build, draw_batch: Draw, configs: Any):
    def resets(plasticity: Reset, offline: int = 12) -> list[int]:
        agent, found = build(configs["td3"], total_updates=offline, all_updates=12, plasticity=plasticity), []
        for count in range(12):
            agent.update(draw_batch(count))
            if float(agent.optimizers["critic"].steps) == 0:
                found.append(count + 1)
        return found

    assert resets(Reset(period=4)) == [4, 8, 12]
    assert resets(Reset(period=4, times=1)) == [4]
    assert resets(Reset(period=4, spared=0.25)) == [4, 8]
    assert resets(Reset(period=4, spared=0.25), offline=6) == [4, 8]  # the end is that of the online phase


def test_a_head_reset_keeps_the_convolutions_and_their_moments():
    agent = picture_agent(plasticity=Reset(period=3, keep=("convolutions",)))
    reference = picture_agent()
    for count in range(3):
        agent.update(picture_batch(count))
        reference.update(picture_batch(count))
    fresh = agent.twin(SEEDS)
    for child in ("critic", "target_critic"):
        mine, kept, new = (parameters(a, child) for a in (agent, reference, fresh))
        for key, value in mine.items():
            assert torch.equal(value, kept[key] if "convolutions" in key else new[key]), key
    old, changed = moments_of(reference, "critic"), moments_of(agent, "critic")
    for (key, _), pair, expected in zip(agent.critic.named_parameters(), changed.values(), old.values(), strict=True):
        for moment, other in zip(pair, expected, strict=True):
            assert torch.equal(moment, other if "convolutions" in key else torch.zeros_like(other)), key
    assert float(agent.optimizers["critic"].steps) == 3


def test_what_is_to_be_kept_must_exist(build: Build, configs: Any):
    with pytest.raises(SlotError, match="keep of Reset names 'encoder'"):
        build(configs["sac"], plasticity=Reset(keep=("encoder",)))
    with pytest.raises(SlotError, match="names 'encoder', and this agent has actor, critic"):
        build(configs["sac"], plasticity=ReDo(networks=("encoder",)))


# Shrink and perturb


def test_shrinking_is_a_mean_with_fresh_weights(build: Build, draw_batch: Draw, configs: Any):
    agent, plain = build(configs["td3"], plasticity=ShrinkAndPerturb(share=0.75, period=2)), build(configs["td3"])
    for count in range(2):
        agent.update(draw_batch(count))
        plain.update(draw_batch(count))
    fresh = agent.twin(SEEDS)
    for child in ("critic", "actor", "target_critic", "target_actor"):
        mine, old, new = (parameters(a, child) for a in (agent, plain, fresh))
        for key, value in mine.items():
            torch.testing.assert_close(value, 0.75 * old[key] + 0.25 * new[key], rtol=1e-5, atol=1e-7)
    assert same(dict(enumerate(moments(agent, "critic"))), dict(enumerate(moments(plain, "critic"))))  # pyright: ignore


def test_periods_that_one_launch_passes_count_all(build: Build, configs: Any):
    agent = build(configs["td3"], plasticity=ShrinkAndPerturb(share=0.9, period=1, redraw=1_000))
    before, fresh = parameters(agent, "critic"), parameters(agent.twin(SEEDS), "critic")
    agent.update_count = 3
    agent.intervene()
    for key, value in parameters(agent, "critic").items():
        torch.testing.assert_close(value, 0.9**3 * before[key] + (1 - 0.9**3) * fresh[key])


def test_perturbed_weights_stay_on_the_sphere(build: Build, draw_batch: Draw, configs: Any):
    agent = build(configs["sac-simba-v2"], plasticity=ShrinkAndPerturb(share=0.5, period=1))
    agent.update(draw_batch(0))
    rows = agent.critic.body.blocks[0].expand.weight.norm(dim=-1)
    torch.testing.assert_close(rows, torch.ones_like(rows))


# ReDo


def kill(module: Any, layer: int, unit: int, member: int | None = None) -> None:
    """Makes a unit that never has an output."""
    with torch.no_grad():
        bias = module.layers[layer].bias
        (bias if member is None else bias[member, 0])[..., unit] = -1_000


def test_recycling_dead_units_changes_no_output_and_renews_them(build: Build, draw_batch: Draw, configs: Any):
    """Biases of the renewed become zero even where the network began with others."""
    plasticity, critic = ReDo(period=2, threshold=0.0), dataclasses.replace(MATRICES, hidden_bias=0.1)
    agent, plain = (build(configs["sac"], actor=MATRICES, critic=critic, plasticity=p) for p in (plasticity, ReDo(period=99)))
    for a in (agent, plain):
        a.update(draw_batch(0))
        for child in (a.critic, a.target_critic):
            kill(child.body, 0, 3, member=1)
            kill(child.body, 1, 5, member=0)
            kill(child.body, 1, 7, member=1)
        kill(a.actor.body, 0, 2)
        # The batch must find these dead and no others.
        for child in (a.critic, a.actor):
            with torch.no_grad():
                for layer in child.body.layers:
                    layer.bias[layer.bias > -100] = 5
        a.update(draw_batch(1, rows=64))
    batch = draw_batch(5, rows=32)
    for child in ("critic", "target_critic"):
        torch.testing.assert_close(values(agent, batch, child), values(plain, batch, child), rtol=0, atol=1e-6)
    torch.testing.assert_close(agent.act(batch.obs, False), plain.act(batch.obs, False))
    fresh = agent.twin(SEEDS)
    for child in ("critic", "target_critic"):
        (first, second), (old_first, _) = agent.get_submodule(child).body.layers, plain.get_submodule(child).body.layers
        new = fresh.get_submodule(child).body.layers
        assert torch.equal(first.weight[1, 3], new[0].weight[1, 3])
        assert torch.equal(second.weight[0, 5], new[1].weight[0, 5])
        assert not any(bool(value) for value in (first.bias[1, 0, 3], second.bias[0, 0, 5], second.bias[1, 0, 7]))
        assert not bool(second.weight[1, :, 3].any())  # outgoing, also those of a unit that is fresh itself
        assert not bool(agent.get_submodule(child).body.output.weight[0, :, 5].any())
        others = [unit for unit in range(16) if unit != 3]
        assert torch.equal(first.weight[1, others], old_first.weight[1, others])
        assert torch.equal(first.weight[0], old_first.weight[0])
    pairs = moments_of(agent, "critic")
    layers = agent.critic.body.layers
    for moment, other in zip(
        pairs[layers[0].weight], moments_of(plain, "critic")[plain.critic.body.layers[0].weight], strict=True
    ):
        assert not bool(moment[1, 3].any())
        assert torch.equal(moment[0], other[0])
        assert bool(moment[0].any())
    for moment in pairs[agent.critic.body.output.weight]:
        assert not bool(moment[0, :, 5].any())
        assert bool(moment[0, :, 4].any())


def test_recycling_a_channel_silences_all_of_its_places():
    agent, plain = (picture_agent(plasticity=p) for p in (ReDo(period=1, threshold=0.0), ReDo(period=9)))
    for a in (agent, plain):
        with torch.no_grad():
            for child in (a.critic, a.target_critic):
                child.body.convolutions[0].bias.fill_(3)
                child.body.convolutions[0].bias[5] = -1_000  # the second member's second channel
                child.body.layers[0].bias.fill_(3)
        a.update(picture_batch(0))
    batch = picture_batch(1)
    torch.testing.assert_close(values(agent, batch), values(plain, batch), rtol=0, atol=1e-5)
    outgoing = agent.critic.body.layers[0].weight.view(2, 8, 4, -1)
    assert not bool(outgoing[1, :, 1].any())
    assert bool(outgoing[1, :, 0].all())
    assert bool(outgoing[0].all())
    assert torch.equal(agent.critic.body.convolutions[0].weight[5], agent.twin(SEEDS).critic.body.convolutions[0].weight[5])


@pytest.mark.parametrize(
    "critic",
    [
        SimbaV2(8, 1),
        MLP((8,), activation="tanh"),
        MLP((8,), layer_norm=True, norm_after=True),
        MLP((8,), weight_norm=True),
        MLP((8, 8), unit_features=True),
    ],
)
def test_units_that_cannot_be_recycled_are_refused(critic: Any, build: Build, configs: Any):
    with pytest.raises(SlotError, match="ReDo recycles units"):
        build(configs["sac"], critic=critic, plasticity=ReDo())
    build(configs["sac"], critic=critic, plasticity=ReDo(networks=("actor",)))


# Injection


@pytest.mark.parametrize("name", ["sac", "td3", "iql"])
def test_injection_leaves_outputs_and_then_trains_the_fresh_network_alone(
    name: str, build: Build, draw_batch: Draw, configs: Any
):
    agent, plain = build(configs[name], plasticity=PlasticityInjection(update=3)), build(configs[name])
    batch = draw_batch(9)
    for count in range(3):
        agent.update(draw_batch(count))
        plain.update(draw_batch(count))
    for child in ("critic", "target_critic"):
        assert torch.equal(values(agent, batch, child), values(plain, batch, child)), child
    body = agent.critic.body
    assert same({"": body.old.layers[0].weight}, {"": plain.critic.body.layers[0].weight})
    assert torch.equal(body.network.layers[0].weight, body.fresh.layers[0].weight)
    assert not any(bool(moment.any()) for moment in moments(agent, "critic"))
    frozen = parameters(agent, "critic.body.old", "critic.body.fresh")
    moving = parameters(agent, "critic.body.network")
    for count in range(4):
        agent.update(draw_batch(count))
    assert same(frozen, parameters(agent, "critic.body.old", "critic.body.fresh"))
    assert not any(torch.equal(value, moving[key]) for key, value in parameters(agent, "critic.body.network").items())


def test_before_injection_and_with_it_off_weights_are_those_without(build: Build, draw_batch: Draw, configs: Any):
    agent, plain = build(configs["sac"], plasticity=PlasticityInjection(update=99)), build(configs["sac"])
    for count in range(3):
        agent.update(draw_batch(count))
        plain.update(draw_batch(count))
    mine = {
        key.replace("body.network.", "body."): value for key, value in parameters(agent, "critic").items() if "network" in key
    }
    assert same(mine, parameters(plain, "critic"))
    assert same(parameters(agent, "actor"), parameters(plain, "actor"))


def test_convolutions_before_an_injected_perceptron_learn_on():
    agent, plain = picture_agent(plasticity=PlasticityInjection(update=2)), picture_agent()
    for count in range(2):
        agent.update(picture_batch(count))
        plain.update(picture_batch(count))
    assert torch.equal(values(agent, picture_batch(7)), values(plain, picture_batch(7)))
    before = agent.critic.body.network.convolutions[0].weight.detach().clone()
    assert torch.equal(before, plain.critic.body.convolutions[0].weight)
    assert float(agent.optimizers["critic"].steps) == 2
    agent.update(picture_batch(3))
    assert not torch.equal(before, agent.critic.body.network.convolutions[0].weight)
    assert agent.critic.body.old.convolutions[0] is agent.critic.body.network.convolutions[0]


# Regularizers


def term(agent: Any, name: str = "critic") -> Tensor:
    found = agent.plasticity.regularizer(agent, name)
    assert found is not None
    return found


@pytest.mark.parametrize("norm", ["squared", "plain"])
def test_weights_are_pulled_to_where_they_began(norm: Any, build: Build, draw_batch: Draw, configs: Any):
    agent = build(configs["sac"], plasticity=L2Init(strength=0.5, norm=norm))
    assert agent.plasticity.regularizer(agent, "actor") is None
    start = parameters(agent, "critic")
    assert float(term(agent)) == pytest.approx(0, abs=1e-5)
    agent.update(draw_batch(0))
    distance = torch.cat([(value - start[key]).flatten() for key, value in parameters(agent, "critic").items()])
    expected = distance.square().sum() if norm == "squared" else distance.norm()
    assert float(term(agent)) == pytest.approx(0.5 * float(expected), rel=1e-4)
    weight = agent.critic.body.layers[0].weight
    (gradient,) = torch.autograd.grad(term(agent), weight)
    pull = weight.detach() - start["critic.body.layers.0.weight"]
    torch.testing.assert_close(gradient, 0.5 * (2 * pull if norm == "squared" else pull / distance.norm()), rtol=1e-3, atol=1e-6)


def test_orthogonal_weights_without_bias_have_no_spectral_penalty(build: Build, configs: Any):
    critic = MLP((8, 8), gain=1.0, layer_norm=True)
    agent = build(configs["sac"], critic=critic, plasticity=SpectralRegularization(strength=1.0, networks=("critic",)))
    assert float(term(agent)) == pytest.approx(0, abs=1e-9)
    assert agent.plasticity.regularizer(agent, "actor") is None
    with torch.no_grad():
        agent.critic.body.layers[1].bias[0, 0, :2] = torch.tensor([0.3, 0.4])
        agent.critic.body.norms[0].gain[1, 0, 2] = 1.5
        agent.critic.body.norms[1].offset[1, 0, 0] = 0.2
    assert float(term(agent)) == pytest.approx(0.5**4 + (1.5**2 - 1) ** 2 + 0.2**4, rel=1e-4)


def test_the_spectral_gradient_is_that_of_the_largest_singular_value(build: Build, configs: Any):
    agent = build(configs["sac"], critic=MATRICES, plasticity=SpectralRegularization(strength=0.1, networks=("critic",)))
    layer = agent.critic.body.layers[0]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        for _ in range(500):
            agent.plasticity.refresh(agent)
    (gradient,) = torch.autograd.grad(term(agent), layer.weight)
    left, sigma, right = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
    size = sigma[:, :1, None]
    expected = 0.1 * 4 * size * (size**2 - 1) * left[:, :, :1] * right[:, :1]
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)


def test_a_spectral_pull_brings_singular_values_to_one_and_spares_the_output(build: Build, draw_batch: Draw, configs: Any):
    agent = build(configs["sac"], critic=MATRICES, plasticity=SpectralRegularization(strength=100.0, networks=("critic",)))
    output = build(configs["sac"], critic=MATRICES, plasticity=SpectralRegularization(output=True))
    for count in range(400):
        agent.update(draw_batch(count % 5))
    for layer in agent.critic.body.layers:
        torch.testing.assert_close(torch.linalg.matrix_norm(layer.weight.detach(), 2), torch.ones(2), rtol=0.1, atol=0)
    assert len(agent.plasticity.maps["critic"]) == 2
    assert len(output.plasticity.maps["critic"]) == 3


def test_a_convolution_is_a_matrix_of_channels_by_inputs_times_kernel():
    agent = picture_agent(plasticity=SpectralRegularization(strength=1.0))
    with torch.no_grad():
        agent.critic.body.convolutions[0].weight.mul_(4)
        agent.plasticity.refresh(agent)
    expected = sum(
        float((torch.linalg.matrix_norm(w.detach(), 2) ** 2 - 1).square().sum())
        for w in (agent.critic.body.convolutions[0].weight.view(2, 4, -1), agent.critic.body.layers[0].weight)
    )
    assert float(term(agent)) == pytest.approx(expected, rel=1e-3)


def test_weights_on_a_sphere_are_not_regularized(build: Build, configs: Any):
    with pytest.raises(SlotError, match="puts its weights back on a sphere"):
        build(configs["sac-simba-v2"], plasticity=SpectralRegularization())


# All of them


EVERYTHING = Combined(Reset(period=5), ReDo(period=2, threshold=0.5), SpectralRegularization(), ShrinkAndPerturb(period=3))
INTERVENTIONS = {
    "reset": Reset(period=3),
    "shrink": ShrinkAndPerturb(period=1, share=0.9, redraw=2),
    "redo": ReDo(period=2, threshold=0.5),
    "injection": PlasticityInjection(update=3, networks=("critic", "actor")),
    "l2-init": L2Init(),
    "spectral": SpectralRegularization(strength=0.1),
    "everything": EVERYTHING,
    "injection and more": Combined(
        PlasticityInjection(update=3), ReDo(period=2, threshold=0.5), L2Init(), SpectralRegularization()
    ),
}


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_saved_and_continued_equals_uninterrupted(name: str, build: Build, draw_batch: Draw, configs: Any):
    plasticity = INTERVENTIONS[name]
    whole, first, resumed = (build(configs["sac"], plasticity=plasticity) for _ in range(3))
    for count in range(4):
        whole.update(draw_batch(count))
        first.update(draw_batch(count))
    resumed.load_state_dict(first.state_dict())
    for count in range(4, 8):
        whole.update(draw_batch(count))
        resumed.update(draw_batch(count))
    mine, theirs = whole.state_dict(), resumed.state_dict()
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, theirs[key]), key


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_parameters_are_written_in_place(name: str, build: Build, draw_batch: Draw, configs: Any):
    agent = build(configs["td3"], plasticity=INTERVENTIONS[name])
    places = {key: value.data_ptr() for key, value in agent.named_parameters()}
    for count in range(5):
        assert agent.check(agent.update(draw_batch(count))) is None
    assert {key: value.data_ptr() for key, value in agent.named_parameters()} == places


def test_what_injection_froze_is_not_to_be_reset():
    with pytest.raises(SlotError, match="leave one of them out"):
        Combined(Reset(), PlasticityInjection())
    with pytest.raises(SlotError, match="Combined has no interventions"):
        Combined()


def test_units_that_were_dormant_before_a_reset_are_not_recycled_after_it(build: Build, draw_batch: Draw, configs: Any):
    """Both fall on update 3; the other way round ReDo would silence fresh units."""
    both = build(configs["td3"], plasticity=Combined(Reset(period=3), ReDo(period=3, threshold=0.9)))
    reset = build(configs["td3"], plasticity=Reset(period=3))
    for count in range(3):
        both.update(draw_batch(count))
        reset.update(draw_batch(count))
    assert same(parameters(both, *both.losses), parameters(reset, *reset.losses))


def test_units_that_were_dormant_before_an_injection_do_not_change_its_outputs(build: Build, draw_batch: Draw, configs: Any):
    injection = PlasticityInjection(update=3)
    both = build(configs["td3"], plasticity=Combined(injection, ReDo(period=3, threshold=1e-9)))
    alone = build(configs["td3"], plasticity=injection)
    for agent in (both, alone):
        layer = agent.critic.body.network.layers[0]
        with torch.no_grad():
            layer.bias[:, :, 0] = -100.0  # a dead unit, which may be recycled without a change of any output
    batch = draw_batch(7)
    for count in range(3):
        both.update(draw_batch(count))
        alone.update(draw_batch(count))
    assert torch.equal(both.critic(batch.obs, batch.action), alone.critic(batch.obs, batch.action))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (Reset, {"period": 0}),
        (Reset, {"spared": 1.0}),
        (ReDo, {"threshold": -0.1}),
        (ShrinkAndPerturb, {"share": 1.0}),
        (PlasticityInjection, {"update": 0}),
        (L2Init, {"strength": 0.0}),
        (SpectralRegularization, {"power": 0}),
    ],
)
def test_numbers_that_make_no_sense_are_refused(kind: Any, changes: dict[str, Any]):
    (name,) = changes
    with pytest.raises(SlotError, match=f"{name} of {kind.__name__} is"):
        dataclasses.replace(kind(), **changes)
