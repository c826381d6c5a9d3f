"""What a CUDA graph captures stays on the device, for every agent and every learned part.

Checked without a GPU, on torch's device without storage: a question for a value, a tensor from the host, or one of another device raises. On a
GPU each of them ends a capture, or, a number on the host, is frozen into it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from steelyard.agents.agent import Execution
from steelyard.agents.dqn import DQN
from steelyard.agents.networks import MLP, SimbaV2
from steelyard.agents.parts import (
    AbsoluteBellman,
    Combined,
    HuberBellman,
    InverseVariance,
    L2Init,
    Munchausen,
    Reset,
    ShrinkAndPerturb,
    SpectralRegularization,
)
from steelyard.agents.types import Batch, Spec

DrawBatch = Callable[..., Batch]
DEVICE = "meta"
WAITS = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2", "unique_dim")
"""Operations that wait for the device that their tensors lie on."""
FROM_HOST = {torch.tensor, torch.as_tensor, torch.from_numpy, torch.asarray, Tensor.new_tensor}
"""Functions that carry numbers of the host to the device."""


class Here(TorchDispatchMode):
    """Fails the test if an operation waits for the device, or takes a tensor that is not on it."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = function._schema.name.removeprefix("aten::"), kwargs or {}
        assert name not in WAITS, f"{name} waits for the device"
        given = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        assert given <= {DEVICE}, f"{name} takes a tensor of {given}"
        result = function(*args, **kwargs)
        made = {leaf.device.type for leaf in tree_leaves(result) if isinstance(leaf, Tensor)}
        assert made <= {DEVICE}, f"{name} makes a tensor on {made}"
        return result


class NothingFromHost(TorchFunctionMode):
    """Fails the test if numbers of the host become a tensor."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        values = args[1] if function is Tensor.new_tensor else args[0] if args else None
        carried = function in FROM_HOST and not isinstance(values, Tensor)
        assert not carried, f"{function.__name__} carries numbers to the device"
        return function(*args, **(kwargs or {}))


pytestmark = pytest.mark.usefixtures("without_storage")
HOST = torch.tensor(2.0)


def on_device(batch: Batch) -> Batch:
    return Batch(*(None if column is None else column.to(DEVICE) for column in batch))  # pyright: ignore[reportArgumentType]


def live(config: Any, spec: Spec, batch: Batch, updates: int = 4) -> Any:
    """An agent on the device after some updates and actions, with only what lies between updates unwatched."""
    agent = config.build(spec, num_envs=2, total_updates=100, seed=0, device=DEVICE, execution=Execution(compile=False))
    batch = on_device(batch)
    metrics: dict[str, Tensor] = {}
    for _ in range(updates):
        noise, due = agent.draw(len(batch.reward)), agent.advance()
        with torch.no_grad(), Here(), NothingFromHost():
            metrics |= agent.apply_update(due, batch, noise)
        agent.intervene()
    exploring = agent.draw_exploration(2)
    with torch.no_grad(), Here(), NothingFromHost():
        action = agent.explore(batch.obs[:2], exploring)
    assert action.device.type == DEVICE
    assert {value.device.type for value in metrics.values()} == {DEVICE}
    assert {tensor.device.type for tensor in (*agent.parameters(), *agent.buffers())} == {DEVICE}
    return agent


def test_every_agent(name: str, configs: Any, spec: Spec, draw_batch: DrawBatch) -> None:
    live(configs[name], spec, draw_batch(0))


@pytest.mark.parametrize("name", ["sac", "td3"])
@pytest.mark.parametrize(
    "changes",
    [
        {"objective": HuberBellman(1.0)},
        {"objective": AbsoluteBellman()},
        {"weighting": InverseVariance(network=MLP((16,)))},
        {"weighting": InverseVariance(network=SimbaV2(16, 1)), "objective": HuberBellman(1.0)},
        {"plasticity": Combined(L2Init(0.1), SpectralRegularization(0.1))},
        {"plasticity": Reset(period=2)},
        {"plasticity": ShrinkAndPerturb(period=2)},
    ],
    ids=lambda changes: "-".join(type(part).__name__ for part in changes.values()),
)
def test_every_learned_part(name: str, changes: dict[str, Any], configs: Any, spec: Spec, draw_batch: DrawBatch) -> None:
    live(dataclasses.replace(configs[name], **changes), spec, draw_batch(0))


def game_batch(spec: Spec, rows: int = 8) -> Batch:
    obs, next_obs = torch.rand(2, rows, spec.obs_size)
    one = torch.ones(rows)
    return Batch(
        obs, torch.randint(spec.action_size, (rows, 1)).float(), torch.randn(rows), next_obs, 0.9 * one, one, torch.arange(rows)
    )


@pytest.mark.parametrize(
    "changes",
    [{}, {"double": True, "dueling": True}, {"improvement": Munchausen()}, {"weighting": InverseVariance(network=MLP((16,)))}],
    ids=["dqn", "double-dueling", "m-dqn", "dvw-dqn"],
)
def test_dqn(changes: dict[str, Any]) -> None:
    spec = Spec(obs_size=5, action_size=3, horizon=100, discrete=True)
    live(DQN(critic=MLP((16,)), target_period=2, **changes), spec, game_batch(spec))


def test_numbers_of_the_host_are_noticed() -> None:
    """The tests above can fail."""
    here = torch.zeros(2, device=DEVICE)
    with Here(), pytest.raises(AssertionError, match="takes a tensor of"):
        torch.mul(here, HOST)
    with Here(), pytest.raises(AssertionError, match="waits"):
        float(here[0])
    with NothingFromHost(), pytest.raises(AssertionError, match="carries"):
        torch.tensor(2.0, device=DEVICE)
