"""bfloat16 is how matrices are multiplied and nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from steelyard.agents.agent import Execution, has_native_bf16
from steelyard.agents.networks import SimbaV2
from steelyard.agents.types import Batch

BF16 = Execution(precision="bf16", compile=False)


@pytest.mark.parametrize("name", ["sac", "td3", "sac-simba-v2", "td3-simba-v2"])
def test_bf16_stays_close_to_fp32_and_keeps_everything_else_in_float32(
    name: str, build: Callable[..., Any], draw_batch: Callable[..., Batch], configs: Any
) -> None:
    reference, agent = build(configs[name]), build(configs[name], execution=BF16)
    for count in range(2):
        expected, metrics = reference.update(draw_batch(count, 32)), agent.update(draw_batch(count, 32))
        assert metrics.keys() == expected.keys()
        for key, value in metrics.items():
            assert value.dtype == torch.float32, key
            assert value.item() == pytest.approx(expected[key].item(), abs=0.03, rel=0.03), key
        assert any(metrics[key].item() != expected[key].item() for key in metrics)  # bf16 was really used
    for key, p in agent.named_parameters():
        assert p.dtype == torch.float32, key
    assert agent.act(torch.zeros(2, 3), explore=True).dtype == torch.float32


def test_targets_and_outputs_are_float32(build: Callable[..., Any], draw_batch: Callable[..., Batch], configs: Any) -> None:
    for name in ("sac", "sac-simba-v2"):
        agent, batch = build(configs[name], execution=BF16), draw_batch(0)
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            regression = agent.regression(agent.prepare(batch, agent.draw(8)), agent.draw(8))
            assert regression.output.dtype == torch.float32
            assert regression.target().dtype == torch.float32


def test_a_dead_layer_survives_bf16() -> None:
    """1e-8 is no number that bfloat16 loses, but norms must be taken in float32."""
    network: Any = SimbaV2(8, 1).build(3, (2,))
    with torch.no_grad():
        network.blocks[0].scaler.weight.zero_()
    with torch.autocast("cpu", torch.bfloat16):
        h = network.embedding(torch.randn(4, 3))
        moved = network.blocks[0](h)
    assert moved.dtype == torch.float32
    torch.testing.assert_close(moved.norm(dim=-1), torch.ones(4))
    assert (moved - h).norm(dim=-1).min() > 0.01


def test_auto_takes_bf16_only_where_the_hardware_has_it() -> None:
    cpu = torch.device("cpu")
    assert Execution("auto").autocast_enabled(cpu) == has_native_bf16(cpu)
    assert Execution("bf16").autocast_enabled(cpu)
    assert not Execution("fp32").autocast_enabled(cpu)
