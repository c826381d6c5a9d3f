"""Recipes for D4RL: one per algorithm and domain, with the preprocessing that belongs to it.

Sources: the released codes of IQL, FamO2O, Cal-QL, RLPD and WSRL, and CORL for TD3+BC, ReBRAC, AWAC, CQL and BC.

Not as published: Cal-QL updates after every step (its code: after every episode, as often as that had steps). WSRL updates policy and
temperature beside every critic update (its code: once per four, on their joined batches). Cal-QL's, RLPD's and WSRL's settings for Adroit were
published for its binary tasks, whose data sets D4RL does not have; here they meet D4RL's own rewards, unscaled. WSRL's policies on Adroit and in
the kitchen are as large as Cal-QL's, and so are its alphas. Its kitchen pays the number of sub-tasks complete at each step, in the world as in
the data; the world here pays for new ones only, as D4RL's.
"""

import dataclasses
from collections.abc import Mapping

from steelyard.agents.parts import ActionDistance
from steelyard.envs import d4rl_table
from steelyard.trainers.config import ConfigError, Transfer
from steelyard.trainers.d4rl_agents import AGENTS, FOR_DOMAIN, REBRAC
from steelyard.trainers.presets import MINATAR
from steelyard.trainers.replays import Anew, Mixed
from steelyard.trainers.schedules import FixedRatio
from steelyard.trainers.trajectory_samplers import TopFraction

DOMAINS = {
    "locomotion": "hopper-medium-v2",
    "antmaze": "antmaze-umaze-v2",
    "adroit": "pen-human-v1",
    "kitchen": "kitchen-partial-v0",
    "maze2d": "maze2d-umaze-v1",
}
"""Domains and the data set that a recipe names until another is given."""

EVERYWHERE = ("bc", "td3-bc")

EVALUATIONS: Mapping[str, tuple[int, int]] = {
    "iql-famo2o-locomotion": (100_000, 100),
    "awac-famo2o-locomotion": (100_000, 100),
    "cql-famo2o-locomotion": (5_000, 5),
    "cql-antmaze": (50_000, 100),
    "rebrac-antmaze": (50_000, 100),
}
"""Updates between evaluations and their episodes where they are not 5,000 and 10, or on AntMaze 100,000 and 100 (FamO2O's released code, CORL)."""


def recipe(algorithm: str, domain: str) -> Transfer:
    """One preset: a million offline updates unless published otherwise, no environment steps unless the algorithm is meant for them."""
    agent = dataclasses.replace(AGENTS[algorithm], **FOR_DOMAIN[algorithm].get(domain, {}))
    sparse = domain == "antmaze"
    interval, episodes = EVALUATIONS.get(f"{algorithm}-{domain}", (100_000, 100) if sparse else (5_000, 10))
    run = Transfer(
        task="auto",
        agent=agent,
        preset=f"{algorithm}-{domain}",
        dataset=DOMAINS[domain],
        env_steps=0,
        random_steps=0,
        capacity=2_000_000,
        evaluation_interval=interval,
        evaluation_episodes=episodes,
        log_interval=1_000,
        checkpoint_interval=100_000,
    )
    match algorithm:
        case "rlpd":
            return dataclasses.replace(
                run,
                offline_updates=0,
                env_steps={"antmaze": 300_000, "adroit": 1_000_000}.get(domain, 250_000),
                random_steps=5_000,
                replay=Mixed(),
                schedule=FixedRatio(20.0),
                evaluation_interval=5_000,
                evaluation_episodes=10,
            )
        case "wsrl":
            updates = {"antmaze": 1_000_000, "adroit": 20_000}.get(domain, 250_000)
            return dataclasses.replace(
                run,
                offline_updates=updates,
                env_steps=500_000,
                replay=Anew(),
                frozen_steps=5_000,
                schedule=FixedRatio(4.0),
                evaluation_interval=20_000,
                evaluation_episodes=20,
                reward_of_failure=-5.0 if sparse else None,
            )
        case "cal-ql":
            return dataclasses.replace(run, replay=Mixed(), reward_of_failure=-5.0 if sparse else None)
        case "rebrac":
            return dataclasses.replace(run, replay=Mixed())
        case "cql-famo2o":
            return dataclasses.replace(run, offline_updates=2_000_000)
        case _:
            return run


def domains(algorithm: str) -> tuple[str, ...]:
    """The domains for which there is a recipe."""
    return tuple(DOMAINS) if algorithm in EVERYWHERE else ("locomotion", *FOR_DOMAIN[algorithm])


def with_choices(name: str) -> Transfer:
    """DQN or M-DQN from data whose actions are choices, Minari's or own recordings, with the settings that small tasks have online.

    Nothing keeps its targets near the data's actions, so narrow data will let them grow too high; look at the metric `value`.
    """
    return Transfer(
        task="auto",
        agent=MINATAR[f"{name}-classic"].agent,
        preset=name,
        dataset="recording.hdf5",
        offline_updates=100_000,
        env_steps=0,
        random_steps=0,
        evaluation_interval=5_000,
        log_interval=1_000,
        checkpoint_interval=25_000,
        threads=1,
    )


D4RL: Mapping[str, Transfer] = (
    {f"{algorithm}-{domain}": recipe(algorithm, domain) for algorithm in AGENTS for domain in domains(algorithm)}
    | {
        f"ten-percent-bc-{domain}": dataclasses.replace(
            recipe("bc", domain), preset=f"ten-percent-bc-{domain}", sampler=TopFraction(0.1)
        )
        for domain in DOMAINS
    }
    | {name: with_choices(name) for name in ("dqn", "m-dqn")}
)
"""Every recipe by its name, ALGORITHM-DOMAIN; those for choices of action have no domain."""


def resolve(run: Transfer) -> Transfer:
    """The run with what its data set decides: the task that scores it, and ReBRAC's weights.

    Raises `ConfigError` if the data set does not tell and the command line neither.
    """
    from steelyard.envs import datasets

    if run.task == "auto":
        entry = d4rl_table.TABLE.get(run.dataset)
        task = entry.task if entry else datasets.load(run.dataset).task
        if task is None:
            raise ConfigError(f"{run.dataset} does not say in which environment it was recorded; name it with --task.")
        run = dataclasses.replace(run, task=task)
    cloning = getattr(run.agent, "cloning", None)
    if isinstance(cloning, ActionDistance) and (cloning.actor is None or cloning.critic is None):
        found = REBRAC.get(run.dataset.rsplit("-v", 1)[0])
        actor = cloning.actor if cloning.actor is not None else found and found[0]
        critic = cloning.critic if cloning.critic is not None else found and found[1]
        if actor is None or critic is None:
            raise ConfigError(
                f"no weights were published for ReBRAC on {run.dataset}; give --agent.cloning.actor and --agent.cloning.critic."
            )
        cloning = dataclasses.replace(cloning, actor=actor, critic=critic)
        run = dataclasses.replace(run, agent=dataclasses.replace(run.agent, cloning=cloning))
    return run
