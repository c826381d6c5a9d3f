"""Linear prediction: hand values of every update, exact limits, and what the experiments on Baird, the ring and step sizes claim."""

import dataclasses
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


@pytest.fixture
def methods(imported):
    return imported("experiments.linear_prediction")


@pytest.fixture
def problems(imported):
    return imported("experiments.prediction_problems")


def test_bounding_maps(methods):
    h = np.array([-3.0, -0.5, 0.0, 0.5, 3.0])
    assert methods.bounded(h, "clip", 2.0).tolist() == [-2.0, -0.5, 0.0, 0.5, 2.0]
    assert methods.bounded(h, "sign", 2.0).tolist() == [-1.0, -1.0, 0.0, 1.0, 1.0]
    assert methods.bounded(h, "none", 2.0).tolist() == h.tolist()
    assert methods.bounded(h, "tanh", 2.0) == pytest.approx(2 * np.tanh(h / 2))


# One transition: x = (1, 0), gamma x' = (0, 0.5), theta = (2, 4), w = (3, 0), reward 5: error 5 + 2 - 2 = 5, h = 3; ratio 2.
CHANGES = {
    "TD": ("TD", [10, 0]),
    "clipped TD": ("clipped_td", [2, 0]),
    "TDC": ("TDC", [10, -3]),
    "GTD2": ("GTD2", [6, -3]),
    "GTD2-Huber": ("gtd2_huber", [2, -1]),
    "TDC-Huber": ("tdc_huber", [10, -np.tanh(3)]),
    "gated": ("gated_tdc_huber", [2, -1]),
    "both clipped": ("both_clipped", [2, -1]),
}


@pytest.mark.parametrize(("name", "expected"), CHANGES.values(), ids=CHANGES)
def test_updates_by_hand(methods, name: str, expected: list[float]):
    method = getattr(methods, name)
    method = method if isinstance(method, methods.Method) else method(1.0)
    x, following, theta, w = np.array([1.0, 0]), np.array([0, 0.5]), np.array([2.0, 4]), np.array([3.0, 0])
    of_theta, of_w = methods.changes(method, x, following, np.array(5.0), np.array(2.0), theta, w)
    assert of_theta == pytest.approx(expected)
    assert of_w == pytest.approx([2 * 5 - 3, 0])  # the unbounded error is regressed, whatever is bounded elsewhere


def test_secondary_weights_decay_and_are_as_fast_as_told(methods):
    method = dataclasses.replace(methods.TDRC, speed=4.0)
    _, of_w = methods.changes(method, np.ones(2), np.zeros(2), np.array(1.0), np.array(1.0), np.zeros(2), np.array([1.0, 2.0]))
    assert of_w == pytest.approx([4 * (1 - 3 - 1), 4 * (1 - 3 - 2)])


def test_gate_is_open_inside_the_threshold(methods):
    error, h = np.array([5.0]), np.array([0.9])
    assert [float(part[0]) for part in methods.directions(methods.gated_tdc_huber(1.0), error, h)] == [5.0, 0.9]


@pytest.mark.parametrize(("robust", "plain"), [("gtd2_huber", "GTD2"), ("tdc_huber", "TDC"), ("gated_tdc_huber", "TDC")])
def test_large_thresholds_are_the_methods_without_bounds(methods, problems, robust: str, plain: str):
    lived = problems.experience(problems.boyan_chain(), 300, (0, 1))
    runs = [
        methods.learn(method, lived, problems.boyan_chain().features, np.array([0.25]), np.zeros(4))
        for method in (getattr(methods, robust)(1e6), getattr(methods, plain))
    ]
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-6, atol=1e-9)
    assert np.abs(runs[0][-1]).max() > 1


def test_true_values(problems):
    assert problems.boyan_chain().value == pytest.approx(-2 * np.arange(12, 0, -1))
    assert problems.random_walk().value == pytest.approx(np.array([3, 1, 2, 4, 5]) / 6)
    assert problems.ring().value == pytest.approx(0.5 ** np.array([0, 4, 3, 2, 1]) / (1 - 0.5**5))
    assert problems.baird().value == pytest.approx(np.zeros(7))


def test_outcomes_are_probabilities_under_both_policies(problems):
    for problem in (problems.baird(), problems.ring(), problems.boyan_chain(), problems.random_walk()):
        assert problem.probability.sum(1) == pytest.approx(1)
        assert (problem.probability * problem.ratio).sum(1) == pytest.approx(1)
        assert problem.visits.sum() == pytest.approx(1)
    assert problems.random_walk().visits == pytest.approx(np.array([3, 1, 2, 2, 1]) / 9)


def test_projected_error_is_zero_at_a_representable_value_and_infinite_after_divergence(problems):
    chain = problems.boyan_chain()
    exact = np.linalg.lstsq(chain.features, chain.value, rcond=None)[0]
    assert chain.projected_bellman_error(exact) == pytest.approx(0, abs=1e-6)
    # With one weight per state nothing is lost in projecting: the root of the mean squared expected error, one at one of five states.
    assert problems.ring().projected_bellman_error(np.zeros(5)) == pytest.approx((1 / 5) ** 0.5)
    assert problems.ring().projected_bellman_error(np.full((2, 5), np.nan)).tolist() == [np.inf, np.inf]


def test_a_seed_meets_the_same_whichever_others_there_are(problems):
    alone, together = (problems.experience(problems.ring(), 500, seeds) for seeds in ((3,), (1, 3)))
    assert (alone.reward[:, 0] == together.reward[:, 1]).all()
    assert not (together.reward[:, 0] == together.reward[:, 1]).all()


def test_experience_is_distributed_as_the_chain(problems):
    chain = problems.random_walk()
    lived = problems.experience(chain, 20_000, (0,))
    assert np.bincount(lived.state[:, 0]) / 20_000 == pytest.approx(chain.visits, abs=0.02)
    ended = lived.discount == 0
    assert lived.reward[ended].mean() == pytest.approx(0.5, abs=0.03)
    assert not lived.next_state[ended].any()


def test_td_diverges_on_baird_in_expectation_and_corrections_do_not(methods, problems):
    problem = problems.baird()

    def largest(method) -> float:
        """Largest real part of the linear map that the expected update is."""
        columns = [methods.expected_changes(method, problem, row[:8], row[8:]) for row in np.eye(16)]
        return float(np.linalg.eigvals(np.stack([np.concatenate(column) for column in columns], 1)).real.max())

    assert largest(dataclasses.replace(methods.TD, speed=0.0)) > 0.01
    for method in (methods.TDC, methods.TDRC, methods.GTD2):
        assert largest(method) < 1e-9


@pytest.mark.parametrize("constants", [{}, {"chance": 0.05, "reward": 30.0, "discount": 0.7}, {"states": 3, "reward": -20.0}])
def test_bounding_h_keeps_the_mean_in_the_limit_and_clipping_the_error_does_not(methods, problems, constants: dict):
    problem = problems.ring(**constants)
    start, size = np.zeros(len(problem.features)), np.linalg.norm(problem.value)

    def error(method) -> float:
        return float(np.linalg.norm(methods.limit(dataclasses.replace(method, speed=4.0), problem, start) - problem.value) / size)

    for method in (methods.TD, methods.gtd2_huber(1.0), methods.tdc_huber(1.0), methods.gated_tdc_huber(1.0)):
        assert error(method) < 1e-3
    assert error(methods.clipped_td(1.0)) > 0.5
    assert error(methods.both_clipped(1.0)) > 0.5


def test_limit_of_the_clipped_error_is_the_value_of_a_reward_of_one(methods, problems):
    # 0.02 (1) + 0.98 (0.5 v' - v) = 0 with v' = v / 16: v = 0.0204 / (1 - 1/32) = 0.0211 where the truth is 1.0323.
    found = methods.limit(methods.clipped_td(1.0), problems.ring(), np.zeros(5))
    assert found[0] == pytest.approx(0.02 / 0.98 / (1 - 0.5**5), rel=1e-6)
    assert methods.limit(methods.both_clipped(1.0), problems.ring(), np.zeros(5))[0] < -0.3


def test_ring_at_a_small_budget(methods, problems):
    ring = problems.ring()
    lived = problems.experience(ring, 24_000, tuple(range(60)))
    errors = {}
    for name, method in {"clipped": methods.clipped_td(1.0), "Huber": methods.gtd2_huber(1.0)}.items():
        method = dataclasses.replace(method, speed=4.0)
        weights = methods.learn(method, lived, ring.features, np.array([0.005]), np.zeros(5), 100)[:, 0]
        means = weights[120:].mean((0, 1))  # over seeds as well: at this budget the rewards of a single seed are too few
        errors[name] = np.linalg.norm(means - ring.value) / np.linalg.norm(ring.value)
    assert errors["Huber"] < 0.10
    assert errors["clipped"] > 0.50


def test_rare_reward_is_judged_by_intervals(imported, tmp_path: Path):
    experiment = imported("experiments.rare_reward").RareReward()
    near, far = np.full(10, 0.03) + np.linspace(0, 0.01, 10), np.full(10, 0.98) + np.linspace(0, 0.01, 10)
    assert experiment.claim("GTD2-Huber", near).holds
    assert not experiment.claim("GTD2-Huber", far).holds
    assert not experiment.claim("GTD2-Huber", np.append(near[:-1], 0.5)).holds  # 0.08 on average
    assert experiment.claim("TD, clipped error", far).holds
    assert not experiment.claim("TD, clipped error", near).holds
    few = dataclasses.replace(experiment, seeds=(7, 8), steps=400, discount=0.3)
    outcome = few.measure(SimpleNamespace(folder=tmp_path))
    assert [row["method"] for row in outcome.tables["errors"]] == list(experiment.methods())
    assert not any(claim.holds for claim in outcome.claims)
    assert outcome.pictures["errors"].stat().st_size > 1000


def test_baird_converges_and_diverges_as_claimed(imported, tmp_path: Path):
    module = imported("experiments.baird")
    experiment = module.Baird(seeds=(5, 6, 7), steps=2_500)
    outcome = experiment.measure(SimpleNamespace(folder=tmp_path))
    final = {row["method"]: float(row["final error"].split()[0]) for row in outcome.tables["errors"]}
    assert final["TD"] > 50
    assert 5 < final["TD, clipped error"] < 50
    assert all(final[name] < 0.5 for name in ("TDC", "TDRC", "GTD2", "GTD2-Huber", "TDRC, both clipped"))
    assert not any(claim.holds for claim in outcome.claims)
    assert all("Scaled down" in claim.note for claim in outcome.claims)
    whole = module.Baird()
    ends = {
        "TD": 1e9,
        "TD, clipped error": 8.0,
        "TDC-Huber": 0.16,
        "TDRC": 0.02,
        "TDRC, both clipped": 0.003,
        "GTD2, absolute": 0.4,
    }
    errors = {name: np.full((2, 20), ends.get(name, 0.009)) for name in whole.cases()}
    assert all(claim.holds for claim in whole.claims(errors, 8.0))
    others = dataclasses.replace(whole, discount=0.9).claims(errors, 8.0)
    assert [claim.holds for claim in others] == [True] * 9  # the prototype's numbers are for its constants alone
    for name, wrong in {"TD": 8.0, "TD, clipped error": 0.01, "TDC": 4.0, "GTD2-Huber": 4.0, "GTD2, absolute": 0.001}.items():
        claims = whole.claims(errors | {name: np.full((2, 20), wrong)}, 8.0)
        assert [claim.holds for claim in claims] == [other != name for other in whole.cases()] + [False]


def test_flatness_by_hand(imported):
    module = imported("experiments.step_sizes")
    area = np.array([[4.0, 2.0], [1.0, 2.0], [2.0, 16.0]])
    assert module.flatness(area).tolist() == [(2 + 0 + 1) / 3, (0 + 0 + 3) / 3]


def test_flatter_curves_are_what_the_step_size_claim_wants(imported):
    experiment = imported("experiments.step_sizes").StepSizes()
    noise = np.random.default_rng(0).uniform(0.95, 1.05, (9, 30))
    steep, flat = 2.0 ** np.arange(9)[:, None] * noise, noise
    areas = {name: steep for name in experiment.methods()}
    assert not experiment.claim("chain", areas).holds
    areas["GTD2-Huber 1"] = flat
    assert experiment.claim("chain", areas).holds
    areas["TD"] = flat
    assert not experiment.claim("chain", areas).holds


def test_step_sizes_cap_what_diverges_and_draw(imported, problems, methods, tmp_path: Path):
    module = imported("experiments.step_sizes")
    experiment = module.StepSizes(seeds=(1, 2), steps=300, exponents=(-6, -2, 6), thresholds=(1.0, 0.25))
    area = experiment.area(problems.boyan_chain(), methods.TD)
    nothing = problems.boyan_chain().projected_bellman_error(np.zeros(4))
    assert area.shape == (3, 2)
    assert (area[1] < 0.8 * nothing).all()
    assert area[2] == pytest.approx(nothing, rel=0.1)
    outcome = experiment.measure(SimpleNamespace(folder=tmp_path))
    assert len(outcome.tables["flatness"]) == 2 * 5
    assert not any(claim.holds for claim in outcome.claims)
