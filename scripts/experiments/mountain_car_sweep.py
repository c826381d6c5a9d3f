"""Returns of the first episodes on Mountain Car for agents that differ in how they count Bellman errors, over step sizes."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.control_worlds import MountainCar
from experiments.online_sweep import first_episodes, learn
from experiments.side_by_side import AdamOfEach, GreedyOfEach, SideBySide
from steelyard.agents.agent import Execution
from steelyard.agents.dqn import DQN
from steelyard.agents.networks import MLP
from steelyard.agents.networks.greedy import EpsilonGreedy
from steelyard.agents.parts import ClippedSemiGradient, HuberBellman

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MountainCarSweep:
    """Settings that all agents share: those of QRC's authors for Mountain Car."""

    episodes: int = 100
    """Episodes of each agent."""
    cutoff: int = 1_000
    """Steps after which an episode is cut."""
    width: int = 32
    """Width of the two hidden layers."""
    gain: float = math.sqrt(2)
    """Gain of the initial weights before a ReLU (He et al. 2015); the output layer starts at zero."""
    capacity: int = 4_000
    """Transitions that replay holds."""
    batch_size: int = 32
    """Transitions per update; there is an update for every step."""
    epsilon: float = 0.1
    """Probability of a random action."""
    discount: float = 0.99
    """gamma."""

    def agent(self, kind: str, step_size: float, target_period: int, threshold: float) -> DQN:
        """An agent by its name."""
        network = MLP((self.width, self.width), gain=self.gain, output_gain=0.0)
        corrected = kind.startswith("QRC")
        bound = threshold if kind == "QRC-Huber" else math.inf
        h = AdamOfEach(step_size, weight_decay=1.0)
        return DQN(
            critic=network,
            optimizer=AdamOfEach(step_size),
            batch_size=self.batch_size,
            discount=self.discount,
            improvement=GreedyOfEach(self.epsilon if corrected else 0.0),
            exploration=EpsilonGreedy(start=self.epsilon, end=self.epsilon, decay_steps=1),
            objective=HuberBellman(bound, network=network, optimizer=h) if corrected else ClippedSemiGradient(threshold),
            target_period=target_period,
        )

    def returns(self, agents: list[DQN], seeds: list[int], compiled: bool) -> Array:
        """[agents, episodes] returns, one configuration and one seed for each agent; all of one kind."""
        own = [
            config.build(MountainCar.spec, num_envs=1, total_updates=1, seed=seed, execution=Execution(compile=False))
            for config, seed in zip(agents, seeds, strict=True)
        ]
        # Corrected agents look at no target network, so it need not move.
        corrected = isinstance(agents[0].objective, HuberBellman)
        together = SideBySide(own, compiled, None if corrected else agents[0].target_period)
        generator = torch.Generator().manual_seed(seeds[0])
        steps = learn(
            together,
            MountainCar(len(own), self.cutoff, generator),
            steps=self.episodes * self.cutoff,
            random_steps=self.batch_size,
            capacity=self.capacity,
            batch_size=self.batch_size,
            discount=self.discount,
            generator=generator,
        )
        return first_episodes(steps, len(own), self.episodes)
