"""Recipes with a learned model: MBPO (Janner et al. 2019), VaGraM (Voelcker et al. 2022) and MAD-TD's fresh rows on SAC (Voelcker et al. 2025)."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from steelyard.agents.networks import MLP
from steelyard.agents.networks.policies import Gaussian
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import Ensemble, Likelihood, SquaredError, ValueGradient
from steelyard.agents.sac import SAC
from steelyard.trainers.config import Run
from steelyard.trainers.imagination import Rollouts
from steelyard.trainers.rollout_samplers import Coin, Ramp
from steelyard.trainers.schedules import FixedRatio

MBPO_DECAY = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)
"""Weight decay of MBPO's authors, layer by layer."""
MBPO_MODEL = Ensemble(objective=Likelihood(learned=True), weight_decay=MBPO_DECAY)


def mbpo(
    task: str,
    steps: int,
    updates: int,
    entropy: float,
    horizon: Ramp = Ramp(),  # noqa: B008
    **changes: object,
) -> Run:
    """MBPO as its authors' code has it: 5 % real rows in each batch, sampled actions, 5,000 transitions of the untrained policy.

    Args:
        task: What to learn.
        steps: Length of the run.
        updates: Updates per step.
        entropy: Target entropy per component of the action.
        horizon: Steps of a rollout.
        changes: Further fields of the run.
    """
    run = Run(
        task,
        SAC(entropy_per_action=entropy, model=MBPO_MODEL),
        f"mbpo-{task.split('-')[0].lower()}",
        env_steps=steps,
        first_actions="policy",
        schedule=FixedRatio(float(updates)),
        imagination=Rollouts(horizon=horizon),
        evaluation_interval=1_000,
        evaluation_episodes=5,
    )
    return dataclasses.replace(run, **changes)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Recipe:
    """VaGraM's settings of one task (the authors' released configurations)."""

    task: str
    """What to learn."""
    steps: int
    """Length of the run."""
    model_rate: float
    """Learning rate of the model."""
    decay: float
    """Weight decay of the model. The authors average the loss over seven members, which we sum: theirs weighs seven times as much."""
    patience: int
    """Epochs without improvement that end a fit."""
    rows: int
    """Rows per step of a fit."""
    rates: tuple[float, float, float]
    """Learning rates of critic, policy and temperature."""
    entropy: float
    """Target entropy per component of the action."""
    delays: tuple[int, int]
    """Updates per update of the policy, and per move of the targets."""
    coin: Ramp
    """Probability of an imagined batch."""
    horizon: Ramp = dataclasses.field(default_factory=Ramp)
    """Steps of a rollout."""
    updates: int = 20
    """Updates per step."""
    hidden: int = 200
    """Width of the model."""
    epochs: int = 200
    """Most epochs of a fit."""


HOPPER = Recipe(
    "Hopper-v5", 125_000, 1e-3, 5e-5, 10, 1024, (3e-4, 3e-5, 3e-4), -1 / 3, (1, 4), Ramp(0, 0.95, 0, 20), Ramp(1, 5, 20, 150)
)
RECIPES = (
    HOPPER,
    Recipe("Walker2d-v5", 500_000, 3e-4, 2e-5, 10, 256, (3e-4, 3e-4, 3e-3), -0.5, (4, 1), Ramp(0, 0.95, 0, 10)),
    Recipe(
        "HalfCheetah-v5",
        400_000,
        1e-3,
        2e-5,
        1,
        256,
        (3e-5, 3e-4, 3e-4),
        -0.5,
        (4, 4),
        Ramp(0, 0.95, 0, 10),
        updates=40,
        epochs=50,
    ),
    Recipe(
        "Ant-v4", 300_000, 3e-4, 2e-5, 10, 256, (3e-4, 3e-4, 3e-3), -3 / 8, (4, 1), Ramp(0, 0.95, 0, 10), Ramp(1, 25, 20, 100)
    ),
    Recipe(
        "Humanoid-v5",
        300_000,
        5e-4,
        3e-6,
        5,
        256,
        (1e-5, 3e-4, 3e-4),
        -2 / 17,
        (16, 8),
        Ramp(0.2, 0.95, 0, 50),
        Ramp(1, 5, 20, 300),
        hidden=400,
    ),
)


def vagram(recipe: Recipe) -> Run:
    """VaGraM: value-gradient model, policy's mode in the world, batches real or imagined as a whole, normalised features in all networks."""
    network = MLP((1024, 1024), unit_features=True, gain=2**0.5, output_gain=1.0)
    critic, policy, temperature = recipe.rates
    agent = SAC(
        actor=network,
        critic=network,
        policy=Gaussian(-5.0, 2.0, "tanh"),
        initial_temperature=0.1,
        entropy_per_action=recipe.entropy,
        policy_delay=recipe.delays[0],
        target_delay=recipe.delays[1],
        optimizer=Adam(critic),
        actor_optimizer=Adam(policy),
        temperature_optimizer=Adam(temperature),
        model=Ensemble(
            hidden=(recipe.hidden,) * 4,
            objective=ValueGradient(),
            optimizer=Adam(recipe.model_rate),
            weight_decay=(recipe.decay,),
            batch_size=recipe.rows,
            holdout_limit=None,
            patience=recipe.patience,
            epochs=recipe.epochs,
        ),
    )
    return Run(
        recipe.task,
        agent,
        f"vagram-{recipe.task.split('-')[0].lower()}",
        env_steps=recipe.steps,
        random_steps=10_000,
        first_actions="policy",
        acting="mode",
        schedule=FixedRatio(float(recipe.updates)),
        imagination=Rollouts(
            horizon=recipe.horizon, mixing=Coin(recipe.coin), retained_epochs=5 if recipe.task.startswith("Humanoid") else 1
        ),
        evaluation_interval=1_000,
        evaluation_episodes=5,
    )


def with_model(run: Run, name: str, **changes: object) -> Run:
    """The same run with another model, under another name."""
    agent = run.agent
    assert isinstance(agent, SAC)
    assert isinstance(agent.model, Ensemble)
    model = dataclasses.replace(agent.model, **changes)  # pyright: ignore[reportArgumentType]
    return dataclasses.replace(run, agent=dataclasses.replace(agent, model=model), preset=name)


VAGRAM_HOPPER = vagram(HOPPER)
VAGRAM_DISTRACTED = dataclasses.replace(
    vagram(dataclasses.replace(HOPPER, steps=500_000, coin=Ramp(0, 0.95, 0, 50), horizon=Ramp())),
    preset="vagram-hopper-distractors",
    distractors=15,
)
"""The authors' schedules for the Hopper with distractors, 5 to 15 of them."""
SMALL = (64, 64)
WIDE = Likelihood(high=5.0)

PENDULUM = Run(
    "Pendulum-v1",
    SAC(
        actor=MLP((128, 128)),
        critic=MLP((128, 128), layer_norm=True),
        batch_size=128,
        optimizer=Adam(1e-3),
        model=Ensemble(
            members=3, elites=2, hidden=(32, 32), objective=ValueGradient(warmup_fits=8), epochs=20, holdout_limit=1_000
        ),
    ),
    "vagram-pendulum",
    env_steps=10_000,
    random_steps=2_000,
    schedule=FixedRatio(10.0),
    imagination=Rollouts(rollouts=10_000, batch=2_000),
    evaluation_interval=1_000,
    evaluation_episodes=5,
    threads=1,
)
"""MBPO with VaGraM's model, small enough for minutes of one core."""

MODELS: Mapping[str, Run] = {
    run.preset: run
    for run in (
        mbpo("Hopper-v5", 125_000, 20, -1 / 3, Ramp(1, 15, 20, 150)),
        mbpo("Walker2d-v5", 300_000, 20, -0.5),
        mbpo("HalfCheetah-v5", 400_000, 40, -0.5),
        mbpo("Ant-v4", 300_000, 20, -0.5, Ramp(1, 25, 20, 100), imagination=Rollouts(horizon=Ramp(1, 25, 20, 100), batch=10_000)),
        with_model(
            mbpo(
                "Humanoid-v5",
                300_000,
                20,
                -2 / 17,
                imagination=Rollouts(fit_interval=1_000, horizon=Ramp(1, 25, 20, 300), capacity=2_500_000),
            ),
            "mbpo-humanoid",
            hidden=(400,) * 4,
        ),
        mbpo(
            "InvertedPendulum-v5",
            20_000,
            10,
            -0.05,
            imagination=Rollouts(epoch=250, horizon=Ramp(1, 1, 1, 15)),
            random_steps=500,
        ),
        *(vagram(recipe) for recipe in RECIPES),
        VAGRAM_DISTRACTED,
        with_model(VAGRAM_HOPPER, "vagram-hopper-small", hidden=SMALL),
        with_model(VAGRAM_HOPPER, "likelihood-hopper-small", hidden=SMALL, objective=Likelihood()),
        with_model(VAGRAM_HOPPER, "wide-likelihood-hopper-small", hidden=SMALL, objective=WIDE),
        PENDULUM,
        Run(
            "HalfCheetah-v5",
            SAC(
                critic=MLP((512, 512), layer_norm=True),
                actor=MLP((512, 512)),
                batch_size=512,
                target_rate=0.01,
                entropy_per_action=-0.5,
                model=Ensemble(objective=SquaredError(), fresh_share=0.05),
            ),
            "mad-td",
            schedule=FixedRatio(8.0),
            imagination=Rollouts(rollouts=0),
        ),
    )
}
"""Runs with a learned model. The published ones cut contact forces from observations: Ant-v4 has none to begin with, Humanoid-v5 keeps its own."""
