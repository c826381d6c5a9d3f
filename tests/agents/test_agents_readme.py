"""The example in agents/README.md does what the page says, and the page names what there is."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from steelyard.agents.actor_critic import ActorCritic, ActorCriticAgent
from steelyard.agents.agent import Execution
from steelyard.agents.types import Batch


def page(repository: Path) -> str:
    return (repository / "agents" / "README.md").read_text()


def test_the_example_of_a_new_value_in_a_slot_trains(
    repository: Path, draw_batch: Callable[..., Batch], build: Callable[..., Any]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", page(repository), flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "agents/README.md", "exec"), names)
    assert isinstance(names["agent"].weighting, names["SurpriseWeighting"])
    agent = build(names["SAC"](weighting=names["Surprise"](power=0.5)))
    batch, noise = draw_batch(0), agent.draw(8)
    regression = agent.regression(batch, noise)
    error = agent.head.loss(regression.output, regression.target()).detach()
    expected = (batch.weight * error**1.5).mean(-1).sum()
    torch.testing.assert_close(agent.critic_loss(batch, noise, {})[0], expected)
    assert all(agent.check(agent.update(draw_batch(count))) is None for count in range(2))
    assert agent.execution == Execution(compile=False)


def test_every_slot_and_its_neutral_occupant_is_in_the_table(repository: Path) -> None:
    text = page(repository)
    for slot in ActorCriticAgent.slots:
        assert f"| `{slot}` | `{type(getattr(ActorCritic(), slot)).__name__}` |" in text


def test_every_file_is_on_the_map(repository: Path) -> None:
    text = page(repository)
    folder = repository / "agents"
    for path in folder.glob("*.py"):
        assert path.name == "__init__.py" or f"`{path.name}`" in text, path.name
    for path in (*(folder / "parts").glob("*.py"), *(folder / "networks").glob("*.py")):
        known = path.stem in ("__init__", "part", "linear", "mlp", "simba_v2", "critic")  # said in other words
        assert known or f"`{path.stem}`" in text, path.stem
