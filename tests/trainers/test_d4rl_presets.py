"""The recipes for D4RL: what was published, by name, and that each of them builds and learns."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from steelyard.agents.awac import AWAC
from steelyard.agents.bc import BC
from steelyard.agents.cql import CQL
from steelyard.agents.dqn import DQN
from steelyard.agents.iql import IQL
from steelyard.agents.networks import MLP
from steelyard.agents.networks.normalizers import AffineRewards, DatasetNorm, RawObservations, ReturnRange, UnscaledRewards
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import ActionDistance, Family, Fixed, ReturnBound, Uncalibrated
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.agents.types import Batch, Records, Spec
from steelyard.envs import d4rl_table
from steelyard.trainers import plain, shrinking
from steelyard.trainers.config import ConfigError, Transfer
from steelyard.trainers.d4rl_agents import REBRAC, cautious
from steelyard.trainers.d4rl_presets import D4RL, DOMAINS, resolve
from steelyard.trainers.replays import Anew, Mixed, Together
from steelyard.trainers.samplers import Uniform
from steelyard.trainers.schedules import FixedRatio
from steelyard.trainers.trajectory_samplers import TopFraction

SPEC = Spec(obs_size=5, action_size=2, horizon=200)
PHASED = ("rlpd", "wsrl")
"""Algorithms whose recipes are for the online phase too."""


def agent_of(name: str) -> Any:
    return D4RL[name].agent


CHOICES = ("dqn", "m-dqn")
WITH_DOMAIN = [name for name in D4RL if name not in CHOICES]


def batch(columns: frozenset[str], size: int = 16, *, discrete: bool = False) -> Batch:
    """Random transitions with whatever the agent's losses read."""
    generator = torch.Generator().manual_seed(0)
    draw = [torch.randn(size, n, generator=generator) for n in (5, 5)]
    action, following = (2 * torch.rand(size, 2, generator=generator) - 1 for _ in range(2))
    return Batch(
        obs=draw[0],
        action=torch.eye(2)[torch.arange(size) % 2] if discrete else 0.9 * action,
        reward=torch.randn(size, generator=generator),
        next_obs=draw[1],
        discount=torch.full((size,), 0.99),
        weight=torch.ones(size),
        index=torch.arange(size),
        next_action=0.9 * following if "next_action" in columns else None,
        goal_return=torch.full((size,), -math.inf) if "goal_return" in columns else None,
    )


@pytest.mark.parametrize("name", D4RL)
def test_it_builds_is_saved_and_learns(name: str, tmp_path: Path) -> None:
    published = D4RL[name]
    assert published.preset == name
    plain.save(published, tmp_path / "config.json")
    assert plain.load(tmp_path / "config.json") == published
    if name.startswith("rebrac"):
        published = resolve(dataclasses.replace(published, task="Hopper-v4"))
    run = shrinking.debug(published)
    spec = dataclasses.replace(SPEC, discrete=name in CHOICES)
    agent = run.agent.build(spec, num_envs=1, total_updates=run.total_updates, seed=0, execution=run.execution)
    rows = batch(agent.columns, discrete=spec.discrete)
    returns = torch.tensor([1.0, 3.0], dtype=torch.float64)
    agent.fit(Records(rows.obs, rows.reward, torch.ones(16, dtype=torch.bool), returns))
    before = {key: p.clone() for key, p in agent.named_parameters()}
    agent.every = {}  # policies that wait for many updates of the critics, too
    for _ in range(2):
        metrics = agent.update(rows)
    assert agent.check(metrics) is None
    for child in agent.losses:
        assert any(not torch.equal(before[key], p) for key, p in agent.named_parameters() if key.startswith(f"{child}.")), child
    agent.begin_online()
    assert agent.check(agent.update(rows)) is None


@pytest.mark.parametrize("name", WITH_DOMAIN)
def test_its_data_set_is_one_of_d4rl(name: str) -> None:
    """And of the domain that its name says; its task is left to the data set."""
    domain = next(domain for domain in DOMAINS if name.endswith(f"-{domain}"))
    assert D4RL[name].dataset == DOMAINS[domain]
    assert D4RL[name].dataset in d4rl_table.TABLE
    assert D4RL[name].task == "auto"


def test_every_algorithm_has_its_class() -> None:
    kinds = {
        "bc": BC, "td3-bc": TD3, "rebrac": TD3, "awac": AWAC, "iql": IQL, "cql": CQL, "cal-ql": CQL, "iql-famo2o": IQL,
        "awac-famo2o": AWAC, "cql-famo2o": CQL, "rlpd": SAC, "wsrl": CQL, "ten-percent-bc": BC,
    }  # fmt: skip
    assert {name.rsplit("-", 1)[0] for name in WITH_DOMAIN} == set(kinds)
    for name in WITH_DOMAIN:
        assert type(D4RL[name].agent) is kinds[name.rsplit("-", 1)[0]], name
    assert all(type(D4RL[name].agent) is DQN for name in CHOICES)


@pytest.mark.parametrize(
    ("algorithm", "rewards"),
    [
        *((name, AffineRewards(1.0, -1.0)) for name in ("iql", "iql-famo2o", "awac", "awac-famo2o", "td3-bc", "rlpd")),
        *((name, AffineRewards(10.0, -5.0)) for name in ("cql", "cal-ql", "wsrl")),
        ("rebrac", AffineRewards(100.0, 0.0)),
    ],
)
def test_rewards_on_antmaze(algorithm: str, rewards: AffineRewards) -> None:
    """Without them antmaze stays at zero: the commonest mistake."""
    assert agent_of(f"{algorithm}-antmaze").rewards == rewards


def test_rewards_elsewhere() -> None:
    assert agent_of("iql-locomotion").rewards == agent_of("iql-famo2o-locomotion").rewards == ReturnRange(1000.0)
    assert agent_of("cal-ql-kitchen").rewards == agent_of("wsrl-kitchen").rewards == AffineRewards(1.0, -4.0)
    for name in (
        "iql-adroit",
        "wsrl-adroit",
        "iql-kitchen",
        "awac-locomotion",
        "td3-bc-locomotion",
        "cql-locomotion",
        "rlpd-locomotion",
    ):
        assert agent_of(name).rewards == UnscaledRewards()


def test_observations_are_normalised_where_they_were() -> None:
    for algorithm in ("bc", "td3-bc", "awac"):
        assert all(agent_of(f"{algorithm}-{domain}").observations == DatasetNorm(1e-3) for domain in DOMAINS)
    assert agent_of("cql-locomotion").observations == DatasetNorm(1e-3)
    for name in ("cql-antmaze", "iql-locomotion", "rebrac-locomotion", "rlpd-antmaze", "wsrl-locomotion", "cal-ql-antmaze"):
        assert agent_of(name).observations == RawObservations()


@pytest.mark.parametrize(
    ("domain", "expectile", "beta"),
    [("locomotion", 0.7, 3.0), ("antmaze", 0.9, 10.0), ("adroit", 0.7, 0.5), ("kitchen", 0.7, 0.5)],
)
def test_iql(domain: str, expectile: float, beta: float) -> None:
    agent = agent_of(f"iql-{domain}")
    assert (agent.expectile, agent.balance, agent.largest_weight) == (expectile, Fixed(beta), 100.0)
    assert agent.actor_optimizer == Adam(3e-4, final_learning_rate=0.0, decay="cosine")
    assert agent.optimizer == Adam(3e-4)
    assert (agent.discount, agent.target_rate, agent.batch_size, agent.critics) == (0.99, 0.005, 256, 2)
    assert agent.critic == agent.value == MLP((256, 256), gain=2**0.5)
    assert agent.actor == dataclasses.replace(agent.critic, dropout=0.1 if domain in ("adroit", "kitchen") else 0.0)


@pytest.mark.parametrize("base", ["iql", "awac"])
def test_famo2o_has_its_ranges(base: str) -> None:
    for domain, published in (("locomotion", (1.0, 5.0, 5)), ("antmaze", (8.0, 14.0, 1))):
        balance = agent_of(f"{base}-famo2o-{domain}").balance
        assert (balance.low, balance.high, balance.interval) == published
        assert (balance.values, balance.entropy) == ("target", True)


def test_famo2o_on_iql_keeps_its_learning_rate() -> None:
    assert agent_of("iql-famo2o-locomotion").actor_optimizer is None
    assert agent_of("iql-famo2o-antmaze").expectile == 0.9


def test_famo2o_on_cql() -> None:
    run, agent = D4RL["cql-famo2o-locomotion"], agent_of("cql-famo2o-locomotion")
    assert agent.balance == Family(0.5, 1.5, values="current", entropy=False)
    assert (agent.conservatism, agent.lagrange_gap, agent.max_target, agent.entropy_backup) == (1.0, None, False, False)
    assert agent.critic == MLP((256, 256), layer_norm=True)
    assert run.offline_updates == 2_000_000


@pytest.mark.parametrize(
    ("domain", "alpha", "gap", "best_target", "smallest", "rate", "layers"),
    [
        ("locomotion", 10.0, None, False, -math.inf, 3e-5, 3),
        ("antmaze", 5.0, 0.8, True, -200.0, 1e-4, 5),
        ("adroit", 1.0, None, False, -math.inf, 1e-4, 3),
        ("maze2d", 10.0, 5.0, False, -math.inf, 3e-5, 3),
    ],
)
def test_cql(domain: str, alpha: float, gap: float | None, best_target: bool, smallest: float, rate: float, layers: int) -> None:
    agent = agent_of(f"cql-{domain}")
    assert (agent.conservatism, agent.lagrange_gap, agent.max_target, agent.smallest_gap) == (alpha, gap, best_target, smallest)
    assert (agent.actor_optimizer, agent.optimizer) == (Adam(rate), Adam(3e-4))
    assert (agent.actor, agent.critic) == (cautious(256, 256, 256), cautious(*(256,) * layers))
    assert (agent.samples, agent.softness, agent.importance_sampling, agent.calibration) == (10, 1.0, True, Uncalibrated())


def test_cal_ql() -> None:
    run, agent = D4RL["cal-ql-antmaze"], agent_of("cal-ql-antmaze")
    assert (agent.conservatism, agent.lagrange_gap, agent.max_target, agent.smallest_gap) == (5.0, 0.8, True, -math.inf)
    assert (agent.actor, agent.critic) == (cautious(256, 256), cautious(256, 256, 256, 256))
    assert (agent.actor_optimizer, agent.optimizer) == (Adam(1e-4), Adam(3e-4))
    assert run.reward_of_failure == -5.0
    assert all(run.agent.calibration == ReturnBound() for name, run in D4RL.items() if name.startswith("cal-ql"))  # pyright: ignore[reportAttributeAccessIssue]
    assert all(run.replay == Mixed(0.5) for name, run in D4RL.items() if name.startswith("cal-ql"))
    assert D4RL["cal-ql-locomotion"].reward_of_failure is None
    adroit = agent_of("cal-ql-adroit")
    assert (adroit.conservatism, adroit.actor, adroit.critic) == (1.0, cautious(512, 512), cautious(512, 512, 512))


def test_awac_and_td3_bc() -> None:
    assert agent_of("awac-locomotion").balance == Fixed(3.0)
    assert all(agent_of(f"awac-{domain}").balance == Fixed(10.0) for domain in DOMAINS if domain != "locomotion")
    assert agent_of("awac-locomotion").actor == agent_of("awac-locomotion").critic == MLP((256,) * 3)
    assert agent_of("awac-locomotion").policy.mean == "linear"
    agent = agent_of("td3-bc-locomotion")
    assert (agent.balance, agent.cloning) == (Fixed(2.5), ActionDistance(1.0, 0.0, per_component=True))
    assert (agent.policy_delay, agent.target_noise, agent.target_noise_clip, agent.policy_value) == (2, 0.2, 0.5, "first")


def test_rebrac() -> None:
    agent = agent_of("rebrac-locomotion")
    assert (agent.batch_size, agent.optimizer, agent.discount, agent.policy_value) == (1024, Adam(1e-3), 0.99, "lowest")
    assert agent.actor == MLP((256,) * 3, fan_in=True, hidden_bias=0.1, output_range=0.001)
    assert agent.critic == MLP((256,) * 3, layer_norm=True, norm_after=True, fan_in=True, hidden_bias=0.1, output_range=0.003)
    assert agent.cloning == ActionDistance(None, None, per_component=False, online_decay=1_000_000, online_floor=0.5)
    assert (agent.exploration_noise, D4RL["rebrac-locomotion"].replay) == (0.0, Mixed(0.5))
    maze = agent_of("rebrac-antmaze")
    assert (maze.batch_size, maze.optimizer, maze.actor_optimizer, maze.discount) == (256, Adam(5e-5), Adam(3e-4), 0.999)
    assert (agent_of("rebrac-adroit").batch_size, agent_of("rebrac-adroit").optimizer) == (256, Adam(3e-4))


def test_rebrac_has_weights_for_every_data_set_of_corl() -> None:
    assert len(REBRAC) == 3 * 6 + 3 + 6 + 4 * 3
    bare = {name.rsplit("-v", 1)[0] for name in d4rl_table.TABLE}
    assert set(REBRAC) <= bare
    for name, weights in {
        "halfcheetah-medium-expert": (0.01, 0.1),
        "hopper-medium-replay": (0.05, 0.5),
        "walker2d-random": (0.01, 0.0),
        "maze2d-large": (0.003, 0.001),
        "antmaze-medium-play": (0.001, 0.0005),
        "antmaze-large-diverse": (0.002, 0.002),
        "pen-cloned": (0.05, 0.5),
        "hammer-cloned": (0.1, 0.5),
        "relocate-expert": (0.05, 0.01),
    }.items():
        assert REBRAC[name] == weights


def test_rlpd() -> None:
    for domain, subset, layers, backup, steps in (
        ("locomotion", 2, 2, True, 250_000),
        ("antmaze", 1, 3, False, 300_000),
        ("adroit", 2, 3, False, 1_000_000),
    ):
        run, agent = D4RL[f"rlpd-{domain}"], agent_of(f"rlpd-{domain}")
        assert (agent.critics, agent.target_subset, agent.target_draw, agent.policy_value) == (10, subset, "distinct", "mean")
        assert agent.critic == MLP((256,) * layers, layer_norm=True)
        assert (agent.entropy_backup, agent.entropy_per_action, agent.policy_delay) == (backup, -0.5, 20)
        assert (run.offline_updates, run.env_steps, run.random_steps) == (0, steps, 5_000)
        assert (run.replay, run.schedule, run.frozen_steps) == (Mixed(0.5), FixedRatio(20.0), 0)
        assert (run.evaluation_episodes, run.evaluation_interval) == (10, 5_000)


def test_wsrl() -> None:
    for domain, updates, actor, critic, alpha in (
        ("locomotion", 250_000, (256, 256), (256, 256), 10.0),
        ("antmaze", 1_000_000, (256, 256), (256,) * 4, 5.0),
        ("adroit", 20_000, (512, 512), (512,) * 3, 1.0),
        ("kitchen", 250_000, (512,) * 3, (512,) * 3, 5.0),
    ):
        run, agent = D4RL[f"wsrl-{domain}"], agent_of(f"wsrl-{domain}")
        assert (agent.critics, agent.target_subset, agent.target_draw, agent.policy_value) == (10, 2, "independent", "lowest")
        assert agent.actor == MLP(actor, layer_norm=True)
        assert agent.critic == MLP(critic, layer_norm=True)
        assert (agent.conservatism, agent.lagrange_gap) == (alpha, None)
        assert (agent.actor_optimizer, agent.optimizer, agent.entropy_per_action) == (Adam(1e-4), Adam(3e-4), -1.0)
        assert agent.temperature_optimizer == Adam(1e-4)
        assert (agent.online_conservatism, agent.entropy_backup) == (0.0, False)
        assert (run.offline_updates, run.env_steps, run.frozen_steps, run.random_steps) == (updates, 500_000, 5_000, 0)
        assert (run.replay, run.schedule) == (Anew(), FixedRatio(4.0))
        assert agent.max_target == (domain == "antmaze")
        assert agent.calibration == (Uncalibrated() if domain == "locomotion" else ReturnBound())
    assert D4RL["wsrl-antmaze"].reward_of_failure == -5.0


def test_ten_percent_is_behaviour_cloning_of_the_best_tenth() -> None:
    for domain in DOMAINS:
        best, all_of_it = D4RL[f"ten-percent-bc-{domain}"], D4RL[f"bc-{domain}"]
        assert best == dataclasses.replace(all_of_it, preset=best.preset, sampler=TopFraction(0.1))


@pytest.mark.parametrize("name", [name for name in WITH_DOMAIN if not name.startswith(PHASED)])
def test_offline_recipes_make_a_million_updates_and_measure_antmaze_well(name: str) -> None:
    run = D4RL[name]
    assert (run.env_steps, run.random_steps, run.frozen_steps) == (0, 0, 0)
    assert run.offline_updates == (2_000_000 if name.startswith("cql-famo2o") else 1_000_000)
    usual = (100, 100_000) if name.endswith("antmaze") or name.startswith(("iql-famo2o", "awac-famo2o")) else (10, 5_000)
    other = {"cql-famo2o-locomotion": (5, 5_000), "cql-antmaze": (100, 50_000), "rebrac-antmaze": (100, 50_000)}
    assert (run.evaluation_episodes, run.evaluation_interval) == other.get(name, usual)
    assert run.replay == (Mixed() if name.startswith(("cal-ql", "rebrac")) else Together())
    assert isinstance(run.sampler, TopFraction if name.startswith("ten-percent") else Uniform)


def test_the_task_comes_from_the_data_set() -> None:
    run = dataclasses.replace(D4RL["iql-locomotion"], dataset="walker2d-medium-replay-v2")
    assert resolve(run).task == "Walker2d-v4"
    assert dataclasses.replace(resolve(run), task="auto") == run
    assert resolve(dataclasses.replace(run, task="Walker2d-v5")).task == "Walker2d-v5"


def test_a_data_set_without_worlds_asks_for_a_task(tmp_path: Path) -> None:
    name = next(name for name, entry in d4rl_table.TABLE.items() if entry.task is None)
    with pytest.raises(ConfigError, match=rf"{name} does not say in which environment it was recorded; name it with --task\."):
        resolve(dataclasses.replace(D4RL["iql-locomotion"], dataset=name))


def rebrac(dataset: str, **weights: float) -> Transfer:
    run = D4RL["rebrac-locomotion"]
    agent = dataclasses.replace(run.agent, cloning=dataclasses.replace(agent_of("rebrac-locomotion").cloning, **weights))
    return dataclasses.replace(run, dataset=dataset, task="Hopper-v4", agent=agent)


def test_rebracs_weights_come_from_the_data_set_unless_given() -> None:
    def weights(run: Transfer) -> tuple[float, float]:
        cloning: Any = resolve(run).agent.cloning  # pyright: ignore[reportAttributeAccessIssue]
        return cloning.actor, cloning.critic

    assert weights(rebrac("hopper-medium-replay-v2")) == (0.05, 0.5)
    assert weights(rebrac("walker2d-random-v2")) == (0.01, 0.0)
    assert weights(rebrac("hopper-medium-replay-v2", actor=0.0)) == (0.0, 0.5)
    assert weights(rebrac("mine.hdf5", actor=0.3, critic=0.2)) == (0.3, 0.2)


@pytest.mark.parametrize("given", [{}, {"actor": 0.1}, {"critic": 0.1}], ids=str)
def test_rebrac_on_other_data_asks_for_its_weights(given: dict[str, float]) -> None:
    sentence = r"no weights were published for ReBRAC on mine\.hdf5; give --agent\.cloning\.actor and --agent\.cloning\.critic"
    with pytest.raises(ConfigError, match=sentence):
        resolve(rebrac("mine.hdf5", **given))


def test_cautious_perceptrons_start_as_released() -> None:
    assert cautious(512, 256) == MLP((512, 256), gain=2**0.5, output_gain=0.01)
