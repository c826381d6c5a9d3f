"""Recipes for thousands of worlds on one device: few large updates after each step of all of them.

Sources: FastTD3 (Seo et al. 2025, arXiv 2505.22642, and its repository), FastSAC (Seo et al. 2025, arXiv 2512.01996, and the configuration that
holosoma documents) and FlashSAC (2026, arXiv 2604.04539, its setting for GPU simulators). What is theirs and what is ours stands at each recipe.

Ours in all of them: rewards are scaled by the spread of returns (`ReturnScale`, after SimbaV2, as FlashSAC does too), with a categorical critic on
[-5, 5]. The other two work with a fixed support that is chosen for each task, and tasks here have returns of one to tens of thousands. The critic
sees what the policy sees, unless `--randomization.shown` gives it the factors of its world.
"""

import dataclasses
from collections.abc import Mapping

from steelyard.agents.agent import Execution
from steelyard.agents.networks import MLP, SimbaV2
from steelyard.agents.networks.exploration import HeldNoise, NoiseRange
from steelyard.agents.networks.heads import Categorical
from steelyard.agents.networks.normalizers import ReturnScale, RunningNorm
from steelyard.agents.networks.policies import Gaussian
from steelyard.agents.optimizer import Adam
from steelyard.agents.sac import SAC
from steelyard.agents.td3 import TD3
from steelyard.trainers.config import Run
from steelyard.trainers.presets import SIMBA_V2_SAC
from steelyard.trainers.schedules import PerStep

FAST_TD3 = TD3(
    actor=MLP((512, 256, 128), output_gain=0.01),
    critic=MLP((1024, 512, 256)),
    head=Categorical(),
    observations=RunningNorm(),
    rewards=ReturnScale(),
    policy_value="lowest",
    exploration_noise=1.0,
    exploration=NoiseRange(0.001, 0.4),
    target_noise=0.001,
    optimizer=Adam(3e-4, weight_decay=0.1),
    batch_size=32_768,
    target_rate=0.1,
)
"""FastTD3's defaults: widths, ReLU without normalisation of layers, clipped double Q also for the policy, noise of each world's own, batch, rates,
decoupled weight decay, 101 atoms, normalised observations, discount 0.99, a policy update for every second of the critics.

Different: the support and the scaled rewards (above); initial weights (orthogonal here); the epsilon of the normalisation, which is 0.01 there."""

FAST_SAC = SAC(
    actor=MLP((512, 256, 128), layer_norm=True, activation="silu"),
    critic=MLP((768, 384, 192), layer_norm=True, activation="silu"),
    head=Categorical(),
    observations=RunningNorm(),
    rewards=ReturnScale(),
    policy=Gaussian(low=-5.0, high=0.0, bound="tanh"),
    target_value="own",
    policy_value="mean",
    initial_temperature=0.001,
    entropy_per_action=0.0,
    policy_delay=4,
    optimizer=Adam(3e-4, second_decay=0.95, weight_decay=1e-3),
    discount=0.97,
    batch_size=8_192,
    target_rate=0.125,
)
"""FastSAC as holosoma documents it: widths, LayerNorm and SiLU, each critic's own target and the policy on their mean, bounds of the deviation,
temperature and target entropy, AdamW, batch, discount and rates, 101 atoms.

Different: the support ([-20, 20] there) and the scaled rewards; actions span the actuators' range and not the joints' limits; nothing is augmented
by symmetry."""

FLASH_SAC = SAC(
    actor=SimbaV2(width=128, blocks=2),
    critic=SimbaV2(width=256, blocks=2),
    head=Categorical(),
    observations=RunningNorm(),
    rewards=ReturnScale(),
    policy=Gaussian(low=-10.0, high=2.0, bound="tanh"),
    exploration=HeldNoise(),
    initial_temperature=0.01,
    entropy_per_action=-0.478,
    policy_delay=2,
    optimizer=Adam(3e-4, 1.5e-4, decay="cosine"),
    n_step=3,
    batch_size=2_048,
    target_rate=0.01,
)
"""FlashSAC's setting for GPU simulators: widths and blocks, held noise, temperature, target entropy 0.5 ln(2 pi e 0.15^2) for each action, learning
rates, a policy update for every second of the critics, three steps, batch, rates, support and scaled rewards.

Different, and not little: its blocks have batch normalisation, a plain residual and RMSNorm, ours are SimbaV2's, whose observations are normalised by
running statistics; the critics' losses are added, not averaged; bfloat16 stands for its float16."""

SIMBA_V2 = dataclasses.replace(SIMBA_V2_SAC, n_step=3, batch_size=4_096, target_rate=0.02)
PLAIN = {
    "actor": MLP((256, 256)),
    "critic": MLP((512, 512), layer_norm=True),
    "observations": RunningNorm(),
    "rewards": ReturnScale(),
    "n_step": 3,
    "batch_size": 8_192,
    "target_rate": 0.05,
}
"""What SAC and TD3 share here; settings of this suite."""


def worlds(name: str, agent: SAC | TD3, num_envs: int, updates: float, steps: int) -> Run:
    """A run of `num_envs` worlds with `updates` after each step of all, whose replay holds the last `steps` steps of each."""
    return Run(
        "cheetah-run",
        agent,
        name,
        env_steps=20_000 * num_envs,
        num_envs=num_envs,
        vectorization="warp",
        random_steps=10 * num_envs,
        schedule=PerStep(updates),
        capacity=steps * num_envs,
        evaluation_interval=2_000 * num_envs,
        transfer_episodes=10,
        log_interval=50 * num_envs,
        checkpoint_interval=10_000 * num_envs,
        execution=Execution("auto"),
    )


def few(run: Run, agent: SAC | TD3) -> Run:
    """The same recipe for a CPU: 32 worlds, small networks and batches, an update for every decision of one world, decisions of four steps."""
    agent = dataclasses.replace(
        agent,
        actor=MLP((64, 64)),
        critic=MLP((96, 96), layer_norm=True),
        optimizer=dataclasses.replace(agent.optimizer, learning_rate=1e-3),
        policy_delay=1,
        discount=0.99,
        n_step=3,
        batch_size=128,
        target_rate=0.02,
    )
    return dataclasses.replace(
        run,
        agent=agent,
        preset=f"{run.preset}-small",
        task="cartpole-swingup",
        action_repeat=4,
        env_steps=40_000,
        num_envs=32,
        random_steps=960,
        schedule=PerStep(32.0),
        capacity=100_000,
        evaluation_interval=5_000,
        evaluation_episodes=8,
        transfer_episodes=8,
        log_interval=2_560,
        checkpoint_interval=20_000,
    )


LARGE = (
    worlds("fast-td3", FAST_TD3, num_envs=1_024, updates=2.0, steps=10_240),
    worlds("fast-sac", FAST_SAC, num_envs=4_096, updates=8.0, steps=1_024),
    dataclasses.replace(worlds("flash-sac", FLASH_SAC, num_envs=1_024, updates=2.0, steps=10_240), random_steps=100_000),
    worlds("simba-v2", SIMBA_V2, num_envs=1_024, updates=4.0, steps=2_048),
    worlds("sac", SAC(**PLAIN, entropy_per_action=-0.5), num_envs=4_096, updates=8.0, steps=1_024),
    worlds("td3", TD3(**PLAIN, exploration_noise=1.0, exploration=NoiseRange()), num_envs=4_096, updates=8.0, steps=1_024),
)
SMALL = (few(LARGE[0], FAST_TD3), few(LARGE[1], dataclasses.replace(FAST_SAC, initial_temperature=0.1)))
GPU: Mapping[str, Run] = {run.preset: run for run in (*LARGE, *SMALL)}
"""Thousands of worlds, and, as `*-small`, a few of them on a CPU."""
