"""Something new in a slot works without a change to any agent: a toy occupant for each, alone and all together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad  # pyright: ignore[reportPrivateImportUsage]

from steelyard.agents.agent import Execution
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import Part, Regression, UniformWeighting
from steelyard.agents.types import Batch, Metrics, Spec

Build = Callable[..., Any]
DrawBatch = Callable[..., Batch]
NAMES = ["sac", "td3", "sac-simba-v2", "td3-simba-v2"]


class LearnedWeights(UniformWeighting):
    """A learned weight per critic and sample, from the observation; its loss makes it predict the error."""

    def __init__(self, spec: Spec, critics: int):
        super().__init__()
        self.net = nn.Linear(spec.obs_size, critics)

    def forward(self, weight: Tensor, regression: Regression) -> Tensor:
        return weight * self.net(regression.obs).sigmoid().T

    def loss(self, agent: Any, batch: Batch, noise: Tensor) -> tuple[Tensor, Metrics]:
        regression = agent.regression(batch, noise)
        error = regression.head.loss(regression.output, regression.target())
        loss = (self.net(batch.obs).T - error).square().mean()
        return loss, {"weight": self.net(batch.obs).sigmoid().mean()}


class Residual(Part):
    """The full gradient of the Bellman error, through the bootstrap value too, against a learned bounded scale of the errors."""

    def __init__(self, spec: Spec, critics: int):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(critics, 1))

    def forward(self, regression: Regression) -> Tensor:
        target = regression.backup(regression.critic)
        return (1 + self.scale.tanh()) * regression.head.loss(regression.output, target)

    def loss(self, agent: Any, batch: Batch, noise: Tensor) -> tuple[Tensor, Metrics]:
        return -self(agent.regression(batch, noise)).mean() + self.scale.square().sum(), {}


class Familiar(Part):
    """The actor is told a coefficient between its two aims, chosen by a policy of its own (as in FamO2O)."""

    inputs = 2
    draws = 0

    def __init__(self, spec: Spec):
        super().__init__()
        self.chooser = nn.Linear(spec.obs_size, 1)

    def choose(self, obs: Tensor) -> Tensor:
        return self.chooser(obs).sigmoid().squeeze(-1)

    def sample(self, obs: Tensor, noise: Tensor) -> Tensor:
        return self.choose(obs).detach()

    def condition(self, obs: Tensor, coefficient: Tensor) -> Tensor:
        return torch.cat([obs, torch.stack((coefficient, 1 - coefficient), -1)], -1)

    def loss(self, agent: Any, batch: Batch, noise: Tensor) -> tuple[Tensor, Metrics]:
        action = agent.actor.mode(self.condition(batch.obs, self.choose(batch.obs)))
        return -agent.climbed_value(batch.obs, action).mean(), {}


class Forget(Part):
    """Sets the actor's biases to zero after every second update."""

    def intervene(self, agent: Any, update_count: int) -> None:
        if update_count % 2 == 0:
            with torch.no_grad():
                for name, parameter in agent.actor.named_parameters():
                    if "bias" in name:
                        parameter.zero_()


class Dynamics(Part):
    """Replaces every second row's successor by a prediction. Batches keep their size: an update's noise is drawn for it beforehand."""

    def __init__(self, spec: Spec):
        super().__init__()
        self.net = nn.Linear(spec.obs_size + spec.action_size, spec.obs_size)

    def predict(self, batch: Batch) -> Tensor:
        return self.net(torch.cat([batch.obs, batch.action], -1))

    def mix(self, agent: Any, batch: Batch, noise: Tensor) -> Batch:
        imagined = (torch.arange(len(batch.reward)) % 2 == 0)[:, None]
        return batch._replace(next_obs=torch.where(imagined, self.predict(batch), batch.next_obs))

    def loss(self, agent: Any, batch: Batch, noise: Tensor) -> tuple[Tensor, Metrics]:
        return (self.predict(batch) - batch.next_obs).square().mean(), {}


@dataclass(frozen=True)
class Occupant:
    """The config of any of these parts."""

    part: Callable[..., Part]

    def build(self, *arguments: Any) -> Part:
        return self.part(*arguments)


OCCUPANTS = {
    "weighting": Occupant(LearnedWeights),
    "objective": Occupant(Residual),
    "balance": Occupant(Familiar),
    "plasticity": Occupant(lambda spec: Forget()),
    "model": Occupant(Dynamics),
}


@pytest.mark.parametrize("slot", OCCUPANTS)
@pytest.mark.parametrize("name", ["sac", "td3"])
def test_an_occupant_trains_beside_the_agent(slot: str, name: str, build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agent, plain = build(configs[name], **{slot: OCCUPANTS[slot]}), build(configs[name])
    before = {key: p.detach().clone() for key, p in agent.named_parameters()}
    for count in range(2):
        metrics = agent.update(draw_batch(count))
        plain.update(draw_batch(count))
        assert agent.check(metrics) is None
    own = [key for key in before if key.startswith(f"{slot}.")]
    for key in own:
        assert not torch.equal(before[key], agent.get_parameter(key).detach()), key
    assert agent.trained == (*agent.losses, *([slot] if own else []))
    if own:
        assert f"{slot}_loss" in metrics
        assert {key for key in agent.state_dict() if key.startswith(f"optimizers.{slot}.")}
    if slot != "balance":  # which gives the actor another input
        assert any(not torch.equal(p, agent.get_parameter(key)) for key, p in plain.named_parameters())


@pytest.mark.parametrize("name", NAMES)
def test_all_slots_together_train_save_and_continue(name: str, build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agent = build(configs[name], **OCCUPANTS)
    assert agent.trained == (*agent.losses, "objective", "weighting", "balance", "model")
    for count in range(3):
        assert agent.check(agent.update(draw_batch(count))) is None
    other = build(configs[name], **OCCUPANTS, seed=5)
    other.load_state_dict(agent.state_dict())
    expected, metrics = agent.update(draw_batch(4)), other.update(draw_batch(4))
    assert all(torch.equal(value, metrics[key]) for key, value in expected.items())
    obs = draw_batch(5).obs
    torch.testing.assert_close(agent.policy()(obs), agent.act(obs, explore=False))


@pytest.mark.parametrize("slot", ["weighting", "objective", "balance", "model"])
def test_a_parts_loss_moves_that_part_alone_and_the_agents_losses_do_not_move_it(
    slot: str, build: Build, draw_batch: DrawBatch, configs: Any
) -> None:
    agent = build(configs["sac"], **OCCUPANTS)
    for due, moved in (((slot,), {slot}), (agent.losses, set(agent.losses))):
        before = {key: p.detach().clone() for key, p in agent.named_parameters() if not key.startswith("optimizers")}
        agent.apply_update(due, draw_batch(0), agent.draw(8))
        assert {key.split(".")[0] for key, p in before.items() if not torch.equal(p, agent.get_parameter(key))} == moved


def test_every_part_has_an_optimiser_with_the_agents_learning_rate(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agent = build(configs["sac"], **OCCUPANTS, optimizer=Adam(learning_rate=1e-2))
    before = agent.model.net.weight.detach().clone()
    agent.update(draw_batch(0))
    torch.testing.assert_close((agent.model.net.weight.detach() - before).abs(), torch.full_like(before, 1e-2), rtol=1e-3, atol=0)


def test_an_objective_can_follow_the_gradient_through_the_bootstrap_value(
    build: Build, draw_batch: DrawBatch, configs: Any
) -> None:
    agent = build(configs["td3"], objective=OCCUPANTS["objective"], critics=1)
    batch, noise = draw_batch(0), agent.draw(8)

    def residual(parameters: dict[str, Tensor]) -> Tensor:
        return agent.evaluate(parameters, "critic", batch, noise, {})[0]

    got = grad(residual)(agent.own("critic"))
    action = (agent.target_actor(batch.next_obs) + (0.2 * noise[0]).clamp(-0.5, 0.5)).clamp(-1, 1)
    error = (
        batch.reward
        + batch.discount * agent.critic(batch.next_obs, action).squeeze()
        - agent.critic(batch.obs, batch.action).squeeze()
    )
    names, parameters = zip(*agent.critic.named_parameters(), strict=True)
    full = torch.autograd.grad((batch.weight * 0.5 * error.square()).mean(), parameters, retain_graph=True)
    for name, expected in zip(names, full, strict=True):
        torch.testing.assert_close(got[f"critic.{name}"], expected, msg=name)


def test_a_balance_widens_what_the_actor_sees(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agent = build(configs["td3"], balance=OCCUPANTS["balance"])
    assert agent.actor.get_parameter("body.layers.0.weight").shape == (16, 3 + 2)
    assert agent.target_actor.get_parameter("body.layers.0.weight").shape == (16, 3 + 2)
    assert agent.critic.get_parameter("body.layers.0.weight").shape == (2, 16, 3 + 2)
    agent.update(draw_batch(0))
    before = agent.act(draw_batch(1).obs, explore=False)
    with torch.no_grad():
        agent.balance.chooser.bias.add_(5.0)
    assert not torch.allclose(before, agent.act(draw_batch(1).obs, explore=False))


def test_interventions_happen_after_the_update_that_they_count(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agent = build(configs["sac"], plasticity=OCCUPANTS["plasticity"])
    for count in range(1, 5):
        agent.update(draw_batch(count))
        biases = [p for name, p in agent.actor.named_parameters() if "bias" in name]
        assert all((bias == 0).all() for bias in biases) == (count % 2 == 0)


def test_imagined_rows_reach_the_losses(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agent, batch = build(configs["sac"], model=OCCUPANTS["model"]), draw_batch(0)
    seen = agent.prepare(batch, agent.draw(len(batch.obs)))
    torch.testing.assert_close(seen.next_obs[::2], agent.model.predict(batch)[::2])
    assert torch.equal(seen.next_obs[1::2], batch.next_obs[1::2])


class Forgotten(UniformWeighting):
    def __init__(self, spec: Spec, critics: int):
        super().__init__()
        self.parameter = nn.Parameter(torch.zeros(1))

    def forward(self, weight: Tensor, regression: Regression) -> Tensor:
        return weight


def test_a_part_with_parameters_but_no_loss_says_so(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    with pytest.raises(NotImplementedError, match="Forgotten has parameters but no loss"):
        build(configs["sac"], weighting=Occupant(Forgotten)).update(draw_batch(0))


def test_all_slots_together_are_one_graph(
    build: Build, draw_batch: DrawBatch, configs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced without a break; the graph is then run as it was traced, which needs no compiler."""
    compiler = torch.compile
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiler(function, **options, backend="eager"))
    agent, traced = build(configs["sac"], **OCCUPANTS), build(configs["sac"], **OCCUPANTS, execution=Execution(compile=True))
    for count in range(3):
        expected, metrics = agent.update(draw_batch(count)), traced.update(draw_batch(count))
        for key, value in expected.items():
            torch.testing.assert_close(metrics[key], value, msg=key)
