"""What composes with what: agents/README.md's table is what building and training each combination says."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from steelyard.agents.agent import Execution
from steelyard.agents.awac import AWAC
from steelyard.agents.bc import BC
from steelyard.agents.cql import CQL
from steelyard.agents.dqn import DQN
from steelyard.agents.errors import SlotError
from steelyard.agents.iql import IQL
from steelyard.agents.networks import MLP, SimbaV2
from steelyard.agents.networks.heads import Categorical
from steelyard.agents.parts import (
    AbsoluteBellman,
    ActionDistance,
    ClippedSemiGradient,
    DensityRatio,
    Ensemble,
    Family,
    HuberBellman,
    InverseVariance,
    L2Init,
    Munchausen,
    PlasticityInjection,
    ReDo,
    Reset,
    ReturnBound,
    ShrinkAndPerturb,
    SpectralRegularization,
)
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.agents.types import Batch, Spec

SMALL = MLP((8,))
AGENTS: dict[str, Any] = {
    "SAC": SAC(actor=SMALL, critic=SMALL),
    "TD3": TD3(actor=SMALL, critic=SMALL),
    "IQL": IQL(actor=SMALL, critic=SMALL, value=SMALL),
    "AWAC": AWAC(actor=SMALL, critic=SMALL),
    "CQL": CQL(actor=SMALL, critic=SMALL, samples=2),
    "DQN": DQN(critic=SMALL),
    "BC": BC(actor=SMALL),
}
OCCUPANTS: dict[str, dict[str, Any]] = {
    "critic `SimbaV2`": {"critic": SimbaV2(8, 1)},
    "head `Categorical`": {"head": Categorical(11)},
    "objective `ClippedSemiGradient`": {"objective": ClippedSemiGradient()},
    "objective `HuberBellman`": {"objective": HuberBellman(network=SMALL)},
    "objective `AbsoluteBellman`": {"objective": AbsoluteBellman(network=SMALL)},
    "weighting `DensityRatio`": {"weighting": DensityRatio(network=SMALL)},
    "weighting `InverseVariance`": {"weighting": InverseVariance(network=SMALL, period=2)},
    "balance `Family`": {"balance": Family(network=SMALL)},
    "model `Ensemble`": {"model": Ensemble(members=2, elites=1, hidden=(8,))},
    "cloning `ActionDistance`": {"cloning": ActionDistance()},
    "calibration `ReturnBound`": {"calibration": ReturnBound()},
    "improvement `Munchausen`": {"improvement": Munchausen()},
    "plasticity `Reset`": {"plasticity": Reset(period=2)},
    "plasticity `ReDo`": {"plasticity": ReDo(period=2)},
    "plasticity `ReDo`, critic `SimbaV2`": {"plasticity": ReDo(period=2), "critic": SimbaV2(8, 1)},
    "plasticity `ShrinkAndPerturb`": {"plasticity": ShrinkAndPerturb(period=2)},
    "plasticity `PlasticityInjection`": {"plasticity": PlasticityInjection(update=2)},
    "plasticity `L2Init`": {"plasticity": L2Init()},
    "plasticity `SpectralRegularization`": {"plasticity": SpectralRegularization()},
    "plasticity `SpectralRegularization`, critic `SimbaV2`": {
        "plasticity": SpectralRegularization(),
        "critic": SimbaV2(8, 1),
    },
}


def draw(spec: Spec) -> Batch:
    generator = torch.Generator().manual_seed(0)
    obs, next_obs = torch.randn(2, 8, spec.obs_size, generator=generator)
    action, one = spec.random_action(8, generator), torch.ones(8)
    return Batch(obs, action, torch.randn(8, generator=generator), next_obs, 0.9 * one, one, torch.arange(8), action, one)


def verdict(config: Any, slots: dict[str, Any]) -> str:
    """Whether an agent has the slot, refuses its occupant, or trains with it."""
    if not {f.name for f in dataclasses.fields(config)} >= slots.keys():
        return "-"
    spec = Spec(3, 2, discrete=isinstance(config, DQN))
    try:
        agent: Any = dataclasses.replace(config, **slots).build(
            spec, num_envs=1, total_updates=9, seed=0, execution=Execution(compile=False)
        )
    except SlotError:
        return "refused"
    for _ in range(3):
        assert agent.check(agent.update(draw(spec))) is None
    return "yes"


def table() -> str:
    lines = [f"| | {' | '.join(AGENTS)} |", f"|---|{'---|' * len(AGENTS)}"]
    lines += [
        f"| {name} | {' | '.join(verdict(agent, slots) for agent in AGENTS.values())} |" for name, slots in OCCUPANTS.items()
    ]
    return "\n".join(lines)


def test_the_table_is_what_the_code_says(repository: Path) -> None:
    (written,) = re.findall(
        r"<!-- compositions -->\n(.*?)\n<!-- end -->", (repository / "agents" / "README.md").read_text(), re.DOTALL
    )
    assert written == table()


@pytest.mark.parametrize("name", ["SAC", "TD3"])
@pytest.mark.parametrize("head", [None, Categorical(21)])
def test_everything_at_once(name: str, head: Any, repository: Path) -> None:
    """Robust loss x variance weights x SimbaV2 x FamO2O, of which each learned part is trained."""
    slots: dict[str, Any] = {
        "actor": SimbaV2(8, 1),
        "critic": SimbaV2(8, 1),
        "objective": HuberBellman(network=SMALL),
        "weighting": InverseVariance(network=SMALL, period=2),
        "balance": Family(network=SMALL),
    } | ({"head": head} if head else {})
    agent: Any = dataclasses.replace(AGENTS[name], **slots).build(
        Spec(3, 2), num_envs=1, total_updates=9, seed=0, execution=Execution(compile=False)
    )
    build: Callable[[], list[Any]] = lambda: [p.detach().clone() for p in agent.parameters() if p.requires_grad]  # noqa: E731
    before = build()
    for _ in range(4):
        assert agent.check(agent.update(draw(Spec(3, 2)))) is None
    assert {"objective", "weighting", "balance"} <= set(agent.trained)
    moved = [not torch.equal(a, b) for a, b in zip(before, build(), strict=True)]
    assert sum(moved) > 0.8 * len(moved)
