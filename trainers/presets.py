"""Named recipes: one function of the benchmark per published recipe, and the tables that scripts offer as subcommands."""

import dataclasses
import math
from collections.abc import Mapping

from steelyard.agents.dqn import DQN
from steelyard.agents.networks import MLP, Convolution, SimbaV2
from steelyard.agents.networks.greedy import EpsilonGreedy
from steelyard.agents.networks.heads import Categorical
from steelyard.agents.networks.normalizers import ReturnScale, RunningNorm
from steelyard.agents.networks.policies import Gaussian
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import Greedy, HuberBellman, InverseVariance, Munchausen
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.trainers.config import Run
from steelyard.trainers.schedules import FixedRatio

SIMBA_V2_SAC = SAC(
    actor=SimbaV2(width=128, blocks=1),
    critic=SimbaV2(width=512, blocks=2),
    head=Categorical(),
    observations=RunningNorm(),
    rewards=ReturnScale(),
    policy=Gaussian(low=-10.0, high=2.0, bound="tanh"),
    initial_temperature=0.01,
    entropy_per_action=-0.5,
    optimizer=Adam(learning_rate=1e-4, final_learning_rate=5e-5),
    discount=None,
)
"""SimbaV2 as published: its sizes and settings where all benchmarks agree (arXiv 2502.15280 and its released configuration)."""

SIMBA_V2_TD3 = TD3(
    actor=SimbaV2(width=128, blocks=1),
    critic=SimbaV2(width=512, blocks=2),
    head=Categorical(),
    observations=RunningNorm(),
    rewards=ReturnScale(),
    optimizer=Adam(learning_rate=1e-4, final_learning_rate=5e-5),
    discount=None,
)
"""TD3 on SimbaV2's networks and normalisation; a composition of this suite, not a published recipe."""

LAYER_NORM = MLP(layer_norm=True)

MUJOCO: Mapping[str, Run] = {
    "sac": Run("HalfCheetah-v5", SAC(entropy_per_action=-0.5), "sac"),
    "sac-layer-norm": Run("HalfCheetah-v5", SAC(critic=LAYER_NORM, entropy_per_action=-0.5), "sac-layer-norm"),
    "td3": Run("HalfCheetah-v5", TD3(), "td3", random_steps=25_000),
    "simba-v2": Run("HalfCheetah-v5", SIMBA_V2_SAC, "simba-v2", evaluation_interval=25_000),
    "simba-v2-td3": Run("HalfCheetah-v5", SIMBA_V2_TD3, "simba-v2-td3", evaluation_interval=25_000),
}
"""Gymnasium locomotion: clipped double Q, no action repeat, one update per step. TD3 starts with 25,000 random steps, as its authors' code."""


def for_dmc(run: Run) -> Run:
    """The same recipe for dm-control: decisions of two steps, two updates each, and, for SimbaV2, a single critic (no episode terminates)."""
    agent = dataclasses.replace(run.agent, critics=1) if run.preset.startswith("simba-v2") else run.agent
    return dataclasses.replace(
        run,
        task="walker-run",
        agent=agent,
        action_repeat=2,
        schedule=FixedRatio(2.0),
        random_steps=min(run.random_steps, 5_000),
        capacity=1_000_000,
    )


DMC: Mapping[str, Run] = {name: for_dmc(run) for name, run in MUJOCO.items()}
"""dm-control suite."""

MINATAR_DQN = DQN(critic=Convolution(), optimizer=Adam(2.5e-4), batch_size=32)
MINATAR_DVW = InverseVariance(network=Convolution(), period=MINATAR_DQN.target_period)
"""Deep Variance Weighting; its generations change with the target network."""


def minatar(name: str, agent: DQN) -> Run:
    """The settings that the DVW paper's released code has for MinAtar: ten million frames, an update for every fourth."""
    return Run(
        "minatar-breakout",
        agent,
        name,
        env_steps=10_000_000,
        random_steps=10_000,
        schedule=FixedRatio(0.25),
        capacity=100_000,
        evaluation_interval=100_000,
        log_interval=10_000,
        checkpoint_interval=250_000,
        threads=1,
    )


CLASSIC_NETWORK = MLP((120, 84))
CLASSIC_DQN = DQN(
    critic=CLASSIC_NETWORK,
    optimizer=Adam(2.5e-4),
    batch_size=128,
    target_period=50,
    exploration=EpsilonGreedy(end=0.05, decay_steps=250_000),
)
CLASSIC_DVW = InverseVariance(network=CLASSIC_NETWORK, period=CLASSIC_DQN.target_period)
QRC = DQN(
    critic=MLP((32, 32), output_gain=0.0),
    optimizer=Adam(2**-10),
    batch_size=32,
    improvement=Greedy(random_share=0.1),
    exploration=EpsilonGreedy(start=0.1, decay_steps=1),
    objective=HuberBellman(math.inf, network=MLP((32, 32), output_gain=0.0), optimizer=Adam(2**-10, weight_decay=1.0)),
)
"""Q-learning with regularised corrections (Ghiassian et al. 2020) at its Mountain Car settings, with a network of its own for h."""


def classic(name: str, agent: DQN) -> Run:
    """Small tasks of Gymnasium: the target moves every 500 steps, ten steps per update."""
    return Run(
        "CartPole-v1",
        agent,
        name,
        env_steps=500_000,
        random_steps=10_000,
        schedule=FixedRatio(0.1),
        capacity=10_000,
        evaluation_interval=25_000,
        checkpoint_interval=50_000,
        threads=1,
    )


def corrected(name: str, agent: DQN) -> Run:
    """Small tasks of Gymnasium without a target network: an update for every step."""
    return dataclasses.replace(
        classic(name, agent),
        env_steps=100_000,
        random_steps=32,
        schedule=FixedRatio(1.0),
        capacity=4_000,
        evaluation_interval=5_000,
    )


MINATAR: Mapping[str, Run] = {
    "dqn": minatar("dqn", MINATAR_DQN),
    "m-dqn": minatar("m-dqn", dataclasses.replace(MINATAR_DQN, improvement=Munchausen())),
    "dvw-dqn": minatar("dvw-dqn", dataclasses.replace(MINATAR_DQN, weighting=MINATAR_DVW)),
    "dvw-m-dqn": minatar("dvw-m-dqn", dataclasses.replace(MINATAR_DQN, improvement=Munchausen(), weighting=MINATAR_DVW)),
    "dqn-classic": classic("dqn-classic", CLASSIC_DQN),
    "m-dqn-classic": classic("m-dqn-classic", dataclasses.replace(CLASSIC_DQN, improvement=Munchausen())),
    "dvw-dqn-classic": classic("dvw-dqn-classic", dataclasses.replace(CLASSIC_DQN, weighting=CLASSIC_DVW)),
    "dvw-m-dqn-classic": classic(
        "dvw-m-dqn-classic", dataclasses.replace(CLASSIC_DQN, improvement=Munchausen(), weighting=CLASSIC_DVW)
    ),
    "qrc-classic": corrected("qrc-classic", QRC),
    "qrc-huber-classic": corrected(
        "qrc-huber-classic", dataclasses.replace(QRC, objective=dataclasses.replace(QRC.objective, threshold=1.0))
    ),
}
"""MinAtar, and the small tasks of Gymnasium whose actions are choices."""

DEMO = dataclasses.replace(
    DMC["simba-v2"],
    task="cartpole-swingup",
    preset="demo",
    agent=dataclasses.replace(
        SIMBA_V2_SAC,
        actor=SimbaV2(64, 1),
        critic=SimbaV2(96, 2),
        critics=1,
        batch_size=128,
        optimizer=Adam(3e-4, 1.5e-4),
        n_step=3,
    ),
    action_repeat=4,
    env_steps=40_000,
    random_steps=500,
    capacity=100_000,
    schedule=FixedRatio(1.5),
    evaluation_interval=10_000,
    evaluation_episodes=3,
    checkpoint_interval=10_000,
    threads=1,
)
"""SimbaV2 scaled down to a few minutes of a small CPU."""
