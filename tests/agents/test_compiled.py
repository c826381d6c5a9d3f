"""The compiled update is the eager one: one graph without a break, the same numbers.

One agent goes through the real code generator, which takes a minute. The others are traced into one graph, differentiated and made
functional as for it, and then run operation by operation: what can go wrong beyond that has no agent of its own.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from steelyard.agents.agent import Execution
from steelyard.agents.dqn import DQN
from steelyard.agents.networks import MLP, SimbaV2
from steelyard.agents.parts import (
    Combined,
    HuberBellman,
    InverseVariance,
    L2Init,
    Munchausen,
    PlasticityInjection,
    ReDo,
    SpectralRegularization,
)
from steelyard.agents.types import Batch, Spec, Step

Build = Callable[..., Any]
DrawBatch = Callable[..., Batch]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """The compiler counts all graphs of a process."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def live(agents: tuple[Any, Any], draw_batch: DrawBatch, updates: range) -> None:
    """Both agents see and learn the same, and must report the same. Running statistics move between updates."""
    no = torch.zeros(2, dtype=torch.bool)
    for count in updates:
        batch = draw_batch(count)
        expected, metrics = (agent.update(batch) for agent in agents)
        assert metrics.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(metrics[key], value, rtol=1e-4, atol=1e-5, msg=f"{key} of update {count + 1}")
            assert not metrics[key].requires_grad
        for agent in agents:
            agent.observe(Step(5 * batch.obs[:2], 5 * batch.obs[:2], 30 * batch.reward[:2], no, no, ~no, {}))


def assert_same_weights(eager: Any, compiled: Any) -> None:
    for (name, p), (_, q) in zip(eager.named_parameters(), compiled.named_parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=2e-5, msg=name)


def test_generated_code_equals_eager(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    agents = eager, compiled = build(configs["sac"]), build(configs["sac"], execution=Execution(compile=True))
    live(agents, draw_batch, range(3))
    assert_same_weights(*agents)
    for explore in (True, False):
        torch.testing.assert_close(compiled.act(draw_batch(0).obs, explore), eager.act(draw_batch(0).obs, explore))


@pytest.mark.parametrize(
    ("name", "patterns"),
    [("td3", 2), ("sac-simba-v2", 1), ("bc", 1), ("awac", 1), ("cal-ql", 1), ("rlpd", 2), ("iql-famo2o-simba-v2", 2)],
)
def test_one_graph_for_each_pattern_of_due_losses_equals_eager(
    name: str, patterns: int, build: Build, draw_batch: DrawBatch, configs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TD3 has two patterns, with and without the delayed policy, FamO2O with and without the balance. Once each was seen nothing is traced again."""
    compiler, options, traced = torch.compile, [], []

    def backend(graph: Any, inputs: Any) -> Any:
        traced.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    def compile_by_tracing(function: Any, **given: Any) -> Any:
        options.append(given)
        return compiler(function, **given, backend=backend)

    monkeypatch.setattr(torch, "compile", compile_by_tracing)
    small: dict[str, Any] = {
        "sac-simba-v2": {"critic": SimbaV2(16, 1)},
        "cal-ql": {"critics": 3, "target_subset": 2, "target_draw": "independent"},  # as in WSRL
    }.get(name, {})
    agents = build(configs[name], **small), build(configs[name], **small, execution=Execution(compile=True))
    live(agents, draw_batch, range(patterns))
    seen = len(traced)
    live(agents, draw_batch, range(patterns, 5))
    assert len(traced) == seen >= patterns
    assert_same_weights(*agents)
    assert options
    assert all(given["fullgraph"] for given in options)


def test_a_policy_that_sees_less_than_its_critics_is_one_graph(
    draw_batch: DrawBatch, configs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **given: compiler(function, **given, backend="aot_eager"))
    spec = Spec(3, 2, horizon=1000, policy_obs_size=2)
    agents: Any = [
        configs["sac"].build(spec, num_envs=2, total_updates=9, seed=0, execution=Execution(compile=compiled))
        for compiled in (False, True)
    ]
    live((agents[0], agents[1]), draw_batch, range(3))
    assert_same_weights(*agents)
    obs = draw_batch(5).obs
    assert torch.allclose(agents[0].act(obs, True), agents[1].act(obs, True), atol=1e-6)
    assert torch.equal(agents[0].act(obs[:, :2], False), agents[0].act(obs, False))


def test_learned_objectives_weights_and_choices_are_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **given: compiler(function, **given, backend="aot_eager"))
    spec, generator = Spec(3, 4, discrete=True), torch.Generator().manual_seed(0)
    config = DQN(
        critic=MLP((16,)),
        improvement=Munchausen(),
        objective=HuberBellman(network=MLP((8,))),
        weighting=InverseVariance(MLP((8,)), period=2),
        target_period=2,
    )
    agents: Any = [
        config.build(spec, num_envs=2, total_updates=9, seed=0, execution=Execution(compile=compiled))
        for compiled in (False, True)
    ]

    def draw(seed: int) -> Batch:
        obs, next_obs = torch.randn(2, 8, 3, generator=generator)
        one = torch.ones(8)
        return Batch(
            obs, spec.random_action(8, generator), torch.randn(8, generator=generator), next_obs, 0.9 * one, one, torch.arange(8)
        )

    live((agents[0], agents[1]), draw, range(6))
    assert_same_weights(*agents)
    obs = torch.randn(5, 3)
    assert torch.equal(agents[0].act(obs, True), agents[1].act(obs, True))


def test_interventions_between_and_inside_compiled_updates(
    build: Build, draw_batch: DrawBatch, configs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written in place between updates is what the graph reads, and singular vectors move inside it; nothing is traced again."""
    compiler, traced = torch.compile, []

    def backend(graph: Any, inputs: Any) -> Any:
        traced.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    monkeypatch.setattr(torch, "compile", lambda function, **given: compiler(function, **given, backend=backend))
    pulls = (ReDo(period=2, threshold=0.5), L2Init(), SpectralRegularization(strength=0.1))
    plasticity = Combined(*pulls, PlasticityInjection(update=3))
    agents = tuple(build(configs["sac"], plasticity=plasticity, execution=Execution(compile=c)) for c in (False, True))
    live((agents[0], agents[1]), draw_batch, range(1))
    seen = len(traced)
    live((agents[0], agents[1]), draw_batch, range(1, 6))
    assert len(traced) == seen
    assert_same_weights(*agents)
    for (name, one), (_, other) in zip(agents[0].named_buffers(), agents[1].named_buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4, msg=name)


def test_eager_execution_compiles_nothing(
    build: Build, draw_batch: DrawBatch, configs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda *arguments, **options: pytest.fail("something was compiled"))
    build(configs["sac"]).update(draw_batch(0))
