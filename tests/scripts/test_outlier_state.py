"""Robust regressions by hand and the exact solutions around an outlier."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


def test_regressions_of_a_constant_by_hand(imported):
    module = imported("experiments.robust_regression")
    inputs, target = np.ones((5, 1)), np.array([0.0, 0, 0, 0, 100])
    assert module.least_squares(inputs, target) == pytest.approx([20])
    assert module.huber(inputs, target, 1.0) == pytest.approx([0.25])  # 4 (0 - w) + 1 = 0
    assert module.least_absolute(inputs, target) == pytest.approx([0], abs=1e-9)  # the median
    assert module.least_absolute(inputs[:3], np.array([5.0, 0, 1])) == pytest.approx([1], abs=1e-9)
    assert module.huber(inputs, target, 1e3) == pytest.approx([20])


def test_huber_solution_is_stationary(imported):
    generator = np.random.default_rng(0)
    inputs, target = generator.standard_normal((30, 3)), generator.standard_cauchy(30)
    weights = imported("experiments.robust_regression").huber(inputs, target, 0.5)
    assert inputs.T @ np.clip(target - inputs @ weights, -0.5, 0.5) == pytest.approx(np.zeros(3), abs=1e-9)


def test_true_value_satisfies_the_bellman_equation(imported):
    features, differences, reward, value = imported("experiments.outlier_state").OutlierState().problem(5.0)
    assert features.shape == differences.shape == (20, 5)
    assert reward.sum() == reward[10] == -5
    assert value.sum() == pytest.approx(-5 / (1 - 0.95))  # nothing is lost at the ends of the walk
    assert value[10] == pytest.approx(-5 + 0.95 * (value[9] + value[11]) / 2)
    assert value[0] == pytest.approx(0.95 * (value[0] + value[1]) / 2)


def test_influence_is_bounded_and_paid_for(imported):
    experiment = imported("experiments.outlier_state").OutlierState()
    found = {
        (loss, outlier): experiment.solve(loss, outlier)
        for loss in ("squared", "Huber 1", "Huber 0.1", "absolute")
        for outlier in (5, 500)
    }
    assert found["squared", 500].without == pytest.approx(100 * found["squared", 5].without)
    assert found["squared", 5].without == pytest.approx(6.004, abs=0.001)
    assert found["squared", 5].elsewhere == pytest.approx(0.682, abs=0.001)
    assert found["Huber 1", 500].without == pytest.approx(found["Huber 1", 5].without, rel=1e-6)
    assert found["Huber 1", 5].without == pytest.approx(1.393, abs=0.001)
    assert found["Huber 0.1", 5].without == pytest.approx(0.1393, abs=0.0001)
    assert found["absolute", 500].without == pytest.approx(0, abs=1e-6)
    assert found["squared", 5].true == pytest.approx(1.936, abs=0.001)
    assert found["Huber 1", 500].true == pytest.approx(646.95, abs=0.01)


def test_claims_hold_and_other_constants_are_not_compared_with_the_prototype(imported, tmp_path: Path):
    module = imported("experiments.outlier_state")
    workshop = SimpleNamespace(folder=tmp_path)
    outcome = module.OutlierState().measure(workshop)
    assert [claim.holds for claim in outcome.claims] == [True, True, True]
    assert len(outcome.tables["solutions"]) == 4 * 3
    other = module.OutlierState(outliers=(7.0, 70.0), states=30).measure(workshop)
    assert [claim.holds for claim in other.claims] == [True, True]
