"""The compiled update is the eager one: one graph without a break, the same numbers.

One agent goes through the real code generator, which takes a minute. The others are traced into one graph, differentiated and made
functional as for it, and then run operation by operation: what can go wrong beyond that has no agent of its own.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from steelyard.agents.agent import Execution
from steelyard.agents.types import Batch

Build = Callable[..., Any]
DrawBatch = Callable[..., Batch]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """The compiler counts all graphs of a process."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def assert_equal_lives(eager: Any, compiled: Any, draw_batch: DrawBatch, updates: int) -> None:
    for count in range(updates):
        expected, metrics = eager.update(draw_batch(count)), compiled.update(draw_batch(count))
        assert metrics.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(metrics[key], value, rtol=1e-4, atol=1e-5, msg=f"{key} of update {count + 1}")
            assert not metrics[key].requires_grad
    for (name, p), (_, q) in zip(eager.named_parameters(), compiled.named_parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=2e-5, msg=name)


def test_generated_code_equals_eager(build: Build, draw_batch: DrawBatch, configs: Any) -> None:
    eager, compiled = build(configs["sac"]), build(configs["sac"], execution=Execution(compile=True))
    assert_equal_lives(eager, compiled, draw_batch, updates=3)
    for explore in (True, False):
        torch.testing.assert_close(compiled.act(draw_batch(0).obs, explore), eager.act(draw_batch(0).obs, explore))


@pytest.mark.parametrize(("name", "graphs"), [("td3", 2), ("sac-simba-v2", 1)])
def test_one_graph_for_each_pattern_of_due_losses_equals_eager(
    name: str, graphs: int, build: Build, draw_batch: DrawBatch, configs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TD3 has two patterns: with and without the delayed policy. Four updates see both twice."""
    compiler, options, traced = torch.compile, [], []

    def backend(graph: Any, inputs: Any) -> Any:
        traced.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    def compile_by_tracing(function: Any, **given: Any) -> Any:
        options.append(given)
        return compiler(function, **given, backend=backend)

    monkeypatch.setattr(torch, "compile", compile_by_tracing)
    eager, compiled = build(configs[name]), build(configs[name], execution=Execution(compile=True))
    assert_equal_lives(eager, compiled, draw_batch, updates=4)
    assert len(traced) == graphs
    assert all(given["fullgraph"] for given in options)


def test_eager_execution_compiles_nothing(build: Build, draw_batch: DrawBatch, configs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda *arguments, **options: pytest.fail("something was compiled"))
    build(configs["sac"]).update(draw_batch(0))
