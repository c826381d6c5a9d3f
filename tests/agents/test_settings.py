"""Settings with which an update would be undefined are refused when they are written down, in one sentence."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from steelyard.agents.cql import CQL
from steelyard.agents.errors import SlotError
from steelyard.agents.networks.heads import Categorical
from steelyard.agents.networks.normalizers import ReturnRange
from steelyard.agents.networks.policies import Gaussian, UnsquashedGaussian
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import ActionDistance, DensityRatio, Family, Fixed
from steelyard.agents.sac import SAC


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Fixed(math.nan), "coefficient of Fixed is nan; give a number."),
        (lambda: Family(5.0, 1.0), "Family goes from low 5.0 to high 1.0; give two numbers, the smaller one first."),
        (lambda: Family(1.0, math.inf), "Family goes from low 1.0 to high inf; give two numbers, the smaller one first."),
        (lambda: Family(interval=0), "interval of Family is 0; give one update or more."),
        (lambda: DensityRatio(temperature=0.0), "temperature of DensityRatio is 0.0; give a positive number."),
        (lambda: DensityRatio(bound=-1.0), "bound of DensityRatio is -1.0; give a positive number."),
        (lambda: DensityRatio(flow=-1.0), "flow of DensityRatio is -1.0; give zero or more."),
        (lambda: DensityRatio(closeness=math.nan), "closeness of DensityRatio is nan; give zero or more."),
        (lambda: ActionDistance(critic=-0.1), "critic of ActionDistance is -0.1; give a weight of zero or more."),
        (lambda: ActionDistance(online_decay=0), "online_decay of ActionDistance is 0; give one update or more, or None"),
        (lambda: ActionDistance(online_floor=2.0), "online_floor of ActionDistance is 2.0; give a share from 0 to 1."),
        (lambda: Categorical(atoms=1), "atoms of Categorical is 1; give two or more."),
        (lambda: Categorical(21, 5.0, -5.0), "Categorical goes from low 5.0 to high -5.0; give the smaller one first."),
        (lambda: Adam(-1e-3), "learning_rate of Adam is -0.001; give zero or more."),
        (lambda: Adam(math.nan), "learning_rate of Adam is nan; give zero or more."),
        (lambda: Adam(second_decay=1.0), "second_decay of Adam is 1.0; give a number from 0 to below 1."),
        (lambda: Adam(epsilon=0.0), "epsilon of Adam is 0.0; give a positive number."),
        (lambda: ReturnRange(0.0), "target of ReturnRange is 0.0; give a positive number."),
        (lambda: Gaussian(3.0, -1.0), "log deviations of Gaussian go from low 3.0 to high -1.0; give the smaller one first."),
        (lambda: UnsquashedGaussian(low=3.0), "log deviations of UnsquashedGaussian go from low 3.0 to high 2.0;"),
    ],
)
def test_a_setting_without_meaning_is_refused(build: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(SlotError) as error:
        build()
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize("kind", [SAC, CQL])
def test_no_more_critics_can_be_drawn_than_there_are(kind: Any, build: Callable[..., Any], configs: dict[str, Any]) -> None:
    config = configs["sac" if kind is SAC else "cql"]
    with pytest.raises(SlotError, match=r"target_subset is 3 of 2 critics; give at most 2, or None for all\."):
        build(config, target_subset=3)
    build(config, target_subset=2)
