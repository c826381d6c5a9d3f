"""Agents side by side, the worlds of the regression experiments, and when their claims hold."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from steelyard.agents.agent import Execution
from steelyard.agents.dqn import DQN
from steelyard.agents.networks import MLP
from steelyard.agents.networks.greedy import EpsilonGreedy
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import ClippedSemiGradient, Greedy, HuberBellman, InverseVariance
from steelyard.agents.sac import SAC
from steelyard.agents.types import Batch, Spec, Step
from steelyard.trainers.statistics import Curve

SCRIPTS = Path(__file__).parents[2] / "scripts"
EAGER = Execution(compile=False)
TINY = MLP((8,))


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


def batches(spec: Spec, members: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    obs, next_obs = torch.randn(2, members, 6, spec.obs_size, generator=generator)
    action = spec.random_action(members * 6, generator).view(members, 6, -1)
    reward = torch.randn(members, 6, generator=generator)
    discount = 0.9 * (torch.arange(6) % 3 > 0).float().expand(members, 6)
    return Batch(obs, action, reward, next_obs, discount, torch.ones(members, 6), torch.zeros(members, 6, dtype=torch.int64))


def kinds(module: Any, greedy: Any, rate: float) -> dict[str, tuple[Any, Spec, int | None]]:
    """Agents, with the optimiser and the greedy policy given: configuration, task, and how often something happens between updates."""
    adam = module(rate)
    h = HuberBellman(0.5, network=TINY, optimizer=module(2 * rate, weight_decay=1.0))
    variance = InverseVariance(network=TINY, optimizer=module(rate), period=2)
    choices = DQN(critic=TINY, optimizer=adam, improvement=greedy(0.1), exploration=EpsilonGreedy(start=0.1, decay_steps=1))
    return {
        "dqn": (dataclasses.replace(choices, objective=ClippedSemiGradient(), target_period=2), Spec(2, 3, discrete=True), 2),
        "qrc": (dataclasses.replace(choices, objective=h, target_period=1_000), Spec(2, 3, discrete=True), None),
        "sac": (SAC(critic=TINY, actor=TINY, optimizer=adam, objective=h, weighting=variance), Spec(3, 1), 2),
    }


def traced(function: Any) -> Any:
    """Compiled as far as the graph, which is then run operation by operation: seconds instead of minutes."""
    return torch.compile(function, fullgraph=True, dynamic=False, backend="aot_eager")


@pytest.mark.parametrize(("kind", "compiled"), [("dqn", False), ("qrc", False), ("sac", False), ("sac", True)])
def test_agents_side_by_side_learn_as_each_would_alone(imported, monkeypatch, kind: str, compiled: bool):
    module = imported("experiments.side_by_side")
    monkeypatch.setattr(module, "one_graph", traced)
    rates = (1e-2, 3e-2, 1e-3)
    build = {"num_envs": 1, "total_updates": 9, "execution": EAGER}
    own = [kinds(module.AdamOfEach, module.GreedyOfEach, rate)[kind] for rate in rates]
    spec, interval = own[0][1:]
    together = module.SideBySide([config.build(spec, seed=s, **build) for s, (config, *_) in enumerate(own)], compiled, interval)
    alone = [kinds(Adam, Greedy, rate)[kind][0].build(spec, seed=s, **build) for s, rate in enumerate(rates)]
    generator = torch.Generator().manual_seed(3)
    for count in range(5):
        batch, noise = batches(spec, 3, count), torch.randn(together.draws(6), generator=generator)
        metrics = together.update(batch, noise)
        for member, agent in enumerate(alone):
            row = Batch(**{name: column[member] for name, column in batch._asdict().items() if column is not None})
            loss = agent.apply_update(agent.advance(), row, noise[member])["critic_loss"]
            agent.intervene()
            torch.testing.assert_close(metrics["critic_loss"][member], loss, rtol=1e-4, atol=1e-5)
    for member, agent in enumerate(alone):
        for name, parameter in agent.named_parameters():
            if "optimizers" not in name:
                torch.testing.assert_close(together.state[f"agent.{name}"][member], parameter.detach(), rtol=1e-3, atol=1e-5)
    obs, noise = batches(spec, 3, 9).obs, torch.randn(3, 6, spec.action_size, generator=generator)
    chosen = together.choose(obs, noise)
    for member, agent in enumerate(alone):
        torch.testing.assert_close(chosen[member], agent.choose(obs[member], noise[member]), rtol=1e-4, atol=1e-5)


def test_mountain_car_and_the_pendulum_are_gymnasiums(imported):
    module = imported("experiments.control_worlds")
    for task, kind, limit in (("MountainCar-v0", module.MountainCar, 200), ("Pendulum-v1", module.Pendulum, 200)):
        generator = torch.Generator().manual_seed(0)
        worlds, world = kind(3, limit, generator), gym.make(task)
        world.reset(seed=0)
        bare: Any = world.unwrapped
        bare.state = worlds.state[1].numpy().copy()
        for count in range(limit):
            action = kind.spec.random_action(3, generator)
            step = worlds.step(action)
            taken = int(action[1].argmax()) if kind.spec.discrete else 2 * action[1].numpy()
            obs, reward, terminated, truncated, _ = world.step(taken)
            if task == "MountainCar-v0":
                obs = np.array([(bare.state[0] + 0.3) / 0.9, bare.state[1] / 0.07])
            np.testing.assert_allclose(step.next_obs[1].numpy(), obs, rtol=1e-4, atol=1e-5)
            assert float(step.reward[1]) == pytest.approx(float(reward), rel=1e-4, abs=1e-5)
            assert (bool(step.terminated[1]), bool(step.truncated[1])) == (terminated, truncated) == (False, count == limit - 1)
        assert not torch.equal(step.obs[1], step.next_obs[1])


def test_the_car_reaches_the_top_and_begins_anew(imported):
    worlds = imported("experiments.control_worlds").MountainCar(2, 1_000, torch.Generator().manual_seed(0))
    worlds.state = torch.tensor([[0.49, 0.05], [-1.19, -0.07]], dtype=torch.float64)
    step = worlds.step(torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    assert step.terminated.tolist() == [True, False]
    assert step.truncated.tolist() == [False, False]
    assert float(worlds.state[1, 0]) == -1.2
    assert float(worlds.state[1, 1]) == 0.0
    assert -0.6 <= float(worlds.state[0, 0]) <= -0.4


def test_members_learn_from_their_own_newest_transitions(imported):
    memory = imported("experiments.online_sweep").Memory(2, 3, Spec(1, 1))
    for count in range(5):
        value = torch.tensor([[float(count)], [100.0 + count]])
        memory.add(value, -value, value + 0.5, value[:, 0] * 2, torch.tensor([0.9, 0.0]))
    batch = memory.draw(200, torch.Generator().manual_seed(0))
    assert set(batch.obs[0].flatten().tolist()) == {2.0, 3.0, 4.0}
    assert set(batch.obs[1].flatten().tolist()) == {102.0, 103.0, 104.0}
    assert torch.equal(batch.action, -batch.obs)
    assert torch.equal(batch.next_obs, batch.obs + 0.5)
    assert torch.equal(batch.reward, 2 * batch.obs[..., 0])
    assert batch.discount.unique(dim=1).flatten().tolist() == pytest.approx([0.9, 0.0])


def test_values_of_the_noisy_line_are_those_of_monte_carlo(imported):
    line = imported("experiments.noisy_line").Line()
    generator = np.random.default_rng(0)
    for home in (0.75, -0.25):
        for position, action in ((-0.88, 0.5), (0.43, 1.0), (0.43, -1.0), (0.8, -0.5)):
            place = np.full(20_000, position)
            returns = line.rollouts(place, np.full(20_000, action), home, generator)
            value = line.value(np.array([position]), np.array([action]), home)[0]
            assert abs(returns.mean() - value) < 4 * returns.std() / np.sqrt(20_000) + 1e-3


def test_data_of_the_noisy_line_are_noisy_beyond_the_edge_alone(imported):
    line = imported("experiments.noisy_line").Line()
    data = line.dataset(4_000, 0)
    position, moved = data.obs[:, 0], data.next_obs[:, 0]
    expected = (position + 0.1 * data.action[:, 0]).clamp(-1, 1)
    quiet = position <= 0.5
    torch.testing.assert_close(moved[quiet], expected[quiet])
    assert float((moved - expected)[~quiet].abs().mean()) > 0.2
    assert bool((data.discount[quiet] > 0).all())
    ended = (data.discount == 0)[~quiet]
    assert float(ended.float().mean()) == pytest.approx(0.25, abs=0.04)
    payoff = (data.reward - (4 * position).sin())[~quiet]
    assert float((payoff[ended] > 5).float().mean()) == pytest.approx(0.5, abs=0.08)
    assert float(payoff[~ended].abs().max()) < 1e-4


def test_a_critic_of_a_known_policy_finds_its_values(imported):
    module = imported("experiments.dvw_continuous")
    experiment = module.DvwContinuous(
        seeds=(0,), learning_rates=(3e-3,), shared_rate=3e-3, updates=300, target_rate=0.2, homes=(-0.25,), compile=False
    )
    trained = experiment.errors(False)["quiet"]
    untrained = dataclasses.replace(experiment, updates=1).errors(False)["quiet"]
    assert trained.shape == (1, 1, 1)
    assert trained.item() < 0.4 * untrained.item()


def test_dvw_continuous_compares_weights_and_nothing_else(imported, tmp_path: Path):
    module = imported("experiments.dvw_continuous")
    experiment = module.DvwContinuous()
    weighted = experiment.agent(0.5, 1e-3, True)
    assert isinstance(weighted.weighting, InverseVariance)
    assert dataclasses.replace(weighted, weighting=experiment.agent(0.5, 1e-3, False).weighting) == experiment.agent(
        0.5, 1e-3, False
    )
    generator = np.random.default_rng(0)
    better = {name: 1 + 0.01 * generator.random((2, 4, 10)) for name in ("unweighted", "weighted")}
    better["weighted"][0] -= 0.5
    claims = experiment.claims({name: {"quiet": error} for name, error in better.items()})
    assert [claim.holds for claim in claims] == [True, True, False, False]
    few = module.DvwContinuous(seeds=(0, 1), updates=2, transitions=50, width=8, compile=False)
    workshop: Any = type("Workshop", (), {"folder": tmp_path})()
    outcome = few.measure(workshop)
    assert not any(claim.holds for claim in outcome.claims)
    assert len(outcome.tables["errors"]) == 2 * 2 * 4


def test_sensitivity_is_the_return_that_a_step_size_loses_on_average(imported):
    module = imported("experiments.robust_control")
    returns = np.array([[[-100.0, -300.0]], [[-400.0, -400.0]], [[-1000.0, -1000.0]]])
    assert module.sensitivity(returns).tolist() == [pytest.approx((0 + 200 + 800) / 3)]
    flat, steep = np.full((3, 5, 20), -150.0), np.full((3, 5, 20), -150.0)
    steep[1:] = -900.0
    experiment = module.RobustControl(exponents=(-10, -9, -8))
    assert experiment.flatter(flat, steep, "QRC").holds
    assert not experiment.flatter(steep, flat, "QRC").holds
    assert experiment.learns("QRC", steep).holds
    assert not experiment.learns("QRC", steep - 100).holds
    assert not dataclasses.replace(experiment, seeds=(0,)).learns("QRC", steep).holds


def test_the_agents_on_mountain_car_are_those_of_the_presets(imported):
    car, presets = imported("experiments.mountain_car_sweep").MountainCarSweep(), imported("steelyard.trainers.presets")
    published = presets.QRC
    for kind, bound in (("QRC", float("inf")), ("QRC-Huber", 1.0)):
        agent = car.agent(kind, 2**-10, 1, 1.0)
        assert (agent.objective.threshold, agent.objective.update) == (bound, published.objective.update)
        assert agent.objective.optimizer.weight_decay == published.objective.optimizer.weight_decay == 1.0
        assert agent.optimizer.learning_rate == agent.objective.optimizer.learning_rate == published.optimizer.learning_rate
        assert agent.improvement.random_share == published.improvement.random_share
        assert (agent.batch_size, agent.discount) == (published.batch_size, published.discount)
        assert agent.critic.hidden == published.critic.hidden
    assert car.agent("DQN", 2**-8, 64, 1.0).target_period == 64
    assert car.agent("DQN", 2**-8, 64, 1.0).objective == ClippedSemiGradient(1.0)


def test_robust_control_runs_from_end_to_end(imported, tmp_path: Path):
    module = imported("experiments.robust_control")
    experiment = module.RobustControl(
        seeds=(0, 1),
        exponents=(-10, -8),
        car=module.MountainCarSweep(episodes=2, cutoff=40, width=8),
        outliers=module.OutlierRewards(steps=400, random_steps=390, width=8),
        compile=False,
    )
    workshop: Any = type("Workshop", (), {"folder": tmp_path})()
    outcome = experiment.measure(workshop)
    assert len(outcome.claims) == 4 + 3 + 3
    assert not any(claim.holds for claim in outcome.claims)
    assert len(outcome.tables["step sizes"]) == 4 * 2
    assert {row["mean return of all episodes"] for row in outcome.tables["step sizes"]} == {"-40 [-40, -40]"}


def test_outliers_reach_replay_and_no_return(imported):
    settings = imported("experiments.outlier_rewards").OutlierRewards(chance=0.25, size=100.0)
    obs, no = torch.zeros(4_000, 1), torch.zeros(4_000, dtype=torch.bool)
    step = Step(obs, obs, torch.full((4_000,), -2.0), no, no, ~no, {})
    stored = (settings.contaminated(step, torch.Generator().manual_seed(0)) + 2).view(4, 1_000)
    assert [sorted(row.unique().tolist()) for row in stored] == [[0.0], [-100.0, 0.0, 100.0], [-100.0, 0.0], [0.0, 100.0]]
    assert float((stored[1:] != 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert bool((step.reward == -2).all())


def test_dvw_minatar_is_judged_where_it_was_published_to_help(imported):
    module = imported("experiments.dvw_minatar")
    experiment = module.DvwMinatar(games=("breakout", "seaquest"))
    plain, weighted = (experiment.run("breakout", preset, 3) for preset in ("m-dqn", "dvw-m-dqn"))
    assert dataclasses.replace(weighted, preset="m-dqn", agent=plain.agent) == plain
    assert dataclasses.replace(weighted.agent, weighting=plain.agent.weighting) == plain.agent
    assert (plain.env_steps, plain.agent.exploration.decay_steps, plain.seed) == (10_000_000, 1_000_000, 3)
    short = dataclasses.replace(experiment, frames=1_000_000).run("breakout", "m-dqn", 0)
    assert (short.env_steps, short.agent.exploration.decay_steps, short.evaluation_interval) == (1_000_000, 100_000, 10_000)

    def measured(without: float, with_weights: float) -> Any:
        steps, noise = np.array([1.0, 2.0]), (-1.0, -0.5, 0.0, 0.5, 1.0)
        scores = {"m-dqn": without, "dvw-m-dqn": with_weights}
        seeds = {name: {i: Curve(steps, np.array([0.0, last + e])) for i, e in enumerate(noise)} for name, last in scores.items()}
        return {f"minatar-{game}": seeds for game in experiment.games}

    assert [experiment.claim(game, "m-dqn", measured(60.0, 80.0)).holds for game in experiment.games] == [True, True]
    assert [experiment.claim(game, "m-dqn", measured(60.0, 60.0)).holds for game in experiment.games] == [False, True]
    assert [experiment.claim(game, "m-dqn", measured(60.0, 50.0)).holds for game in experiment.games] == [False, False]
    scaled = dataclasses.replace(experiment, frames=1_000_000)
    claim = scaled.claim("breakout", "m-dqn", measured(60.0, 80.0))
    assert not claim.holds
    assert "1,000,000" in claim.note
    small = dataclasses.replace(experiment, debug=True)
    curves = {"minatar-breakout": {f"{name}-debug": seeds for name, seeds in measured(60.0, 80.0)["minatar-breakout"].items()}}
    assert "after 300 frames" in small.claim("breakout", "m-dqn", curves).measured


def test_numbers_are_kept_as_long_as_the_settings_are_the_same(imported, tmp_path: Path, capsys):
    kept, computed = imported("experiments.kept").kept, []

    def compute() -> np.ndarray:
        computed.append(1)
        return np.arange(3.0) + len(computed)

    path = tmp_path / "below" / "numbers.npz"
    assert kept(path, ("a", 1), compute).tolist() == [1.0, 2.0, 3.0]
    assert kept(path, ("a", 1), compute).tolist() == [1.0, 2.0, 3.0]
    assert kept(path, ("a", 2), compute).tolist() == [2.0, 3.0, 4.0]
    assert len(computed) == 2
    assert [file.name for file in path.parent.iterdir()] == ["numbers.npz"]
    told = capsys.readouterr()
    assert [line.split()[1] for line in told.err.splitlines()] == ["computed", "kept", "computed"]
    assert "below/numbers: computed in 0 s" in told.err
    assert not told.out


class Watcher:
    """Stands for agents side by side: always does the same, and keeps the batches that it is given."""

    members = 2

    def __init__(self):
        self.batches: list[Batch] = []

    def choose(self, obs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        assert (obs.shape, noise.shape) == ((2, 1, 2), (2, 1, 3))
        return torch.nn.functional.one_hot(torch.full((2, 1), 2), 3).float()

    def draws(self, rows: int) -> tuple[int, int, int, int]:
        return (2, 0, rows, 3)

    def update(self, batch: Batch, noise: torch.Tensor) -> None:
        assert noise.shape == (2, 0, 16, 3)
        self.batches.append(batch)


def test_terminations_end_the_future_and_time_limits_do_not(imported):
    sweep, worlds = imported("experiments.online_sweep"), imported("experiments.control_worlds")
    generator = torch.Generator().manual_seed(0)
    cars, watcher = worlds.MountainCar(2, 4, generator), Watcher()
    cars.state[1] = torch.tensor([0.47, 0.05])
    options = {"steps": 9, "random_steps": 3, "capacity": 50, "batch_size": 16, "discount": 0.9, "generator": generator}
    steps = list(sweep.learn(watcher, cars, store=lambda step: 7 * step.reward, **options))
    assert len(watcher.batches) == 6
    last = watcher.batches[-1]
    ended = last.discount == 0
    assert not bool(ended[0].any())
    assert bool(ended[1].any())
    assert torch.equal(last.next_obs[..., 0] * 0.9 - 0.3 >= 0.5, ended)
    assert bool((last.discount[~ended] == 0.9).all())
    assert bool((last.reward == -7).all())
    assert all(bool((step.reward == -1).all()) for step in steps)
    assert [step.truncated[0].item() for step in steps] == [count % 4 == 3 for count in range(9)]


def test_returns_are_those_of_the_first_episodes(imported):
    no, yes = torch.tensor([False, False]), torch.tensor([True, False])
    obs = torch.zeros(2, 1)
    ends = [(no, no), (yes, no), (no, ~yes), (~no, no), (no, ~no), (no, ~no)]
    steps = [Step(obs, obs, torch.tensor([1.0, 10.0]) + i, end, cut, ~no, {}) for i, (end, cut) in enumerate(ends)]
    stream = iter(steps)
    found = imported("experiments.online_sweep").first_episodes(stream, 2, 2)
    assert found.tolist() == [[3.0, 7.0], [33.0, 13.0]]
    assert len(list(stream)) == 2
