"""The discount that a task's horizon asks for: clip(1 - 5 / horizon, 0.95, 0.995)."""

import pytest

from steelyard.agents.actor_critic import ActorCritic
from steelyard.agents.types import Spec


@pytest.mark.parametrize(
    ("horizon", "expected"),
    [(1000, 0.995), (500, 0.99), (100, 0.95), (200, 0.975), (50, 0.95), (5, 0.95), (10_000, 0.995), (None, 0.99)],
)
def test_discount_follows_the_horizon_in_decisions(horizon: int | None, expected: float) -> None:
    assert ActorCritic(discount=None).gamma(Spec(1, 1, horizon)) == pytest.approx(expected, abs=1e-12)


def test_a_given_discount_stands() -> None:
    assert ActorCritic(discount=0.9).gamma(Spec(1, 1, 1000)) == 0.9
    assert ActorCritic(discount=0.0).gamma(Spec(1, 1, 1000)) == 0.0
