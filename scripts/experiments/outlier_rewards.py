"""SAC on the pendulum while a few of the rewards that replay sees are outliers."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.control_worlds import Pendulum
from experiments.online_sweep import first_episodes, learn
from experiments.side_by_side import AdamOfEach, SideBySide
from steelyard.agents.agent import Execution
from steelyard.agents.networks import MLP
from steelyard.agents.parts import ClippedSemiGradient, HuberBellman, Objective, Squared
from steelyard.agents.sac import SAC
from steelyard.agents.types import Step

Array = NDArray[np.float64]
EPISODE = 200
"""Steps of an episode of Pendulum-v1."""
CONTAMINATIONS = ("none", "either sign", "negative", "positive")
"""Signs that outliers may have."""


@dataclass(frozen=True)
class OutlierRewards:
    """Settings that all objectives share."""

    steps: int = 8_000
    """Steps of each agent; an update for every one."""
    random_steps: int = 400
    """Of these, random ones at the beginning."""
    chance: float = 0.01
    """Probability that a stored reward is an outlier."""
    size: float = 1_000.0
    """What it is then off by. The task's own rewards lie between -16.3 and 0."""
    width: int = 64
    """Width of the two hidden layers."""
    learning_rate: float = 1e-3
    """Learning rate of everything, h included."""
    batch_size: int = 64
    """Transitions per update."""
    discount: float = 0.99
    """gamma."""
    threshold: float = 1.0
    """Threshold of the robust losses, in units of the task's rewards."""

    def objectives(self) -> dict[str, Objective]:
        """What is compared."""
        network = MLP((self.width, self.width), output_gain=0.0)
        h = AdamOfEach(self.learning_rate, weight_decay=1.0)
        return {
            "squared": Squared(),
            "clipped semi-gradient": ClippedSemiGradient(self.threshold),
            "Huber, corrected": HuberBellman(self.threshold, network=network, optimizer=h),
            "Huber, saddle point": HuberBellman(self.threshold, "saddle-point", network=network, optimizer=h),
        }

    def agent(self, objective: Objective) -> SAC:
        """An agent."""
        network = MLP((self.width, self.width))
        return SAC(
            actor=network,
            critic=network,
            objective=objective,
            optimizer=AdamOfEach(self.learning_rate),
            discount=self.discount,
            batch_size=self.batch_size,
        )

    def returns(self, objective: Objective, seeds: tuple[int, ...], compiled: bool) -> Array:
        """[contaminations, seeds, episodes] true returns of training episodes."""
        own = [
            self.agent(objective).build(Pendulum.spec, num_envs=1, total_updates=1, seed=seed, execution=Execution(compile=False))
            for _ in CONTAMINATIONS
            for seed in seeds
        ]
        generator = torch.Generator().manual_seed(seeds[0])
        steps = learn(
            SideBySide(own, compiled),
            Pendulum(len(own), EPISODE, generator),
            steps=self.steps,
            random_steps=self.random_steps,
            capacity=self.steps,
            batch_size=self.batch_size,
            discount=self.discount,
            generator=generator,
            store=lambda step: self.contaminated(step, generator),
        )
        return first_episodes(steps, len(own), self.steps // EPISODE).reshape(len(CONTAMINATIONS), len(seeds), -1)

    def contaminated(self, step: Step, generator: torch.Generator) -> Tensor:
        """Rewards [contaminations * seeds], some of them off."""
        shape = (len(CONTAMINATIONS), len(step.reward) // len(CONTAMINATIONS))
        hit = torch.rand(shape, generator=generator) < self.chance
        either = (torch.rand(shape[1], generator=generator) < 0.5) * 2.0 - 1
        sign = torch.stack((torch.zeros(shape[1]), either, -torch.ones(shape[1]), torch.ones(shape[1])))
        return step.reward + (self.size * hit * sign).flatten()
