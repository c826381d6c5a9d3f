"""The agents of D4RL's recipes: one per algorithm, and what differs by domain or data set. `d4rl_presets.py` names the sources."""

import dataclasses
from collections.abc import Mapping

from steelyard.agents.awac import AWAC
from steelyard.agents.bc import BC
from steelyard.agents.cql import CQL
from steelyard.agents.iql import IQL
from steelyard.agents.networks import MLP
from steelyard.agents.networks.normalizers import AffineRewards, DatasetNorm, RawObservations, ReturnRange, UnscaledRewards
from steelyard.agents.networks.policies import Gaussian
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import ActionDistance, Family, Fixed, ReturnBound
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3

MINUS_ONE = AffineRewards(shift=-1.0)
"""AntMaze: -1 per step and 0 at the goal (IQL, FamO2O, AWAC, TD3+BC, RLPD)."""
TEN_MINUS_FIVE = AffineRewards(scale=10.0, shift=-5.0)
"""AntMaze: -5 and 5 (CQL, Cal-QL, WSRL)."""
TIMES_HUNDRED = AffineRewards(scale=100.0)
"""AntMaze: 0 and 100 (ReBRAC)."""
COSINE = Adam(3e-4, final_learning_rate=0.0, decay="cosine")
"""IQL's policy: the learning rate falls to zero over the offline phase; online it is constant."""
THREE = MLP((256, 256, 256))
IQL_LAYERS = MLP(gain=2**0.5)
"""IQL's and FamO2O's released codes: orthogonal weights of gain sqrt 2 in every layer."""
REBRAC_ACTOR = MLP((256, 256, 256), fan_in=True, hidden_bias=0.1, output_range=1e-3)
REBRAC_CRITIC = MLP((256, 256, 256), layer_norm=True, norm_after=True, fan_in=True, hidden_bias=0.1, output_range=3e-3)
"""ReBRAC's networks and their initial values (CORL)."""


def cautious(*hidden: int) -> MLP:
    """CQL's and Cal-QL's perceptrons: orthogonal weights of gain sqrt 2, in the last layer 0.01."""
    return MLP(hidden, gain=2**0.5, output_gain=0.01)


NORMED = MLP((256, 256), layer_norm=True)

AGENTS: Mapping[str, BC | TD3 | AWAC | IQL | CQL | SAC] = {
    "bc": BC(observations=DatasetNorm()),
    "td3-bc": TD3(observations=DatasetNorm(), balance=Fixed(2.5), cloning=ActionDistance()),
    "rebrac": TD3(
        actor=REBRAC_ACTOR,
        critic=REBRAC_CRITIC,
        policy_value="lowest",
        cloning=ActionDistance(actor=None, critic=None, per_component=False, online_decay=1_000_000),
        exploration_noise=0.0,
        batch_size=1024,
        optimizer=Adam(1e-3),
    ),
    "awac": AWAC(actor=THREE, critic=THREE, observations=DatasetNorm(), balance=Fixed(3.0)),
    "iql": IQL(actor=IQL_LAYERS, critic=IQL_LAYERS, value=IQL_LAYERS, rewards=ReturnRange(), actor_optimizer=COSINE),
    "cql": CQL(
        actor=cautious(256, 256, 256),
        critic=cautious(256, 256, 256),
        observations=DatasetNorm(),
        conservatism=10.0,
        actor_optimizer=Adam(3e-5),
        optimizer=Adam(3e-4),
    ),
    "cal-ql": CQL(
        actor=cautious(256, 256),
        critic=cautious(256, 256),
        conservatism=5.0,
        calibration=ReturnBound(),
        actor_optimizer=Adam(1e-4),
    ),
    "iql-famo2o": IQL(
        actor=IQL_LAYERS,
        critic=IQL_LAYERS,
        value=IQL_LAYERS,
        rewards=ReturnRange(),
        balance=Family(1.0, 5.0, network=IQL_LAYERS, interval=5),
    ),
    "awac-famo2o": AWAC(actor=THREE, critic=THREE, observations=DatasetNorm(), balance=Family(1.0, 5.0, interval=5)),
    "cql-famo2o": CQL(
        critic=NORMED, conservatism=1.0, balance=Family(0.5, 1.5, values="current", entropy=False), actor_optimizer=Adam(3e-4)
    ),
    "rlpd": SAC(
        critic=NORMED,
        critics=10,
        target_subset=2,
        policy_value="mean",
        entropy_per_action=-0.5,
        policy_delay=20,
        policy=Gaussian(),
    ),
    "wsrl": CQL(
        actor=NORMED,
        critic=NORMED,
        critics=10,
        target_subset=2,
        target_draw="independent",
        conservatism=10.0,
        online_conservatism=0.0,
        actor_optimizer=Adam(1e-4),
        temperature_optimizer=Adam(1e-4),
    ),
}
"""Each algorithm on locomotion; the other domains change the fields that `FOR_DOMAIN` names."""

SPARSE_CQL = {"conservatism": 5.0, "lagrange_gap": 0.8, "max_target": True, "smallest_gap": -200.0, "rewards": TEN_MINUS_FIVE}
FOR_DOMAIN: Mapping[str, Mapping[str, Mapping[str, object]]] = {
    "bc": {},
    "td3-bc": {"antmaze": {"rewards": MINUS_ONE}},
    "rebrac": {
        "antmaze": {
            "rewards": TIMES_HUNDRED,
            "discount": 0.999,
            "batch_size": 256,
            "optimizer": Adam(5e-5),
            "actor_optimizer": Adam(3e-4),
        },
        "adroit": {"batch_size": 256, "optimizer": Adam(3e-4)},
        "maze2d": {"batch_size": 256, "optimizer": Adam(3e-4)},
    },
    "awac": {
        "antmaze": {"rewards": MINUS_ONE, "balance": Fixed(10.0)},
        **{domain: {"balance": Fixed(10.0)} for domain in ("adroit", "kitchen", "maze2d")},
    },
    "iql": {
        "antmaze": {"rewards": MINUS_ONE, "expectile": 0.9, "balance": Fixed(10.0)},
        **{
            domain: {
                "rewards": UnscaledRewards(),
                "balance": Fixed(0.5),
                "actor": dataclasses.replace(IQL_LAYERS, dropout=0.1),
            }
            for domain in ("adroit", "kitchen")
        },
        "maze2d": {"rewards": UnscaledRewards()},
    },
    "cql": {
        "antmaze": {
            **SPARSE_CQL,
            "critic": cautious(256, 256, 256, 256, 256),
            "observations": RawObservations(),
            "actor_optimizer": Adam(1e-4),
        },
        "adroit": {"conservatism": 1.0, "actor_optimizer": Adam(1e-4)},
        "kitchen": {"conservatism": 1.0, "actor_optimizer": Adam(1e-4)},
        "maze2d": {"lagrange_gap": 5.0},
    },
    "cal-ql": {
        "antmaze": {**SPARSE_CQL, "critic": cautious(256, 256, 256, 256), "smallest_gap": -float("inf")},
        "adroit": {
            "conservatism": 1.0,
            "actor": cautious(512, 512),
            "critic": cautious(512, 512, 512),
        },
        "kitchen": {"rewards": AffineRewards(shift=-4.0), "actor": cautious(512, 512, 512), "critic": cautious(512, 512, 512)},
    },
    "iql-famo2o": {"antmaze": {"rewards": MINUS_ONE, "expectile": 0.9, "balance": Family(8.0, 14.0, network=IQL_LAYERS)}},
    "awac-famo2o": {"antmaze": {"rewards": MINUS_ONE, "balance": Family(8.0, 14.0)}},
    "cql-famo2o": {},
    "rlpd": {
        "antmaze": {
            "rewards": MINUS_ONE,
            "actor": THREE,
            "critic": MLP((256,) * 3, layer_norm=True),
            "target_subset": 1,
            "entropy_backup": False,
        },
        "adroit": {"actor": THREE, "critic": MLP((256,) * 3, layer_norm=True), "entropy_backup": False},
    },
    "wsrl": {
        "antmaze": {
            "rewards": TEN_MINUS_FIVE,
            "critic": MLP((256,) * 4, layer_norm=True),
            "conservatism": 5.0,
            "calibration": ReturnBound(),
            "max_target": True,
        },
        "adroit": {
            "actor": MLP((512, 512), layer_norm=True),
            "critic": MLP((512,) * 3, layer_norm=True),
            "conservatism": 1.0,
            "calibration": ReturnBound(),
        },
        "kitchen": {
            "rewards": AffineRewards(shift=-4.0),
            "actor": MLP((512,) * 3, layer_norm=True),
            "critic": MLP((512,) * 3, layer_norm=True),
            "conservatism": 5.0,
            "calibration": ReturnBound(),
        },
    },
}
"""What differs from locomotion, by algorithm and domain. A domain that is not named for an algorithm has no recipe, apart from bc and td3-bc,
whose recipe is the same everywhere. FamO2O publishes ranges for IQL on locomotion and AntMaze and for CQL on locomotion; those for AWAC are
IQL's, since none were published."""

REBRAC: Mapping[str, tuple[float, float]] = {
    "halfcheetah-random": (0.001, 0.1),
    "halfcheetah-medium": (0.001, 0.01),
    "halfcheetah-expert": (0.01, 0.01),
    "halfcheetah-medium-expert": (0.01, 0.1),
    "halfcheetah-medium-replay": (0.01, 0.001),
    "halfcheetah-full-replay": (0.001, 0.1),
    "hopper-random": (0.001, 0.01),
    "hopper-medium": (0.01, 0.01),
    "hopper-expert": (0.1, 0.1),
    "hopper-medium-expert": (0.1, 0.01),
    "hopper-medium-replay": (0.05, 0.5),
    "hopper-full-replay": (0.01, 0.01),
    "walker2d-random": (0.01, 0.0),
    "walker2d-medium": (0.05, 0.1),
    "walker2d-expert": (0.01, 0.5),
    "walker2d-medium-expert": (0.01, 0.01),
    "walker2d-medium-replay": (0.05, 0.01),
    "walker2d-full-replay": (0.01, 0.01),
    "maze2d-umaze": (0.003, 0.001),
    "maze2d-medium": (0.003, 0.001),
    "maze2d-large": (0.003, 0.001),
    "antmaze-umaze": (0.003, 0.002),
    "antmaze-umaze-diverse": (0.003, 0.001),
    "antmaze-medium-play": (0.001, 0.0005),
    "antmaze-medium-diverse": (0.001, 0.0),
    "antmaze-large-play": (0.002, 0.001),
    "antmaze-large-diverse": (0.002, 0.002),
    "pen-human": (0.1, 0.5),
    "pen-cloned": (0.05, 0.5),
    "pen-expert": (0.01, 0.01),
    "door-human": (0.1, 0.1),
    "door-cloned": (0.01, 0.1),
    "door-expert": (0.05, 0.01),
    "hammer-human": (0.01, 0.5),
    "hammer-cloned": (0.1, 0.5),
    "hammer-expert": (0.01, 0.01),
    "relocate-human": (0.1, 0.01),
    "relocate-cloned": (0.1, 0.01),
    "relocate-expert": (0.05, 0.01),
}
"""ReBRAC's weights of the policy's and of the critic's penalty by data set without its version (CORL)."""
