"""Deep Q-network (Mnih et al. 2015), with a double (van Hasselt et al. 2016) and a dueling (Wang et al. 2016) form.

With `Munchausen` in its `improvement` slot it is M-DQN (Vieillard et al. 2020), with a categorical head C51 (Bellemare et al. 2017).
"""

from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from steelyard.agents.acting import Setting
from steelyard.agents.networks.critic import ChoiceCritic, build_critic
from steelyard.agents.networks.greedy import EpsilonGreedy, GreedyPolicy
from steelyard.agents.networks.heads import pessimistic
from steelyard.agents.parts import Fixed
from steelyard.agents.parts.improvement import Greedy, Improvement
from steelyard.agents.types import Batch, Step
from steelyard.agents.value_learner import ValueLearner, ValueLearningAgent


@dataclass(frozen=True)
class DQN(ValueLearner):
    """Deep Q-network."""

    critics: int = 1
    """Number of critics; targets take the smallest of them."""
    double: bool = False
    """Whether the critic that is trained picks the action that the target network values."""
    dueling: bool = False
    """Whether the network ends in a state's value and advantages of its actions."""
    improvement: Improvement = field(default_factory=Greedy)
    """What the policy makes of action values: the best, or a softmax with its own log probability as a reward (M-DQN)."""
    exploration: EpsilonGreedy = field(default_factory=EpsilonGreedy)
    """How actions are explored."""
    target_period: int = 250
    """Updates between two moves of the target network."""
    target_rate: float = 1.0
    """tau: how far the target network moves then."""

    # A greedy policy has nothing to balance.
    balance: ClassVar[Fixed] = Fixed()  # pyright: ignore[reportIncompatibleVariableOverride]

    def make(self, setting: Setting) -> "DeepQ":
        """The agent that this configuration describes."""
        return DeepQ(self, setting)


class DeepQ(ValueLearningAgent):
    """The agent that `DQN` describes."""

    losses = ("critic",)
    slots: ClassVar[tuple[str, ...]] = (*ValueLearningAgent.slots, "improvement")
    slow: ClassVar[dict[str, str]] = {"target_critic": "critic"}
    choices: ClassVar[bool] = True
    critic: ChoiceCritic  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, config: DQN, setting: Setting):
        self.config = config
        super().__init__(config, setting)
        self.improvement = config.improvement.build()
        self.exploration = config.exploration.build()
        self.target_period = config.target_period
        self.count_draws(0)

    def build_critic(self) -> ChoiceCritic:
        """A critic with all its members."""
        config = self.config
        built = build_critic(config.critic, self.seen, self.head.size, config.critics, dueling=config.dueling)
        return cast(ChoiceCritic, built)

    def backup(self, critic: nn.Module, batch: Batch, noise: Tensor) -> Tensor:
        """r + bonus(a|s) + gamma^n (1 - terminated) sum_a' pi(a'|s') (Q(s', a') - bonus(a'|s')).

        Greedy: r + gamma^n (1 - terminated) max_a' Q(s', a'). Munchausen (its equation 3):
        r + alpha clip(tau log pi(a|s), l_0, 0) + gamma^n (1 - terminated) sum_a' pi(a'|s') (Q(s', a') - tau log pi(a'|s')), pi = softmax(Q / tau).
        The policy is a constant: no gradient passes through it.
        """
        network = cast(ChoiceCritic, critic)
        outputs = network.every(batch.next_obs)
        there = self.values(self.critic, batch.next_obs) if self.config.double else self.head.value(outputs).mean(0)
        here, there = self.values(network, batch.obs).detach(), there.detach()
        output = pessimistic(self.head, self.head.mixture(outputs, self.improvement.policy(there)))
        reward = batch.reward + self.improvement.reward_bonus(here, batch.action)
        return self.head.backup(output, reward, batch.discount, self.improvement.entropy_bonus(there))

    def values(self, critic: ChoiceCritic, obs: Tensor) -> Tensor:
        """The mean over critics of every action's value [batch, choices]."""
        return self.head.value(critic.every(obs)).mean(0)

    @property
    def actor(self) -> GreedyPolicy:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The policy, which has no parameters but the critic's."""
        return GreedyPolicy(self.critic, self.head, self.exploration)

    def choose(self, obs: Tensor, noise: Tensor) -> Tensor:
        """One-hot actions [rows, choices] for raw observations and standard normal noise; zero noise gives the best ones."""
        with torch.no_grad():
            return self.exploration(self.values(self.critic, self.perceive(obs)), noise)

    @torch.no_grad()
    def observe(self, step: Step) -> None:
        """Learn running statistics from one step of every world, and explore less."""
        super().observe(step)
        self.exploration.observe(step.valid.sum())
