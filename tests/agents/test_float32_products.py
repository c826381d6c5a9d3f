"""Float32 products by oneDNN: for the time of a call, where they gain, and in float32."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from steelyard.agents import float32_products
from steelyard.agents.agent import Execution
from steelyard.agents.float32_products import MATMUL, fast_float32, onednn_wins, stays_float32
from steelyard.agents.parts import Ensemble
from steelyard.agents.types import Batch
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.learner import Learner
from steelyard.trainers.samplers import Uniform

CPU = torch.device("cpu")
AMD, INTEL = "vendor_id\t: AuthenticAMD\n", "vendor_id\t: GenuineIntel\n"


@pytest.fixture(autouse=True)
def default_library():
    """The switch as torch has it by default, before and after."""
    onednn_wins.cache_clear()
    MATMUL.fp32_precision = "none"
    yield
    MATMUL.fp32_precision = "none"
    onednn_wins.cache_clear()


def machine(monkeypatch: pytest.MonkeyPatch, description: str, capability: str, exact: bool):
    """A processor of that description."""
    monkeypatch.setattr(float32_products, "processor", lambda: description)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(float32_products, "stays_float32", lambda: exact)


def switch(*_: object) -> str:
    """Who multiplies now."""
    return MATMUL.fp32_precision


@pytest.mark.parametrize(
    ("description", "capability", "exact", "expected"),
    [
        (AMD, "AVX512", True, True),
        (AMD, "AVX512", False, False),
        (AMD, "AVX2", True, False),
        (INTEL, "AVX512", True, False),
        ("", "AVX512", True, False),
    ],
)
def test_only_processors_that_gain_and_do_not_round(
    monkeypatch: pytest.MonkeyPatch, description: str, capability: str, exact: bool, expected: bool
) -> None:
    machine(monkeypatch, description, capability, exact)
    assert onednn_wins() is expected
    assert fast_float32(switch, CPU)() == ("bf16" if expected else "none")


def test_the_switch_is_back_after_a_call_and_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, AMD, "AVX512", True)

    def fail() -> None:
        assert switch() == "bf16"
        raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        fast_float32(fail, CPU)()
    assert switch() == "none"
    assert torch.get_float32_matmul_precision() == "highest"  # raises where the new switch was left behind


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, AMD, "AVX512", True)
    MATMUL.fp32_precision = "ieee"
    assert fast_float32(switch, CPU)() == "ieee"
    assert switch() == "ieee"


def test_a_gpu_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, AMD, "AVX512", True)
    assert fast_float32(switch, torch.device("cuda")) is switch


def test_rounding_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    full = torch.full

    def rounded(*arguments: Any) -> torch.Tensor:
        return full(*arguments).bfloat16().float()

    stays_float32()
    assert switch() == "none"
    monkeypatch.setattr(torch, "full", rounded)
    assert not stays_float32()
    assert switch() == "none"


@pytest.mark.skipif(not onednn_wins(), reason="a processor on which torch's default library is as fast")
@pytest.mark.parametrize(
    "shape", [(1, 256, 256, 256), (2, 256, 23, 256), (2, 256, 512, 2048), (7, 256, 200, 200), (2, 256, 256, 1), (1, 1, 17, 256)]
)
def test_products_are_float32(shape: tuple[int, int, int, int]) -> None:
    members, rows, inputs, outputs = shape
    generator = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(members, rows, inputs, generator=generator),
        torch.randn(members, inputs, outputs, generator=generator),
    )
    exact = x.double() @ weight.double()
    default = torch.bmm(x, weight)
    fast = fast_float32(torch.bmm, CPU)(x, weight)
    # Bfloat16 inputs would be off by more than a hundred times this.
    assert (fast - exact).abs().max() <= 3 * (default - exact).abs().max() + 1e-5


def test_updates_run_in_it_and_single_actions_do_not(
    monkeypatch: pytest.MonkeyPatch, build: Callable[..., Any], draw_batch: Callable[..., Batch], configs: Any
) -> None:
    machine(monkeypatch, AMD, "AVX512", True)
    seen: list[str] = []

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            seen.append(f"{function.__name__}: {switch()}")
            return function(*arguments)

        return run

    monkeypatch.setattr("steelyard.agents.agent.one_graph", watched)
    agent = build(configs["sac"], execution=Execution(compile=True))
    agent.update(draw_batch(0))
    agent.act(torch.zeros(1, 3), explore=True)
    assert seen == ["apply_update: bf16", "explore: none"]


def test_learner_and_model_run_in_it(
    monkeypatch: pytest.MonkeyPatch, build: Callable[..., Any], configs: Any, tmp_path: Path
) -> None:
    seen: list[str] = []

    def watched(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
        seen.append(function.__name__)
        return function

    monkeypatch.setattr("steelyard.agents.agent.fast_float32", watched)
    agent = build(configs["sac"], model=Ensemble(members=2, elites=1, hidden=(8,)))
    Learner(agent, Uniform().build(ReplayBuffer(agent.spec, 10), 4, 1, 0.99, 0), tmp_path)
    assert sorted(seen) == ["apply", "apply_update", "imagine_rows", "step"]
