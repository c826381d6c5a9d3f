"""Small agents and batches that the tests of the agents share."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from steelyard.agents.actor_critic import ActorCritic
from steelyard.agents.agent import Execution
from steelyard.agents.awac import AWAC
from steelyard.agents.bc import BC
from steelyard.agents.cql import CQL
from steelyard.agents.iql import IQL
from steelyard.agents.networks import MLP, SimbaV2
from steelyard.agents.networks.heads import Categorical
from steelyard.agents.networks.normalizers import ReturnScale, RunningNorm
from steelyard.agents.networks.policies import Gaussian
from steelyard.agents.parts import ActionDistance, DensityRatio, Family, Fixed, ReturnBound
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.agents.types import Batch, Spec

TINY: dict[str, Any] = {"actor": MLP((16,)), "critic": MLP((16,))}
TINY_SIMBA_V2: dict[str, Any] = {
    "actor": SimbaV2(8, 1),
    "critic": SimbaV2(16, 2),
    "head": Categorical(21, -5.0, 5.0),
    "observations": RunningNorm(),
    "rewards": ReturnScale(),
    "discount": None,
}
FAMILY = Family(1.0, 5.0, network=MLP((8,)), interval=2)
SIMBA_V2_POLICY: dict[str, Any] = {
    "policy": Gaussian(-10.0, 2.0, "tanh"),
    "initial_temperature": 0.01,
    "entropy_per_action": -0.5,
}


CONFIGS: dict[str, Any] = {
    "sac": SAC(**TINY),
    "td3": TD3(**TINY),
    "sac-simba-v2": SAC(**TINY_SIMBA_V2, **SIMBA_V2_POLICY),
    "td3-simba-v2": TD3(**TINY_SIMBA_V2),
    "bc": BC(actor=MLP((16,))),
    "td3-bc": TD3(**TINY, balance=Fixed(2.5), cloning=ActionDistance()),
    "rebrac": TD3(**TINY, policy_value="lowest", cloning=ActionDistance(0.1, 0.1, per_component=False)),
    "awac": AWAC(**TINY),
    "iql": IQL(**TINY, value=MLP((16,))),
    "cql": CQL(**TINY, samples=2),
    "cal-ql": CQL(**TINY, samples=2, lagrange_gap=1.0, max_target=True, calibration=ReturnBound()),
    "rlpd": SAC(**TINY, critics=4, target_subset=2, policy_value="mean", entropy_backup=False, policy_delay=2),
    "iql-famo2o-simba-v2": IQL(**TINY_SIMBA_V2, value=SimbaV2(16, 1), balance=FAMILY),
    "awac-famo2o-simba-v2": AWAC(**TINY_SIMBA_V2, balance=FAMILY),
    "cql-famo2o-simba-v2": CQL(**TINY_SIMBA_V2, samples=2, balance=FAMILY, weighting=DensityRatio(network=MLP((8,)))),
}
"""One tiny config of every agent on every kind of network."""


@pytest.fixture(scope="session")
def spec() -> Spec:
    return Spec(obs_size=3, action_size=2, horizon=1000)


@pytest.fixture(scope="session")
def configs() -> dict[str, Any]:
    """`CONFIGS`."""
    return CONFIGS


@pytest.fixture(params=CONFIGS)
def name(request: pytest.FixtureRequest) -> str:
    """Of each config in turn, for a test that does not name some itself."""
    return request.param


@pytest.fixture(scope="session")
def build(spec: Spec) -> Callable[..., Any]:
    """`build(config, seed=0, execution=eager, total_updates=100, num_envs=2, **changes of the config)` gives an agent."""

    def make(
        config: ActorCritic,
        *,
        seed: int = 0,
        execution: Execution | None = None,
        total_updates: int = 100,
        num_envs: int = 2,
        all_updates: int | None = None,
        **changes: Any,
    ) -> Any:
        changed: Any = dataclasses.replace(config, **changes)
        execution = execution or Execution(compile=False)
        counts = {"num_envs": num_envs, "total_updates": total_updates, "all_updates": all_updates}
        return changed.build(spec, **counts, seed=seed, execution=execution)

    return make


@pytest.fixture(scope="session")
def draw_batch(spec: Spec) -> Callable[..., Batch]:
    """`draw_batch(seed, rows=8)` gives random transitions, every third of them terminal, with weights that are not one."""

    def draw(seed: int, rows: int = 8) -> Batch:
        generator = torch.Generator().manual_seed(1_000 + seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        return Batch(
            obs=normal(rows, spec.obs_size),
            action=normal(rows, spec.action_size).tanh(),
            reward=normal(rows),
            next_obs=normal(rows, spec.obs_size),
            discount=0.9 * (torch.arange(rows) % 3 > 0).float(),
            weight=torch.rand(rows, generator=generator) + 0.5,
            index=torch.arange(rows),
            next_action=normal(rows, spec.action_size).tanh(),
            goal_return=normal(rows),
        )

    return draw
