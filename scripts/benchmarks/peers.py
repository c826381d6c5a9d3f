"""Measurements of Stable-Baselines3, SBX, d3rlpy and mbrl-lib at the same sizes. Imports nothing of the suite, so any interpreter can run it."""

# pyright: reportMissingImports=false
# The peers are an extra, or lie in another environment.

import itertools
import os
import time
from types import SimpleNamespace
from typing import Any

from benchmarks.window import Subject, repeat, serve

ROWS = 100_000
MODEL_ROWS, IMAGINED = 20_000, 10_000
"""Transitions that a model is fitted to, and rollouts made at once."""
MEMBERS, ELITES = 7, 5


def build(
    kind: str,
    threads: int,
    library: str = "d3rlpy",
    algorithm: str = "",
    work: str = "",
    obs_size: int = 17,
    action_size: int = 6,
    batch_size: int = 256,
) -> Subject:
    """`offline`: `algorithm` of d3rlpy. `model`: `work` ("fit" or "imagine") of mbrl-lib.

    Else soft actor-critic of `library` ("sb3" or "sbx"): `updates` on full replay, or `end_to_end`.
    """
    if kind == "offline":
        return offline(algorithm, threads, obs_size, action_size, batch_size)
    if kind == "model":
        return model(work, threads, obs_size, action_size, batch_size)
    subjects = {"updates": updates, "end_to_end": end_to_end}
    return subjects[kind](sac_of(library, threads), obs_size, action_size, batch_size)


def sac_of(library: str, threads: int) -> Any:
    """The class SAC of a library."""
    if library == "sb3":
        from stable_baselines3 import SAC

        return SAC
    import jax
    from sbx import SAC

    if hasattr(os, "sched_setaffinity"):
        # JAX has no option for its number of threads: it counts the cores that it may use as it starts. Then it may use all.
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, sorted(cores)[:threads])
        jax.numpy.zeros(()).block_until_ready()
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), cores)
    return SAC


def updates(sac: Any, obs_size: int, action_size: int, batch_size: int) -> Subject:
    """One `train` call of one gradient step after another, sampling included."""
    import gymnasium
    import numpy as np
    from stable_baselines3.common.logger import Logger

    class Spaces(gymnasium.Env):
        """Only its spaces matter."""

        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (obs_size,), np.float32)
        action_space = gymnasium.spaces.Box(-1, 1, (action_size,), np.float32)

    model = sac("MlpPolicy", Spaces(), buffer_size=ROWS, batch_size=batch_size, device="cpu", seed=0)
    model.set_logger(Logger(None, []))
    buffer, random = model.replay_buffer, np.random.default_rng(0)
    for array in (buffer.observations, buffer.next_observations, buffer.rewards):
        array[:] = random.standard_normal(array.shape)
    buffer.actions[:] = random.uniform(-1, 1, buffer.actions.shape)
    buffer.full = True
    return repeat(lambda: model.train(gradient_steps=1, batch_size=batch_size))


def end_to_end(sac: Any, obs_size: int, action_size: int, batch_size: int) -> Subject:
    """The library's own `learn`: act, step, store, one update per environment step."""
    import gymnasium
    from stable_baselines3.common.callbacks import BaseCallback

    class Stop(BaseCallback):
        """Ends `learn` when the time is over."""

        deadline = 0.0

        def _on_step(self) -> bool:
            return time.perf_counter() < self.deadline

    model = sac(
        "MlpPolicy", gymnasium.make("HalfCheetah-v5"), batch_size=batch_size, train_freq=1, gradient_steps=1, device="cpu", seed=0
    )
    model.learn(300)
    stop = Stop()

    def subject(seconds: float) -> tuple[int, float]:
        before, start = model.num_timesteps, time.perf_counter()
        stop.deadline = start + seconds
        model.learn(1_000_000_000, callback=stop, reset_num_timesteps=False)
        return model.num_timesteps - before, time.perf_counter() - start

    return subject


def offline(algorithm: str, threads: int, obs_size: int, action_size: int, batch_size: int) -> Subject:
    """One `update` of d3rlpy after another, sampling included, with its own default networks (two hidden layers of 256)."""
    import d3rlpy
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    random, ends = np.random.default_rng(0), np.zeros(ROWS, np.float32)
    ends[999::1000] = 1
    data = d3rlpy.dataset.MDPDataset(
        random.standard_normal((ROWS, obs_size)).astype(np.float32),
        random.uniform(-1, 1, (ROWS, action_size)).astype(np.float32),
        random.standard_normal(ROWS).astype(np.float32),
        np.zeros(ROWS, np.float32),
        timeouts=ends,
    )
    algos = d3rlpy.algos
    configs = {"td3-bc": algos.TD3PlusBCConfig, "iql": algos.IQLConfig, "awac": algos.AWACConfig, "cql": algos.CQLConfig}
    agent = configs[algorithm](batch_size=batch_size).create(device=False)
    agent.build_with_dataset(data)
    return repeat(lambda: agent.update(data.sample_transition_batch(batch_size)))


def model(work: str, threads: int, obs_size: int, action_size: int, batch_size: int) -> Subject:
    """Seven Gaussian members of 4 x 200: steps of mbrl-lib's own trainer on bootstraps, or rollouts' steps with its own policy."""
    import mbrl.models
    import numpy as np
    import torch
    from mbrl.types import TransitionBatch
    from mbrl.util.replay_buffer import BootstrapIterator

    torch.set_num_threads(threads)
    random = np.random.default_rng(0)
    obs, noise = random.standard_normal((2, MODEL_ROWS, obs_size)).astype(np.float32)
    action = random.uniform(-1, 1, (MODEL_ROWS, action_size)).astype(np.float32)
    reward, ends = random.standard_normal(MODEL_ROWS).astype(np.float32), np.zeros(MODEL_ROWS, bool)
    data = TransitionBatch(obs, action, obs + 0.1 * noise, reward, ends, ends)
    network = mbrl.models.GaussianMLP(
        obs_size + action_size,
        obs_size + 1,
        "cpu",
        num_layers=4,
        ensemble_size=MEMBERS,
        hid_size=200,
        propagation_method="random_model",
        activation_fn_cfg={"_target_": "torch.nn.SiLU"},
    )
    dynamics = mbrl.models.OneDTransitionRewardModel(network, normalize=True, num_elites=ELITES)
    dynamics.update_normalizer(data)
    dynamics.set_elite(range(ELITES))
    if work == "imagine":
        return imagination(dynamics, obs[:IMAGINED], action_size)
    optimizer = torch.optim.Adam(dynamics.parameters(), 1e-3, weight_decay=1e-5)
    epoch = BootstrapIterator(data, batch_size, MEMBERS, shuffle_each_epoch=True, permute_indices=False, rng=random)
    batches = itertools.chain.from_iterable(itertools.repeat(epoch))
    return repeat(lambda: dynamics.update(next(batches), optimizer), MEMBERS * batch_size)


def imagination(dynamics: Any, obs: Any, action_size: int) -> Subject:
    """One step of all rows: the policy of mbrl-lib's soft actor-critic acts, then its model environment steps."""
    import gymnasium
    import numpy as np
    from mbrl.env.termination_fns import no_termination
    from mbrl.models import ModelEnv
    from mbrl.third_party.pytorch_sac_pranz24.sac import SAC

    class Spaces(gymnasium.Env):
        """Only its spaces matter."""

        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (obs.shape[1],), np.float32)
        action_space = gymnasium.spaces.Box(-1, 1, (action_size,), np.float32)

    options = {"gamma": 0.99, "tau": 0.005, "alpha": 0.2, "policy": "Gaussian", "target_update_interval": 1, "lr": 3e-4}
    options |= {"automatic_entropy_tuning": False, "hidden_size": 256, "device": "cpu"}
    agent = SAC(obs.shape[1], Spaces.action_space, SimpleNamespace(**options))
    worlds = ModelEnv(Spaces(), dynamics, no_termination)
    state = worlds.reset(obs)
    return repeat(lambda: worlds.step(agent.select_action(obs, batched=True), state, sample=True), len(obs))


if __name__ == "__main__":
    serve(build)
