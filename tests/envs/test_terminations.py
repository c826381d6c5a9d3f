"""Imagined worlds end where the real ones do."""

import pytest
import torch

from steelyard import envs
from steelyard.agents.types import Spec
from steelyard.envs import EnvError, terminations


@pytest.mark.parametrize("task", ["Hopper-v5", "Walker2d-v5", "Ant-v4", "Humanoid-v5", "InvertedPendulum-v5", "HalfCheetah-v5"])
@pytest.mark.parametrize("distractors", [0, 2])
def test_the_rules_are_the_worlds(task: str, distractors: int) -> None:
    env = envs.make(task, 2, distractors=distractors)
    ends = terminations.termination(task, env.spec, distractors)
    env.reset(seed=0)
    generator, ended = torch.Generator().manual_seed(0), 0
    for _ in range(150):
        step = env.step(env.spec.random_action(2, generator))
        found = ends(step.next_obs)
        assert torch.equal(found[step.valid], step.terminated[step.valid])
        ended += int(step.terminated.sum())
    assert ended > 0 or task.startswith(("HalfCheetah", "Ant"))
    env.close()


def test_edges_by_hand() -> None:
    ant = torch.tensor([[0.19, 0.0], [0.2, 0.0], [1.0, 0.0], [1.1, 0.0], [0.5, torch.nan]])
    assert terminations.ant(ant).tolist() == [True, False, False, True, True]
    hopper = torch.tensor([[0.7, 0.0, 0.0], [0.8, 0.0, 0.0], [0.8, -0.3, 0.0], [0.8, 0.0, -101.0], [200.0, 0.0, 0.0]])
    assert terminations.hopper(hopper).tolist() == [True, False, True, True, False]
    pole = torch.tensor([[5.0, 0.2], [0.0, -0.21], [0.0, torch.inf]])
    assert terminations.inverted_pendulum(pole).tolist() == [False, True, True]


def test_tasks_that_run_out_of_time_never_end() -> None:
    for task in ("Pendulum-v1", "walker-run"):
        ends = terminations.termination(task, Spec(3, 1, can_terminate=task != "walker-run"))
        assert not bool(ends(torch.full((4, 3), 1e9)).any())


def test_an_unknown_task_says_how_to_give_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvError, match=r"register\('my:World-v0', function\)"):
        terminations.termination("my:World-v0", Spec(3, 1))
    monkeypatch.setattr(terminations, "REGISTERED", {})
    terminations.register("my:World-v0", lambda obs: obs[:, -1] > 0)
    hidden = terminations.termination("my:World-v0", Spec(3, 1))  # what only critics see lies behind
    assert hidden(torch.tensor([[0.0, 0, 1, -9], [0, 0, -1, 9]])).tolist() == [True, False]
    ends = terminations.termination("my:World-v0", Spec(5, 1), distractors=2)
    assert ends(torch.tensor([[0.0, 0, 1, -9, -9], [0, 0, -1, 9, 9]])).tolist() == [True, False]
