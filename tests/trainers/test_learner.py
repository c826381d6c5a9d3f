"""Sampling and updating as one step: the same as doing both by hand, and a loss that diverges stops the run and leaves its batch."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from steelyard.agents.agent import Execution
from steelyard.agents.errors import DivergenceError
from steelyard.agents.networks import MLP
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import Part
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.agents.types import Spec, Step
from steelyard.trainers import checkpoint, presets, shrinking
from steelyard.trainers.buffer import ReplayBuffer
from steelyard.trainers.learner import Learner
from steelyard.trainers.online import Online
from steelyard.trainers.samplers import Uniform

SPEC = Spec(obs_size=3, action_size=2)
SMALL: dict[str, Any] = {"actor": MLP((8,)), "critic": MLP((8,)), "batch_size": 8}
EAGER = Execution(compile=False)


def build(config: SAC | TD3, folder: Path, execution: Execution = EAGER) -> tuple[Any, Learner]:
    """An agent and its learner over fifty random transitions."""
    generator = torch.Generator().manual_seed(0)
    agent = config.build(SPEC, num_envs=1, total_updates=100, seed=0, execution=execution)
    buffer = ReplayBuffer(SPEC, 100)
    obs, no = torch.zeros(1, 3), torch.zeros(1, dtype=torch.bool)
    for _ in range(50):
        after = torch.randn(1, 3, generator=generator)
        buffer.add(
            obs, torch.rand(1, 2, generator=generator), Step(after, after, torch.randn(1, generator=generator), no, no, ~no, {})
        )
        obs = after
    return agent, Learner(agent, Uniform().build(buffer, config.batch_size, 1, agent.gamma, 7), folder)


@pytest.mark.parametrize("config", [SAC(**SMALL), TD3(**SMALL)], ids=["sac", "td3"])
def test_learning_is_sampling_and_updating(config: SAC | TD3, tmp_path: Path) -> None:
    one, learner = build(config, tmp_path)
    two, other = build(config, tmp_path)
    learner.update(2)
    learner.update(0)
    learner.update(1)
    for _ in range(3):
        metrics = two.update(other.sampler.sample())
    assert one.update_count == two.update_count == 3
    for (name, p), (_, q) in zip(one.named_parameters(), two.named_parameters(), strict=True):
        assert torch.equal(p, q), name
    assert all(torch.equal(learner.metrics[name], value) for name, value in metrics.items())
    assert torch.equal(learner.sampler.noise(), other.sampler.noise())
    assert torch.equal(one.draw(4), two.draw(4))


def test_delayed_losses_keep_their_last_value(tmp_path: Path) -> None:
    _, learner = build(TD3(**SMALL), tmp_path)
    learner.update(1)
    assert "actor_loss" not in learner.metrics
    learner.update(1)
    actor, critic = learner.metrics["actor_loss"].item(), learner.metrics["critic_loss"].item()
    learner.update(1)
    assert learner.metrics["actor_loss"].item() == actor
    assert learner.metrics["critic_loss"].item() != critic


def poison(agent: Any, child: str, value: float) -> None:
    with torch.no_grad():
        next(iter(agent.get_submodule(child).parameters())).fill_(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_its_name_and_its_batch(value: float, tmp_path: Path) -> None:
    agent, learner = build(SAC(**SMALL), tmp_path)
    learner.update(2)
    poison(agent, "target_critic", value)
    with pytest.raises(DivergenceError) as error:
        learner.update(1)
    sentence = str(error.value)
    assert sentence.startswith("critic_loss is ")
    assert "at update 3" in sentence
    assert "learning_rate" in sentence
    assert "\n" not in sentence
    assert str(tmp_path / "diverged_batch.pt") in sentence


def test_the_saved_batch_is_the_one_that_made_the_loss_diverge(tmp_path: Path) -> None:
    agent, learner = build(SAC(**SMALL), tmp_path)
    twin, other = build(SAC(**SMALL), tmp_path)
    learner.update(2)
    other.update(2)
    expected = other.sampler.sample()
    poison(agent, "actor", float("nan"))
    with pytest.raises(DivergenceError, match="actor_loss is nan at update 3"):
        learner.update(1)
    saved = torch.load(tmp_path / "diverged_batch.pt", weights_only=True)
    assert set(saved) == set(expected._fields)
    for name, column in expected._asdict().items():
        assert column is None if saved[name] is None else torch.equal(saved[name], column), name
    assert twin.update_count == 2


def test_the_first_loss_of_the_update_is_the_one_that_is_named(tmp_path: Path) -> None:
    """SAC's actor comes first; a poisoned critic shows there before it shows in its own loss."""
    agent, learner = build(SAC(**SMALL), tmp_path)
    poison(agent, "critic", float("nan"))
    with pytest.raises(DivergenceError, match="actor_loss"):
        learner.update(1)


def test_updates_that_were_due_after_the_divergence_do_not_happen(tmp_path: Path) -> None:
    agent, learner = build(SAC(**SMALL, optimizer=Adam(learning_rate=1e38)), tmp_path)
    with pytest.raises(DivergenceError):
        learner.update(10)
    assert agent.update_count == 1


def test_checking_without_a_batch_names_the_loss_alone(tmp_path: Path) -> None:
    _, learner = build(SAC(**SMALL), tmp_path)
    learner.check()  # nothing was learned yet
    learner.update(1)
    learner.check()
    learner.metrics["critic_loss"] = torch.tensor(float("nan"))
    with pytest.raises(DivergenceError, match=r"critic_loss is nan at update 1:"):
        learner.check()
    assert not (tmp_path / "diverged_batch.pt").exists()


def test_interventions_happen_once_per_update(tmp_path: Path) -> None:
    agent, learner = build(SAC(**SMALL), tmp_path)
    counts: list[int] = []

    class Watching(Part):
        def intervene(self, agent: Any, update_count: int) -> None:
            counts.append(update_count)

    agent.plasticity = Watching()
    learner.update(3)
    assert counts == [1, 2, 3]


def test_sampling_and_update_are_one_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced without a break, sampling included; the graph is then run as it was traced, which needs no compiler."""
    compiler, inputs = torch.compile, []

    def backend(graph: Any, examples: list[Tensor]) -> Any:
        inputs.append(examples)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiler(function, **options, backend=backend))
    traced, learner = build(TD3(**SMALL), tmp_path, Execution(compile=True))
    eager, other = build(TD3(**SMALL), tmp_path)
    learner.update(4)
    other.update(4)
    assert len(inputs) == 2  # without and with the delayed policy
    for (name, p), (_, q) in zip(traced.named_parameters(), eager.named_parameters(), strict=True):
        torch.testing.assert_close(p, q, msg=name)
    torch._dynamo.reset()


def test_a_checkpoint_of_a_diverged_agent_is_not_written(tmp_path: Path) -> None:
    """On a GPU nobody looks at the losses of every update."""
    run = shrinking.debug(presets.MUJOCO["sac"])
    run = dataclasses.replace(run, task="Pendulum-v1", env_steps=80, random_steps=60, execution=EAGER, log_to=())
    online = Online(run, tmp_path)
    online.train()
    good, best = checkpoint.latest(tmp_path / "checkpoints"), online.best
    online.learner.metrics["critic_loss"] = torch.tensor(float("nan"))
    with pytest.raises(DivergenceError, match="critic_loss is nan"):
        online.save()
    online.best = float("-inf")
    with pytest.raises(DivergenceError, match="critic_loss is nan"):
        online.evaluate()
    online.close()
    assert checkpoint.latest(tmp_path / "checkpoints") == good
    assert good is not None
    assert checkpoint.load(tmp_path / "checkpoints" / "best")[1]["best"] == best
