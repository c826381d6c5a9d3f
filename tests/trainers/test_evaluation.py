"""Evaluation: exactly the asked episodes, each once, whatever the number of worlds and whoever resets them."""

import math
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from steelyard import envs
from steelyard.agents.types import Spec, Step
from steelyard.trainers.evaluation import (
    EVALUATION_SEEDS,
    EvaluationError,
    Scores,
    evaluate,
    evaluation_seed,
    training_seed,
)


class Worlds:
    """Worlds whose episode with seed s lasts `1 + s % 7` decisions and pays `s + t` in decision t, reset as the autoreset mode
    says.

    An episode begun by autoreset, instead of by `reset`, pays a million: counting any of its rows shows.
    """

    device = torch.device("cpu")

    def __init__(self, num_envs: int, autoreset: Literal["next_step", "same_step"] = "next_step", horizon: int | None = None):
        self.num_envs, self.autoreset = num_envs, autoreset
        self.spec = Spec(1, 1, horizon)

    def reset(self, seed: int | None = None) -> Tensor:
        assert seed is not None
        self.seeds = [seed + i for i in range(self.num_envs)]
        self.clock = [0] * self.num_envs
        self.over = [False] * self.num_envs
        return torch.zeros(self.num_envs, 1)

    def step(self, action: Tensor) -> Step:
        reward, ended, valid = [], [], []
        for i, seed in enumerate(self.seeds):
            if self.over[i] and self.autoreset == "next_step":
                self.seeds[i], self.clock[i], self.over[i] = 1_000_000 * 7, 0, False
                reward.append(0.5)  # a careless world: only `valid` says that this row is none
                ended.append(True)
                valid.append(False)
                continue
            reward.append(float(seed % 1000 + self.clock[i]))
            self.clock[i] += 1
            self.over[i] = self.clock[i] == 1 + seed % 7
            ended.append(self.over[i])
            valid.append(True)
            if self.over[i] and self.autoreset == "same_step":
                self.seeds[i], self.clock[i], self.over[i] = 1_000_000 * 7, 0, False
        obs = torch.zeros(self.num_envs, 1)
        end = torch.tensor(ended)
        split = torch.arange(self.num_envs) % 2 == 0
        return Step(obs, obs, torch.tensor(reward), end & split, end & ~split, torch.tensor(valid), {})

    def render(self) -> Any:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any] | None:
        return None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError

    def close(self) -> None: ...


class Still:
    """Acts with zeros; refuses to explore. It has no `observe`, so feeding a normaliser would fail."""

    device = torch.device("cpu")

    def act(self, obs: Tensor, explore: bool) -> Tensor:
        assert not explore
        return torch.zeros(len(obs), 1)


def expected(seed: int) -> tuple[float, int]:
    length = 1 + seed % 7
    return float(sum(seed % 1000 + t for t in range(length))), length


@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
@pytest.mark.parametrize("num_envs", [1, 3, 4, 10, 16])
def test_every_episode_counts_once_in_full(num_envs: int, autoreset: Literal["next_step", "same_step"]) -> None:
    scores = evaluate(Still(), Worlds(num_envs, autoreset), 10, seed=3)
    first = evaluation_seed(3)
    assert list(zip(scores.returns, scores.lengths, strict=True)) == [expected(first + k) for k in range(10)]


class SlowWorlds(Worlds):
    """After every `reset` these worlds spend one step on resetting, in a row that looks like an episode."""

    def reset(self, seed: int | None = None) -> Tensor:
        self.resetting = True
        return super().reset(seed)

    def step(self, action: Tensor) -> Step:
        if not self.resetting:
            return super().step(action)
        self.resetting = False
        every = torch.ones(self.num_envs, dtype=torch.bool)
        obs = torch.zeros(self.num_envs, 1)
        return Step(obs, obs, torch.full((self.num_envs,), 99.0), every, every, ~every, {})


def test_a_leading_invalid_row_is_no_part_of_the_episode() -> None:
    scores = evaluate(Still(), SlowWorlds(2), 4, seed=0)
    assert list(zip(scores.returns, scores.lengths, strict=True)) == [expected(evaluation_seed(0) + k) for k in range(4)]


def test_evaluation_seeds_meet_neither_training_nor_another_run() -> None:
    assert evaluation_seed(0) == EVALUATION_SEEDS
    assert evaluation_seed(1) - evaluation_seed(0) == 10_000
    assert evaluation_seed(299_999) + 10_000 < 2**32
    with pytest.raises(EvaluationError, match="seed -1 is outside"):
        evaluation_seed(-1)
    with pytest.raises(EvaluationError, match="10001 evaluation episodes"):
        evaluate(Still(), Worlds(1), 10_001, seed=0)
    with pytest.raises(EvaluationError, match="0 evaluation episodes"):
        evaluate(Still(), Worlds(1), 0, seed=0)


def test_seeds_of_training_by_chance_stay_below_evaluations() -> None:
    seeds = [training_seed((3, run), worlds=10**8) for run in range(2_000)]
    assert len(set(seeds)) == 2_000
    assert min(seeds) >= 0
    assert max(seeds) + 10**8 <= EVALUATION_SEEDS
    assert min(seeds) < 10**6 < 9 * 10**8 - 10**6 < max(seeds)
    assert training_seed((3, 7), 1) == training_seed((3, 7), 1)


def test_an_endless_episode_is_refused() -> None:
    with pytest.raises(EvaluationError, match="went on after 3 decisions"):
        evaluate(Still(), Worlds(7, horizon=3), 7, seed=0)
    assert max(evaluate(Still(), Worlds(7, horizon=7), 7, seed=0).lengths) == 7


def test_worlds_without_a_share_in_the_last_round_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0
    step = Worlds.step

    def counted(self: Worlds, action: Tensor) -> Step:
        nonlocal steps
        steps += 1
        return step(self, action)

    monkeypatch.setattr(Worlds, "step", counted)
    assert evaluate(Still(), Worlds(7), 1, seed=2).lengths == (1,)
    assert steps == 1


def test_scores_against_hand_values() -> None:
    scores = Scores((1.0, 2.0, 3.0, 6.0), (10, 10, 10, 20))
    assert scores.mean == 3.0
    assert scores.std == pytest.approx(math.sqrt(14 / 3))
    low, high = scores.interval
    half = 3.182446 * math.sqrt(14 / 3) / 2  # the 97.5 % quantile of Student's t with 3 degrees of freedom
    assert (low, high) == pytest.approx((3 - half, 3 + half), rel=1e-6)
    assert scores.metrics() == {"eval/return": 3.0, "eval/return_std": scores.std, "eval/length": 12.5, "episodes": 4}
    one = Scores((5.0,), (1,))
    assert one.mean == 5.0
    assert math.isnan(one.std)
    assert all(math.isnan(end) for end in one.interval)


@pytest.mark.parametrize("task", ["InvertedPendulum-v5", "cartpole-swingup"])
def test_real_worlds_give_the_same_episodes_to_any_number_of_them(task: str) -> None:
    several, alone = (
        evaluate(Still(), envs.make(task, num_envs, action_repeat=1 if task.endswith("v5") else 50), 3, seed=1)
        for num_envs in (2, 1)
    )
    assert several == alone
    assert len(set(alone.returns)) == 3
