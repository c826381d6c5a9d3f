"""Dynamics ensembles: hand values of their objectives, value gradients, fits, and what they compose with."""

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from steelyard.agents.agent import Execution
from steelyard.agents.dqn import DQN
from steelyard.agents.errors import DivergenceError, SlotError
from steelyard.agents.networks import MLP, SimbaV2
from steelyard.agents.networks.dynamics import DynamicsNetwork
from steelyard.agents.networks.heads import Categorical
from steelyard.agents.networks.normalizers import AffineRewards, ReturnScale, RunningNorm
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import (
    Ensemble,
    ExactTaylor,
    InverseVariance,
    IterVAML,
    Likelihood,
    NoModel,
    SquaredError,
    ValueGradient,
    model_fit,
)
from steelyard.agents.parts.model_fit import ModelError, Transitions
from steelyard.agents.parts.state_value import StateValue
from steelyard.agents.parts.value_aware import LATER_VALUE_GRADIENT, quantile
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.agents.types import Batch, Spec

SPEC = Spec(3, 2)
EAGER = Execution(compile=False)
BF16 = Execution(precision="bf16", compile=False)
TINY = Ensemble(members=3, elites=2, hidden=(16, 16), epochs=3, batch_size=32)
ONES, NONE = torch.ones(4), torch.zeros(1, 2, 0)
LATE = torch.tensor(100)


def agent(model: Any = TINY, config: Any = None, execution: Execution = EAGER, **changes: Any) -> Any:
    config = config or SAC(actor=MLP((16,)), critic=MLP((16,)))
    return dataclasses.replace(config, model=model, **changes).build(
        SPEC, num_envs=1, total_updates=9, seed=0, execution=execution
    )


def data(rows: int = 200, seed: int = 0, spread: float = 1.0) -> Transitions:
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(rows, 3, generator=generator)
    action = torch.rand(rows, 2, generator=generator) * 2 - 1
    change = torch.stack((action[:, 0], obs[:, 0] * action[:, 1], -obs[:, 2]), -1)
    return Transitions(obs, action, obs[:, 0] - action[:, 1], obs + spread * 0.2 * change)


def quiet(epoch: int, scores: Tensor) -> None:
    del epoch, scores


def batch(seed: int = 0, rows: int = 8) -> Batch:
    given = data(rows, seed)
    one = torch.ones(rows)
    return Batch(given.obs, given.action, given.reward, given.next_obs, 0.9 * one, one, torch.arange(rows))


def test_the_network_is_its_members_one_by_one() -> None:
    torch.manual_seed(0)
    network = DynamicsNetwork(5, 4, (6, 7), 3)
    x = torch.randn(3, 9, 5)
    for member in range(3):
        hidden = x[member]
        for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
            hidden = hidden @ weight[member] + bias[member]
            hidden = torch.nn.functional.silu(hidden) if layer < 2 else hidden
        torch.testing.assert_close(network(x)[member], hidden)
    chosen = torch.tensor([2, 0])
    torch.testing.assert_close(network(x[chosen], chosen), network(x)[chosen])


def test_initial_weights_are_cut_at_two_deviations() -> None:
    torch.manual_seed(0)
    weight = DynamicsNetwork(100, 50, (400,), 7).weights[0].detach()
    assert float(weight.abs().max()) <= 2 * 0.05
    assert float(weight.std()) == pytest.approx(0.88 * 0.05, rel=0.01)  # a normal variable cut at two deviations


def test_likelihood_by_hand() -> None:
    objective = Likelihood(-10.0, 0.5).build(1)
    raw = torch.tensor(0.2)
    below = 0.5 - math.log1p(math.exp(0.5 - 0.2))
    log_variance = -10 + math.log1p(math.exp(below + 10))
    output = torch.tensor([[[3.5, raw]]])
    expected = (3.5 - 1.0) ** 2 / math.exp(log_variance) + log_variance
    target = torch.tensor([[[1.0]]])
    assert float(objective.loss(output, target, ONES[:1], NONE, LATE)) == pytest.approx(expected, rel=1e-5)
    assert float(objective.score(output, target, ONES[:1], NONE, LATE)) == pytest.approx(6.25)
    assert float(objective.draw(output, torch.tensor([[[2.0]]]))) == pytest.approx(3.5 + 2 * math.exp(log_variance / 2))
    assert objective.penalty() == 0.0
    penalty: Any = Likelihood(-10.0, 0.5, learned=True).build(3).penalty()
    assert penalty.item() == pytest.approx(0.01 * 3 * 10.5)


def test_value_gradient_by_hand() -> None:
    objective = ValueGradient(clip=None).build(3)
    output, target = torch.tensor([[[1.0, 2.0, 5.0]]]), torch.tensor([[[0.0, 4.0, 2.0]]])
    scale = torch.tensor([3.0, 1.0, 1.0])
    gradients = torch.tensor([[[[2.0, 1.0], [0.0, -3.0]]]])  # two critics
    state = ((2 * 3) ** 2 + (1 * 2) ** 2 + 0 + (3 * 2) ** 2) / 4
    assert float(objective.loss(output, target, scale, gradients, LATE)) == pytest.approx(state + 9)
    warm = (3**2 + 2**2 + 3**2) / 3
    assert float(objective.loss(output, target, scale, gradients, torch.tensor(3))) == pytest.approx(state + 9 + warm)
    rescaled = ValueGradient(clip=None, reward="rescaled").build(3)
    length = (math.sqrt(5) + 3) / 2
    assert float(rescaled.loss(output, target, scale, gradients, LATE)) == pytest.approx(state + 9 * length**2)
    dimension = ValueGradient(clip=None, reward="dimension").build(3)
    size = (2 + 1 + 0 + 3) / 4
    # The mean over two critics and three dimensions, the third being the reward's, times three halves.
    whole = (6**2 + 2**2 + 0 + 6**2 + 2 * (3 * size) ** 2) / 6 * 3 / 2
    assert float(dimension.loss(output, target, scale, gradients, LATE)) == pytest.approx(whole)
    taylor = ExactTaylor().build(3)
    assert float(taylor.loss(output, target, scale, gradients, LATE)) == pytest.approx(((6 - 2) ** 2 + 6**2) / 2 + 9)


def test_unit_gradients_give_the_squared_error() -> None:
    generator = torch.Generator().manual_seed(0)
    output, target = torch.randn(2, 3, 16, 4, generator=generator)
    found = ValueGradient().build(4).loss(output, target, ONES, torch.ones(3, 16, 4, 3), LATE)
    error = (output - target).square()
    torch.testing.assert_close(found, error[..., :3].mean(-1) + error[..., 3])
    plain = SquaredError().build(4).loss(output, target, ONES, NONE, LATE)
    torch.testing.assert_close(plain, error.mean(-1))


def test_clipping_is_per_member_and_critic_and_keeps_directions() -> None:
    lengths = torch.stack((torch.arange(1.0, 22.0), torch.arange(21.0, 0.0, -1) * 10), -1)  # [batch 21, critics 2]
    gradients = lengths[None, ..., None] * torch.tensor([0.6, 0.8])
    clipped = ValueGradient(clip=0.95).build(3).clipped(gradients)
    torch.testing.assert_close(clipped.norm(dim=-1)[0], torch.minimum(lengths, torch.tensor([20.0, 200.0])))
    torch.testing.assert_close(clipped[..., 0] / clipped[..., 1], torch.full((1, 21, 2), 0.75))
    drawn = torch.rand(2, 50, 3, 1)
    torch.testing.assert_close(quantile(drawn, 0.9), torch.quantile(drawn, 0.9, dim=1, keepdim=True))


def test_running_quantiles_bound_from_both_sides() -> None:
    learner = agent(Ensemble(objective=ValueGradient(low_clip=0.25, clip=0.75, running_rate=0.5)))
    objective, next_obs = learner.model.objective, data(400).next_obs
    lengths = objective.know(learner, next_obs, learner.model.generator).norm(dim=-1)
    first = torch.quantile(lengths, torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(objective.bounds, first, rtol=1e-2, atol=0)
    known = objective.know(learner, 3 * next_obs, learner.model.generator)
    second = torch.quantile(known.norm(dim=-1), torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(objective.bounds, (first + second) / 2, rtol=1e-2, atol=0)
    clipped = objective.clipped(known[None]).norm(dim=-1)
    torch.testing.assert_close(torch.stack((clipped.min(), clipped.max())), objective.bounds)


def test_the_batchs_own_quantiles_bound_from_both_sides() -> None:
    objective = ValueGradient(low_clip=0.25, clip=0.75, running_rate=None).build(3)
    gradients = torch.randn(2, 41, 3, 4, generator=torch.Generator().manual_seed(0))
    lengths, clipped = gradients.norm(dim=-1), objective.clipped(gradients)
    low, high = torch.quantile(lengths, torch.tensor([0.25, 0.75]), dim=1, keepdim=True)
    torch.testing.assert_close(clipped.norm(dim=-1), lengths.clamp(low, high))
    torch.testing.assert_close(F.normalize(clipped, dim=-1), F.normalize(gradients, dim=-1))
    learner = agent(Ensemble(objective=LATER_VALUE_GRADIENT))
    learner.model.objective.know(learner, data(400).next_obs, learner.model.generator)
    assert not bool(learner.model.objective.seen)


@pytest.mark.parametrize("kind", ["sac", "td3", "simba-v2"])
def test_gradients_are_those_of_each_critic_alone(kind: str) -> None:
    """Four independent calls of autograd, on the raw observation through the normaliser, the action held constant."""
    simba: dict[str, Any] = {"critic": SimbaV2(16, 1), "actor": SimbaV2(8, 1), "head": Categorical(21)}
    config = {"sac": None, "td3": TD3(actor=MLP((16,)), critic=MLP((16,))), "simba-v2": SAC(**simba)}[kind]
    learner = agent(TINY, config, observations=RunningNorm())
    for parameter in learner.critic.parameters():
        parameter.data.mul_(1.1)  # now current and target critics differ
    statistics = learner.normalizer.statistics
    statistics.mean.copy_(torch.tensor([1.0, 0.0, -1.0]))
    statistics.variance.copy_(torch.tensor([4.0, 0.25, 1.0]))
    obs = data(6).next_obs
    found = StateValue(learner, "all", "mean", learner.model.generator).gradients(obs)
    with torch.no_grad():
        action = learner.actor.mode(learner.normalizer(obs))
    independent = []
    for network in (learner.critic, learner.target_critic):
        for member in range(2):
            point = obs.clone().requires_grad_()
            normalized = (point - torch.tensor([1.0, 0.0, -1.0])) / torch.tensor([2.0, 0.5, 1.0])
            value = learner.head.value(network(normalized, action))[member]
            (gradient,) = torch.autograd.grad(value.sum(), point)
            independent.append(gradient)
    torch.testing.assert_close(found, torch.stack(independent, 1), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(found[:, 0], found[:, 2])
    assert all(parameter.grad is None for parameter in learner.parameters())
    targets = StateValue(learner, "targets", "mean", learner.model.generator).gradients(obs)
    torch.testing.assert_close(targets, found[:, 2:])


@pytest.mark.parametrize("objective", [ValueGradient(low_clip=0.05), ExactTaylor(), IterVAML()])
@pytest.mark.parametrize("rewards", [AffineRewards(0.01, 3.0), ReturnScale()])
def test_values_count_in_raw_rewards(objective: Any, rewards: Any) -> None:
    """As the reward's error does: else an agent that learns from rewards divided by 100 has a model that forgets values."""
    plain, scaled = agent(Ensemble(objective=objective)), agent(Ensemble(objective=objective), rewards=rewards)
    if isinstance(rewards, ReturnScale):
        scaled.reward_scale.statistics.variance.fill_(1e4)
    for critic in (scaled.critic, scaled.target_critic):  # the same values, in a hundredth of the units
        critic.body.output.weight.data.div_(100)
        critic.body.output.bias.data.div_(100)
    given, error = data(8), 0.1 * torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(0))
    losses = []
    for learner in (plain, scaled):
        known = learner.model.objective.know(learner, given.next_obs, learner.model.generator)[None]
        losses.append(learner.model.objective.loss(error, torch.zeros(1, 8, 4), ONES, known, LATE))
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-6)


def test_a_models_gradient_reaches_values_only_through_the_observation() -> None:
    learner = agent(Ensemble(objective=IterVAML()))
    objective, given = learner.model.objective, data(8)
    known = objective.know(learner, given.next_obs, learner.model.generator)[None]
    target = torch.zeros(1, 8, 4)
    error = 1e-3 * torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(0))
    exact = agent(Ensemble(objective=ExactTaylor())).model.objective
    slopes = exact.know(learner, given.next_obs, learner.model.generator)[None]
    found = objective.loss(error, target, ONES, known, LATE)
    torch.testing.assert_close(found, exact.loss(error, target, ONES, slopes, LATE), rtol=0.05, atol=1e-9)


@pytest.mark.parametrize("objective", [SquaredError(), Likelihood(), Likelihood(learned=True), ValueGradient()])
@pytest.mark.parametrize("normalized", [False, True])
def test_a_fit_learns_and_keeps_the_best_weights(objective: Any, normalized: bool) -> None:
    learner = agent(
        dataclasses.replace(TINY, objective=objective, normalized_targets=normalized, epochs=25, optimizer=Adam(1e-2))
    )
    model, given, fresh, seen = learner.model, data(600), data(300, seed=1), []
    model.refit(learner, given, lambda epoch, scores: seen.append(scores.clone()))
    next_obs, reward = model.predict(fresh.obs, fresh.action)
    assert float((next_obs - fresh.next_obs).square().mean()) < 0.15 * float((fresh.next_obs - fresh.obs).square().mean())
    assert float((reward - fresh.reward).square().mean()) < 0.1 * float(fresh.reward.var())
    assert int(model.fits) == 1


def test_members_end_with_their_own_best_epoch_and_the_best_are_elites() -> None:
    learner = agent(dataclasses.replace(TINY, objective=SquaredError(), epochs=40, optimizer=Adam(0.1), patience=40))
    model, given, scores = learner.model, data(100), []
    state = model.generator.get_state()
    record = model.refit(learner, given, lambda epoch, now: scores.append(now.clone()))
    model_generator = torch.Generator()
    model_generator.set_state(state)
    held_out = torch.randperm(100, generator=model_generator)[:20]
    target = torch.cat((given.next_obs - given.obs, given.reward[:, None]), -1)[held_out]
    inputs = model.standardize(given.obs[held_out], given.action[held_out])
    torch.testing.assert_close(model.score(inputs, target, inputs[:, :0]), record.scores)
    assert bool((torch.stack(scores).amin(0) > 0.985 * record.scores).all())
    assert model.elites.tolist() == record.scores.argsort()[:2].tolist()
    assert not torch.equal(torch.stack(scores)[-1], record.scores)


@pytest.mark.parametrize(
    ("share", "limit", "rows", "held"),
    [(0.2, 5_000, 30_000, 5_000), (0.2, None, 30_000, 6_000), (0.2, 5_000, 1_000, 200), (0.5, None, 9, 4), (0.01, None, 9, 1)],
)
def test_rows_held_out_are_a_share_up_to_a_limit_if_there_is_one(share: float, limit: int | None, rows: int, held: int) -> None:
    assert Ensemble(holdout=share, holdout_limit=limit).held_out(rows) == held


@pytest.mark.parametrize(("limit", "held"), [(7, 7), (None, 60)])
def test_a_fit_holds_out_as_many_rows_as_it_is_told_to(limit: int | None, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = agent(dataclasses.replace(TINY, holdout=0.3, holdout_limit=limit, epochs=1))
    seen: list[Tensor] = []
    monkeypatch.setattr(model_fit, "score", lambda *given: seen.append(given[-1]) or torch.ones(3))
    learner.model.refit(learner, data(200), quiet)
    assert [len(rows) for rows in seen] == [held, held]


def test_fits_go_on_from_each_other_where_scores_are_mostly_noise() -> None:
    """A component that nothing predicts hides from the score what is learned of the others; fits of few steps must add up all the same."""
    learner = agent(
        dataclasses.replace(TINY, objective=Likelihood(high=8.0), epochs=20, patience=3, optimizer=Adam(1e-2), batch_size=32)
    )
    noise = torch.randn(400, generator=torch.Generator().manual_seed(3))
    given = data(400)
    given.next_obs[:, -1] = given.obs[:, -1] + 30 * noise
    for _ in range(12):
        record = learner.model.refit(learner, given, quiet)
        assert record.epochs < 20
    predicted, _ = learner.model.predict(given.obs, given.action)
    error, moved = (float((found - given.next_obs)[..., :-1].square().mean()) for found in (predicted, given.obs))
    assert error < 0.5 * moved


def test_a_fit_waits_so_many_epochs() -> None:
    frozen = dataclasses.replace(TINY, optimizer=Adam(1e-12), patience=4, epochs=50, objective=SquaredError())
    learner = agent(frozen)
    assert learner.model.refit(learner, data(), quiet).epochs == 4


def test_inputs_are_standardized_and_targets_only_if_asked() -> None:
    given = data()._replace(obs=data().obs * 100 + 5)
    for normalized in (False, True):
        learner = agent(dataclasses.replace(TINY, epochs=1, normalized_targets=normalized))
        learner.model.refit(learner, given, quiet)
        x = learner.model.standardize(given.obs, given.action)
        torch.testing.assert_close(x.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
        torch.testing.assert_close(x.std(0, correction=0), torch.ones(5))
        assert (float(learner.model.target_scale[-1]) != 1.0) == normalized


def test_every_row_keeps_its_own_gradient() -> None:
    """What a member is shown beside a row is the row's own, in every epoch and for every member."""
    learner = agent(dataclasses.replace(TINY, objective=ValueGradient()))
    model, given = learner.model, data(120)
    expected = model.objective.know(learner, given.next_obs, model.generator)
    original, rows = model.run_step, {tuple(change.tolist()): row for row, change in enumerate(given.next_obs - given.obs)}
    seen = 0

    def watch(x: Tensor, target: Tensor, known: Tensor) -> Tensor:
        nonlocal seen
        for member in range(3):
            for place in range(0, target.shape[1], 7):
                row = rows[tuple(target[member, place, :-1].tolist())]
                assert torch.equal(known[member, place], expected[row])
                seen += 1
        return original(x, target, known)

    model.run_step = watch
    model.refit(learner, given, quiet)
    assert seen > 30


def test_a_second_fit_goes_on_and_the_state_carries_everything() -> None:
    whole = agent()
    whole.model.refit(whole, data(), quiet)
    copy = agent()
    copy.load_state_dict(whole.state_dict())
    for learner in (whole, copy):
        learner.model.refit(learner, data(260), quiet)
    assert float(whole.model.adam.steps) > 3
    for (name, a), b in zip(whole.model.state_dict().items(), copy.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    first, second = (learner.model.imagine(learner, data(8).obs) for learner in (whole, copy))
    assert all(map(torch.equal, first, second))


def test_imagined_rows_are_each_of_one_elite() -> None:
    learner = agent(dataclasses.replace(TINY, objective=SquaredError()))
    model, obs = learner.model, data(60).obs
    model.refit(learner, data(), quiet)
    imagined = model.imagine(learner, obs)
    next_obs, reward = model.predict(obs, imagined.action, model.elites)
    assert next_obs.shape == (2, 60, 3)
    chosen = (imagined.next_obs - next_obs).abs().sum(-1).argmin(0)
    torch.testing.assert_close(imagined.next_obs, next_obs[chosen, torch.arange(60)])
    torch.testing.assert_close(imagined.reward, reward[chosen, torch.arange(60)])
    assert chosen.bincount().tolist() == [30, 30]
    assert not torch.equal(chosen, model.imagine(learner, obs).next_obs[:, 0].argsort() * 0)
    assert not bool(imagined.terminated.any())
    model.terminates = lambda given: given[:, 0] > 0
    again = model.imagine(learner, obs, explore=False)
    assert torch.equal(again.terminated, again.next_obs[:, 0] > 0)
    torch.testing.assert_close(again.action, learner.act(obs, explore=False))


def test_fresh_rows_are_of_the_present_policy() -> None:
    learner = agent(dataclasses.replace(TINY, objective=SquaredError(), fresh_share=0.25))
    given, noise = batch(), learner.draw(8)
    for mixed, same in zip(learner.model.mix(learner, given, noise), given, strict=True):
        assert mixed is same or (same is not None and torch.equal(mixed, same))  # before the first fit
    learner.model.refit(learner, data(), quiet)
    learner.model.terminates = lambda obs: obs[:, 0] > given.obs[7, 0]
    with torch.no_grad():
        mixed = learner.model.mix(learner, given, noise)
        action = learner.choose(given.obs, noise[learner.model_draw])
        next_obs, reward = learner.model.predict(given.obs[-2:], action[-2:], learner.model.elites)
    assert torch.equal(mixed.action[:6], given.action[:6])
    assert torch.equal(mixed.obs, given.obs)
    torch.testing.assert_close(mixed.action[-2:], action[-2:])
    rows = torch.arange(2)
    torch.testing.assert_close(mixed.next_obs[-2:], next_obs[rows, rows])
    torch.testing.assert_close(mixed.reward[-2:], reward[rows, rows])
    ends = next_obs[rows, rows, 0] > given.obs[7, 0]
    torch.testing.assert_close(mixed.discount[-2:], learner.gamma * (~ends).float())
    none = given._replace(weight=given.weight.index_fill(0, torch.tensor([7]), 0.0))
    with torch.no_grad():
        assert learner.model.mix(learner, none, noise).weight.tolist()[-2:] == [1.0, 0.0]  # no transition, no fresh row
    assert learner.check(learner.update(given)) is None


def test_the_model_is_not_trained_by_updates_and_neutral_draws_stay() -> None:
    learner, bare = agent(), agent(NoModel())
    before = {name: p.clone() for name, p in learner.model.named_parameters()}
    for count in range(3):
        metrics, plain = learner.update(batch(count)), bare.update(batch(count))
        assert all(torch.equal(metrics[name], value) for name, value in plain.items())
    assert all(torch.equal(p, before[name]) for name, p in learner.model.named_parameters())
    assert learner.trained == bare.trained


@pytest.mark.parametrize("objective", [ValueGradient(), LATER_VALUE_GRADIENT, IterVAML(), ExactTaylor()])
def test_value_gradient_with_simba_v2_and_inverse_variance(objective: Any) -> None:
    config = SAC(
        actor=SimbaV2(8, 1),
        critic=SimbaV2(16, 1),
        head=Categorical(21),
        observations=RunningNorm(),
        weighting=InverseVariance(network=MLP((8,)), period=2),
    )
    learner = agent(dataclasses.replace(TINY, objective=objective, fresh_share=0.1), config)
    for count in range(3):
        assert learner.check(learner.update(batch(count))) is None
        record = learner.model.refit(learner, data(60), quiet)
        assert math.isfinite(record.loss)


def test_a_model_of_choices() -> None:
    model = dataclasses.replace(TINY, objective=ValueGradient())
    spec = Spec(3, 2, discrete=True)
    learner: Any = DQN(critic=MLP((8,)), model=model).build(spec, num_envs=1, total_updates=9, seed=0, execution=EAGER)
    given = data(60)
    action = torch.nn.functional.one_hot((given.action[:, 0] > 0).long(), 2).float()
    learner.model.refit(learner, given._replace(action=action), quiet)
    assert learner.model.imagine(learner, given.obs).action.sum(-1).eq(1).all()
    with pytest.raises(SlotError, match="fresh_share"):
        DQN(critic=MLP((8,)), model=Ensemble(fresh_share=0.1)).build(spec, num_envs=1, total_updates=9, seed=0, execution=EAGER)


def test_a_diverging_fit_names_the_model() -> None:
    learner = agent(dataclasses.replace(TINY, optimizer=Adam(1e20), objective=SquaredError()))
    with pytest.raises(DivergenceError, match=r"the dynamics model diverged: member \d .*agent\.model\.optimizer\.learning_rate"):
        learner.model.refit(learner, data(), quiet)


def test_too_few_rows_are_refused() -> None:
    learner = agent()
    with pytest.raises(ModelError, match=r"fitted to 4 transitions and needs 5; collect more .* with --random-steps"):
        learner.model.refit(learner, data(4), quiet)
    with pytest.raises(ModelError, match="fitted to 1 transition and needs 5"):
        learner.model.refit(learner, data(1), quiet)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Ensemble(members=3, elites=4), "4 elites of 3 members"),
        (lambda: Ensemble(weight_decay=(1e-5, 1e-5)), "2 weight decays for 5 layers"),
        (lambda: Ensemble(holdout=1.0), "holdout 1.0"),
        (lambda: Ensemble(holdout_limit=0), "holdout_limit of Ensemble is 0"),
        (lambda: Ensemble(batch_size=0), "batch_size"),
        (lambda: Ensemble(optimizer=Adam(1e-3, 1e-4)), "final_learning_rate"),
        (lambda: Likelihood(1.0, 0.0), "low must be the smaller"),
        (lambda: ValueGradient(clip=1.5), "quantiles"),
        (lambda: ValueGradient(clip=None, low_clip=0.1), "low_clip but no clip"),
        (lambda: Likelihood(low=-math.inf), "of two finite numbers"),
        (lambda: Ensemble(hidden=(200, 0)), r"hidden of Ensemble is \(200, 0\)"),
        (lambda: Ensemble(weight_decay=(-1.0,)), "weight_decay of Ensemble"),
        (lambda: Ensemble(weight_decay=(math.nan,)), "weight_decay of Ensemble"),
        (lambda: ValueGradient(warmup_fits=-3), "warmup_fits of ValueGradient is -3"),
        (lambda: ValueGradient(running_rate=0.0), "running_rate of ValueGradient is 0.0"),
    ],
)
def test_impossible_settings_are_refused(make: Any, words: str) -> None:
    with pytest.raises(SlotError, match=words):
        make()


def test_bounds_may_be_whole_numbers() -> None:
    assert agent(dataclasses.replace(TINY, objective=Likelihood(-10, 5, learned=True))).model.objective.high.tolist() == [5.0] * 4


def test_compiled_fits_and_imagination_equal_eager_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiler(function, backend="aot_eager", **options))
    model = dataclasses.replace(TINY, objective=ValueGradient(), fresh_share=0.25)
    found = []
    for compiled in (False, True):
        config: Any = SAC(actor=MLP((16,)), critic=MLP((16,)), model=model)
        learner = config.build(SPEC, num_envs=1, total_updates=9, seed=0, execution=Execution(compile=compiled))
        records = [learner.model.refit(learner, data(rows), quiet) for rows in (200, 230)]
        imagined = learner.model.imagine(learner, data(8).obs)
        found.append([records[1].scores, *(part.float() for part in imagined), learner.update(batch())["critic_loss"]])
    for eager, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)


def products(monkeypatch: pytest.MonkeyPatch, act: Any) -> list[torch.dtype]:
    """Precisions of the results of the batched products that `act` makes, in order."""
    seen: list[torch.dtype] = []
    product = torch.baddbmm

    def counted(*given: Tensor) -> Tensor:
        result = product(*given)
        seen.append(result.dtype)
        return result

    monkeypatch.setattr(torch, "baddbmm", counted)
    act()
    monkeypatch.setattr(torch, "baddbmm", product)
    return seen


@pytest.mark.parametrize("config", [SAC(actor=MLP((16,)), critic=MLP((16,))), TD3(actor=MLP((16,)), critic=MLP((16,)))])
@pytest.mark.parametrize(("execution", "dtype"), [(EAGER, torch.float32), (BF16, torch.bfloat16)])
def test_a_model_has_its_agents_precision_but_for_the_last_layer(
    config: Any, execution: Execution, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, given = agent(TINY, config, execution), data(40)
    model, x, target, known = learner.model, torch.zeros(3, 8, 5), torch.zeros(3, 8, 4), torch.zeros(3, 8, 0)
    for act in (
        lambda: model.step(x, target, known),
        lambda: model.score(x[0], target[0], known[0]),
        lambda: model.predict(given.obs, given.action),
        lambda: model.imagine(learner, given.obs),
    ):
        assert products(monkeypatch, act) == [dtype] * len(TINY.hidden) + [torch.float32]
    for explore in (True, False):
        assert [part.dtype for part in model.imagine(learner, given.obs, explore)] == [torch.float32] * 3 + [torch.bool]
    asked, acted = model.imagine(learner, given.obs, explore=False).action, learner.act(given.obs, False)
    torch.testing.assert_close(asked, acted, rtol=0.02, atol=0.02)
    assert torch.equal(asked, acted) == (execution is EAGER)


def test_a_fit_in_bf16_is_as_good() -> None:
    model = dataclasses.replace(TINY, objective=SquaredError(), epochs=30)
    scores = [float(agent(model, execution=one).model.refit(None, data(1_000), quiet).scores.mean()) for one in (EAGER, BF16)]
    assert scores[1] == pytest.approx(scores[0], rel=0.1)
    assert scores[1] != scores[0]
