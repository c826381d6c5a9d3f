"""Designs, weighted regressions and mazes by hand, and what the experiments on variance weighting claim."""

import dataclasses
import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


@pytest.fixture
def descent(imported):
    return imported("experiments.mirror_descent")


@pytest.fixture
def processes(imported):
    return imported("experiments.linear_mdps")


def coins(processes, discount: float = 0.5):
    """State 0 stays with reward 1, state 1 with 0; in state 2 the first action goes to either, the second to state 0 (reward 0)."""
    features = np.eye(4)[[0, 0, 1, 1, 2, 3]]
    factors = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [1, 0, 0]])
    return processes.LinearMDP(features, np.array([1.0, 0, 0.2, 0]), factors, discount)


def leverages(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    return np.einsum("id,de,ie->i", x, np.linalg.inv(x.T @ (u[:, None] * x)), x)


def test_design_of_orthogonal_points_leaves_the_short_one_out(descent):
    assert descent.design(np.array([[1.0, 0], [0, 1], [0.5, 0]]), gap=1e-3) == pytest.approx([0.5, 0.5, 0], abs=0.01)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_design_is_g_optimal(descent, seed: int):
    x = np.random.default_rng(seed).standard_normal((60, 5))
    u = descent.design(x)
    assert u.sum() == pytest.approx(1)
    assert (u >= 0).all()
    assert (u == 0).any()
    assert leverages(x, u).max() <= 5 * 1.03  # the gap, and what was left out
    assert leverages(x, u).max() < 0.8 * leverages(x, np.full(60, 1 / 60)).max()
    assert leverages(x, u)[u > 0.02] == pytest.approx(5, rel=0.05)  # equal to d where the design has weight


def test_weighting_by_hand(descent):
    assert descent.weighting(np.array([4.0, 100.0, -1.0]), 9.0).tolist() == [5.0, 9.0, 3.0]


def test_regression_weighs_by_inverse_squares(descent):
    features, f, rho = np.ones((2, 1)), np.array([1.0, 2.0]), np.array([0.5, 0.5])
    assert descent.regression(features, f, rho).solution.ravel() == pytest.approx([0.8, 0.2])
    # The released scaling is no average: its parts sum to (1 + 1/4) / (1 + 1/2).
    assert descent.regression(features, f, rho, "released").solution.sum() == pytest.approx(1.25 / 1.5)


def test_released_scaling_shrinks_targets_by_f(descent):
    x = np.random.default_rng(0).standard_normal((20, 3))
    f, rho = np.full(20, 4.0), np.full(20, 1 / 20)
    plain = descent.regression(x, np.ones(20), rho).solution
    np.testing.assert_allclose(descent.regression(x, f, rho).solution, plain, atol=1e-12)
    np.testing.assert_allclose(descent.regression(x, f, rho, "released").solution, plain / 4, atol=1e-12)


def test_weights_cancel_on_the_hard_process(descent, processes):
    mdp = processes.hard(3)
    best, _ = mdp.optimal()
    f = descent.weighting(mdp.variance(best), mdp.horizon)
    for state in (0, 1):
        assert np.ptp(f[30 * state : 30 * state + 30]) < 0.02 * f[30 * state]
    rho = descent.design(mdp.features)
    constant = np.repeat([f[0], f[-1]], 30)
    plain, weighted = (descent.regression(mdp.features, g, rho).solution for g in (np.ones(60), constant))
    np.testing.assert_allclose(weighted, plain, atol=1e-9)


def test_optimal_values_variance_and_gap_by_hand(processes):
    mdp = coins(processes)
    value, action_values = mdp.optimal()
    assert value == pytest.approx([2, 0, 1])
    assert action_values == pytest.approx([2, 2, 0, 0, 0.7, 1])
    assert mdp.variance(value) == pytest.approx([0, 0, 0, 0, 1, 0])
    assert mdp.gap(np.array([0, 2, 4]), value) == pytest.approx(0.3 / 2)
    assert mdp.gap(mdp.greedy(action_values), value) == 0


@pytest.mark.parametrize("averaging", [True, False])
def test_value_iteration_without_noise_finds_the_optimum(descent, processes, averaging: bool):
    mdp = coins(processes)
    moved = dataclasses.replace(mdp, factors=np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]]))
    fit = descent.regression(moved.features, np.ones(6), np.full(6, 1 / 6))
    theta, value = descent.iterate(moved, fit, 1, 60, np.random.default_rng(0), averaging)
    assert value == pytest.approx([2, 0, 1])
    assert moved.greedy(moved.features @ theta).tolist()[2] == 5


def test_averaging_adds_up_weights(descent, processes):
    mdp = coins(processes)
    fit = descent.regression(mdp.features, np.ones(6), np.full(6, 1 / 6))
    first = descent.value_iteration(mdp, fit, 1, 1, np.random.default_rng(0))
    assert first == pytest.approx([1, 0, 0.2, 0])  # rewards
    # Then theta = r + gamma v = 1 + 0.5 in state 0, and theta_bar = theta + 0.5 * 1.
    assert descent.value_iteration(mdp, fit, 1, 2, np.random.default_rng(0))[0] == pytest.approx(2.0)


def test_estimated_variance_of_a_coin(descent, processes):
    mdp = coins(processes)
    found = descent.estimated_variance(mdp, np.array([2.0, 0, 1]), 40_000, np.random.default_rng(0))
    assert found == pytest.approx([0, 0, 0, 0, 1, 0], abs=0.03)


def test_heteroscedastic_process_has_one_uncertain_action(processes):
    mdp = processes.heteroscedastic(0)
    assert mdp.features.shape == (160, 8)
    assert mdp.features.sum(1) == pytest.approx(1)
    assert mdp.transitions.sum(1) == pytest.approx(1)
    value, _ = mdp.optimal()
    assert value[:2] == pytest.approx([1 / 0.03, 0])
    variance = mdp.variance(value).reshape(40, 4)[2:]
    assert np.median(variance[:, 0]) > 20 * variance[:, 1:].max()


def test_weighted_regression_wins_on_the_heteroscedastic_process(imported):
    module = imported("experiments.vwls_mdvi")
    experiment = module.VwlsMdvi(iterations=200)
    found = [experiment.heteroscedastic(seed, "uniform") for seed in range(30, 36)]
    means = {key: np.mean([each[key] for each in found]) for key in found[0]}
    for what in (module.FITTED, module.ERROR):
        assert means[what, module.KNOWN] < 0.6 * means[what, module.PLAIN]
        assert means[what, module.INVERSE] < 0.6 * means[what, module.PLAIN]
    assert means[module.MDVI, module.KNOWN] < 0.6 * means[module.MDVI, module.PLAIN]
    assert means[module.MDVI, module.LEARNED] < 0.6 * means[module.MDVI, module.PLAIN]
    assert means[module.MDVI, module.PLAIN] < 0.5 * means[module.FITTED, module.PLAIN]


def test_hard_process_gains_by_the_slip_alone(imported):
    module = imported("experiments.vwls_mdvi")
    experiment = module.VwlsMdvi(hard_iterations=300, hard_variance_samples=(100_000,))
    correct, released = (
        module.transpose([experiment.hard(seed, scaling) for seed in range(8)]) for scaling in ("correct", "released")
    )
    assert correct[module.SAME_DESIGN].mean() == pytest.approx(correct[module.PLAIN].mean(), rel=0.2)
    assert (correct[module.PLAIN] == released[module.PLAIN]).all()
    assert released[module.KNOWN].mean() < 0.3 * released[module.PLAIN].mean()
    assert set(released) == {module.PLAIN, module.KNOWN, module.SAME_DESIGN, "learned variance of 100,000"}


def test_vwls_claims_are_judged_by_ratios_and_say_when_scaled(imported):
    module = imported("experiments.vwls_mdvi")
    noise = np.random.default_rng(0).uniform(0.9, 1.1, 20)

    def claim(seeds: int, factor: float):
        experiment = module.VwlsMdvi(seeds=tuple(range(seeds)))
        return experiment.claim("", "", (factor * noise, noise[::-1]), lambda low, high: high < 0.6)

    assert claim(20, 0.3).holds
    assert not claim(20, 0.62).holds
    assert not claim(3, 0.3).holds
    assert "Scaled down (3 instead" in claim(3, 0.3).note


def test_ratio_of_means_draws_seeds_in_pairs(imported):
    over_seeds = imported("experiments.over_seeds")
    numbers = np.array([1.0, 5.0, 30.0, 2.0, 9.0])
    found = over_seeds.ratio(0.5 * numbers, numbers)
    assert (found.low, found.value, found.high) == pytest.approx((0.5, 0.5, 0.5))  # apart, they would scatter widely
    assert over_seeds.show(found) == "0.5 [0.5, 0.5]"
    assert over_seeds.show(over_seeds.mean([0.01234])) == "0.0123"


def test_deep_weights_by_hand(imported):
    module = imported("experiments.variance_weights")
    variance = torch.tensor([[1.0, 2.0, 100.0]])
    assert module.weights(torch.tensor([[np.log(2.0)]]), variance).flatten().tolist() == pytest.approx([2, 1, 0.1])
    constant = torch.full((1, 4), 3.0)
    assert module.weights(torch.tensor([[np.log(3.0)]]), constant).tolist() == [[pytest.approx(1)] * 4]
    assert float(module.scale_loss(torch.tensor([[np.log(3.0)]]), constant)) == pytest.approx(0, abs=1e-10)
    # exp(0) + 0.1 against 0.1 and 4.1: 1^2 / 2 and 3 - 1/2.
    assert float(module.variance_loss(torch.zeros(1, 2), torch.tensor([[0.1, 4.1]]))) == pytest.approx((0.5 + 2.5) / 2)


def test_gradient_descent_with_the_known_variance_beats_none(imported):
    module = imported("experiments.sampled_regression")
    budget = module.Budget(periods=30, updates=60, batch=64, rate=3.0, discount=0.9)
    errors = {mode: module.solve((0, 1, 2), mode, budget) for mode in ("none", "learned", "oracle")}
    assert errors["oracle"].mean() < 0.8 * errors["none"].mean()
    assert errors["learned"].mean() < errors["none"].mean()
    np.testing.assert_allclose(module.solve((2,), "learned", budget), errors["learned"][2:], rtol=1e-3)


def test_maze_moves_slip_and_pits_hold(imported):
    module = imported("experiments.stochastic_maze")
    maze = module.with_pits(4, np.array([5]), 0.9, 0.1)
    moves = maze.transitions
    assert moves.sum(2) == pytest.approx(1)
    assert moves[5, :, 5] == pytest.approx(1)
    right = moves[10, 1]  # an inner cell: the chosen neighbour, and each other move with the slip
    assert right[[11, 10, 9, 14, 6]] == pytest.approx([0.6, 0.1, 0.1, 0.1, 0.1])
    corner = moves[0, 2]  # left is blocked: staying has its slip and all of the rest
    assert corner[[0, 1, 4]] == pytest.approx([0.8, 0.1, 0.1])
    assert maze.reward.tolist() == [0.0] * 15 + [1.0]


def test_maze_is_solved_exactly(imported):
    maze = imported("experiments.stochastic_maze").maze(4, 2, 0.9, seed=1)
    value, moves = maze.optimal(), maze.transitions
    assert value == pytest.approx(maze.reward + 0.9 * (moves @ value).max(1))
    assert maze.variance(value) == pytest.approx(moves @ value**2 - (moves @ value) ** 2, abs=1e-9)
    assert value[0] > 0
    assert value.max() == value[-1]
    stay = maze.value_of(np.zeros(16, dtype=int))
    assert (stay <= value + 1e-9).all()
    assert stay.sum() < value.sum()


def test_backups_by_hand(imported):
    module = imported("experiments.maze_solver")
    q = torch.tensor([[[1.0, 3.0, 0, 0, 0], [0.5, 0.2, 0, 0, 0]]])
    reward, drawn = torch.tensor([[0.0, 1.0]]), torch.ones(1, 2, 5, 1, dtype=torch.long)
    plain = module.Backup(0.0, 0.9, 0.9)(q, reward, drawn)
    assert plain.shape == (1, 2, 5, 1)
    assert plain[0, 0].flatten().tolist() == pytest.approx([0.45] * 5)
    assert plain[0, 1, 0].item() == pytest.approx(1.45)
    tau = 0.5
    log_policy = torch.log_softmax(q / tau, -1)
    value = (log_policy.exp() * (q - tau * log_policy)).sum(-1)
    expected = 1 + 0.8 * (tau * log_policy[0, 1]).clamp(-1, 0) + 0.9 * value[0, 1]
    soft = module.Backup(tau, 0.8, 0.9)(q, reward, drawn)
    torch.testing.assert_close(soft[0, 1, :, 0], expected)
    assert float(soft[0, 0, 2, 0] - 0.9 * value[0, 1]) == pytest.approx(-0.8)  # the Munchausen term ends at -1


def test_maze_draws_follow_the_transitions_of_each_seed(imported):
    solver, mazes = imported("experiments.maze_solver"), imported("experiments.stochastic_maze")
    both = [mazes.maze(4, 1, 0.9, seed) for seed in (0, 1)]
    drawn = solver.World(both, (0, 1)).draw(4000)
    share = torch.nn.functional.one_hot(drawn[1], 16).float().mean(2).numpy()
    assert share == pytest.approx(both[1].transitions, abs=0.04)
    alone = solver.World(both[1:], (1,)).draw(4000)
    assert torch.equal(alone[0], drawn[1])


def test_learned_weights_are_frozen_and_have_mean_one(imported):
    solver = imported("experiments.maze_solver")
    generators = [torch.Generator().manual_seed(0)]
    obs = torch.randn(1, 8, 5, generator=torch.Generator().manual_seed(1))
    learned = solver.Learned(solver.Perceptrons(16, generators), obs, 1e-2)
    residual = torch.zeros(1, 8, 5)
    residual[:, :4] = 20.0
    for _ in range(12):
        learned.freeze()
        frozen = learned.variance.clone()
        for _ in range(50):
            learned.learn(residual.flatten(1))
        assert torch.equal(learned.variance, frozen)
    weights = learned.freeze().view(8, 5)
    assert not torch.equal(learned.variance, frozen)
    assert weights.mean() == pytest.approx(1, abs=0.1)
    assert weights[:4].mean() < 0.5 * weights[4:].mean()
    assert float(learned.log_floor.detach().exp()) == pytest.approx(float(learned.variance.max().sqrt()), rel=0.2)


def test_solver_learns_a_small_maze_with_every_weighting(imported):
    solver, mazes = imported("experiments.maze_solver"), imported("experiments.stochastic_maze")
    both = [mazes.maze(3, 1, 0.8, seed) for seed in (0, 1)]
    budget = solver.Budget(40, 15, 5, 32, 3e-3, 2e-3, 5)
    found = {weighting: solver.solve(both, (0, 1), weighting, True, budget) for weighting in ("none", "learned", "oracle")}
    for solution in found.values():
        assert solution.gaps.shape == (8, 2)
        assert solution.gaps[-2:].mean() < 0.15
    assert found["none"].weights[-1].tolist() == [1, 1, 1]
    assert found["oracle"].weights[-1, 0] < found["oracle"].weights[-1, 2] == pytest.approx(1)
    # Nothing but the weights differs between them.
    assert not np.array_equal(found["none"].gaps, found["oracle"].gaps)


def test_maze_claims_ask_for_the_pattern(imported, tmp_path: Path):
    module = imported("experiments.maze")
    noise = np.random.default_rng(0).uniform(0.95, 1.05, (60, 10))
    rising = np.linspace(0.4, 1.2, 60)[:, None]
    gaps = {variant: published * noise for variant, published in module.PUBLISHED.items()}
    gaps["none", True] = gaps["none", True] * rising
    claims = module.StochasticMaze().claims({25: gaps, 50: gaps})
    assert len(claims) == 2 * 4 + 2
    assert all(claim.holds for claim in claims)
    assert not any(claim.holds for claim in module.StochasticMaze(iterations=100).claims({50: gaps}))
    flat = {variant: 0.5 * np.random.default_rng(i).uniform(0.9, 1.1, (60, 10)) for i, variant in enumerate(gaps)}
    assert not any(claim.holds for claim in module.StochasticMaze().claims({50: flat}))
    tiny = module.StochasticMaze(seeds=(4, 5), size=3, pits=1, iterations=4, gradient_steps=(2,), width=8)
    outcome = tiny.measure(SimpleNamespace(folder=tmp_path))
    assert len(outcome.tables["gaps"]) == 6
    assert outcome.pictures["gaps"].exists()
