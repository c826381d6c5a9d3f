"""What all actor-critic agents share: their slots, their networks, and the critic's regression."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from steelyard.agents.agent import Agent, Execution
from steelyard.agents.networks import MLP, Network
from steelyard.agents.networks.critic import Critic
from steelyard.agents.networks.heads import DeterministicPolicy, GaussianPolicy, Scalar, ValueHead, pessimistic
from steelyard.agents.networks.normalizers import ObservationNormalizer, RawObservations, RewardScaler, UnscaledRewards
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import (
    Balance,
    Fixed,
    Model,
    NoIntervention,
    NoModel,
    Objective,
    Plasticity,
    Regression,
    Squared,
    Uniform,
    Weighting,
)
from steelyard.agents.types import Batch, Metrics, Spec, Step


@dataclass(frozen=True)
class ActorCritic:
    """Hyperparameters and slots that every actor-critic agent has."""

    actor: Network = field(default_factory=MLP)
    """Network of the policy."""
    critic: Network = field(default_factory=MLP)
    """Network of the action value."""
    critics: int = 2
    """Number of critics; targets and policy take the smallest of them (clipped double Q). One turns that off."""
    head: ValueHead = field(default_factory=Scalar)
    """What the critic's output means."""
    observations: ObservationNormalizer = field(default_factory=RawObservations)
    """Normalisation of observations."""
    rewards: RewardScaler = field(default_factory=UnscaledRewards)
    """Scaling of rewards."""
    objective: Objective = field(default_factory=Squared)
    """How a Bellman error becomes a loss."""
    weighting: Weighting = field(default_factory=Uniform)
    """How much each sample counts in the critic's regression."""
    balance: Balance = field(default_factory=Fixed)
    """Improvement against closeness to the data."""
    model: Model = field(default_factory=NoModel)
    """Imagined data."""
    plasticity: Plasticity = field(default_factory=NoIntervention)
    """Interventions that keep networks trainable."""
    optimizer: Adam = field(default_factory=Adam)
    """Optimiser of every loss, each with a state of its own."""
    discount: float | None = 0.99
    """gamma; None chooses clip(1 - 5 / horizon, 0.95, 0.995) from the task's horizon in decisions (SimbaV2)."""
    n_step: int = 1
    """Rewards summed before bootstrapping."""
    batch_size: int = 256
    """Transitions per update."""
    target_rate: float = 0.005
    """tau: how far the target networks move per update."""

    def gamma(self, spec: Spec) -> float:
        """The discount for a task."""
        if self.discount is not None:
            return self.discount
        return 0.99 if spec.horizon is None else min(max(1 - 5 / spec.horizon, 0.95), 0.995)


class ActorCriticAgent(Agent):
    """An agent with a critic, a policy and the slots of `ActorCritic`."""

    slots: ClassVar[tuple[str, ...]] = ("objective", "weighting", "balance", "model", "plasticity")
    actor: GaussianPolicy | DeterministicPolicy
    target_critic: nn.Module

    def __init__(self, config: ActorCritic, spec: Spec, num_envs: int, seed: int, device: torch.device, execution: Execution):
        super().__init__(spec, seed, device, execution)
        self.config = config
        self.gamma = config.gamma(spec)
        self.normalizer = config.observations.build(spec.obs_size)
        self.reward_scale = config.rewards.build(num_envs, self.gamma)
        self.head = config.head.build()
        self.objective = config.objective.build(spec, config.critics)
        self.weighting = config.weighting.build(spec, config.critics)
        self.balance = config.balance.build(spec)
        self.model = config.model.build(spec)
        self.plasticity = config.plasticity.build(spec)
        self.critic = self.build_critic()
        self.target_critic = self.build_critic()

    def build_critic(self) -> Critic:
        """A critic with all its members."""
        inputs = self.spec.obs_size + self.spec.action_size
        return Critic(self.config.critic.build(inputs, (self.head.size,), self.config.critics))

    def build_actor_body(self, outputs: tuple[int, ...]) -> nn.Module:
        """The policy's network, from what the balance shows it of an observation."""
        return self.config.actor.build(self.spec.obs_size + self.balance.inputs, outputs)

    def prepare(self, batch: Batch) -> Batch:
        """Normalised observations and scaled rewards, by the statistics of this moment."""
        batch = self.model.mix(batch)
        return batch._replace(
            obs=self.normalizer(batch.obs), next_obs=self.normalizer(batch.next_obs), reward=self.reward_scale(batch.reward)
        )

    def backup(self, critic: nn.Module, batch: Batch, noise: Tensor) -> Tensor:
        """Bellman target [batch, size] computed with `critic`."""
        raise NotImplementedError

    def regression(self, batch: Batch, noise: Tensor) -> Regression:
        """The critic's regression problem for a normalised batch."""
        output = self.critic(batch.obs, batch.action)
        return Regression(
            head=self.head,
            obs=batch.obs,
            action=batch.action,
            output=output,
            critic=self.critic,
            target_critic=self.target_critic,
            backup=partial(self.backup, batch=batch, noise=noise),
        )

    def critic_loss(self, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
        """Sum over critics of the batch mean of weight * objective(output, target)."""
        regression = self.regression(batch, noise)
        loss = self.weighting(batch.weight, regression) * self.objective(regression)
        return loss.mean(-1).sum(), {"value": self.head.value(regression.output).mean()}

    def lowest_value(self, obs: Tensor, action: Tensor) -> Tensor:
        """min_i Q_i(s, a) [batch] of the current critics."""
        return self.head.value(self.critic(obs, action)).amin(0)

    def pessimistic(self, output: Tensor) -> Tensor:
        """[critics, batch, size] -> [batch, size]: each sample's output of the critic that values it least."""
        return pessimistic(self.head, output)

    def intervene(self) -> None:
        """The plasticity slot's turn."""
        self.plasticity.intervene(cast(Any, self), self.update_count)  # a linked folder makes this class two for a type checker

    @torch.no_grad()
    def observe(self, step: Step) -> None:
        """Learn running statistics from one step of every world.

        Observation statistics see what the agent will act on next: the observation after a reset, never a terminal one.
        """
        done = step.terminated | step.truncated
        acted_on = ~done | (step.obs != step.next_obs).any(-1)
        self.normalizer.observe(step.obs, acted_on)
        self.reward_scale.observe(step.reward, done, step.valid)

    def choose(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Actions for raw observations and standard normal noise; zero noise gives the deterministic action."""
        with torch.no_grad():
            return self.actor.sample(self.balance.condition(self.normalizer(obs)), noise)

    def policy(self) -> "Policy":
        """The deterministic policy with its normaliser, as a module to export."""
        return Policy(self)

    def explorer(self) -> "Explorer":
        """The exploratory policy with its normaliser, as a module for other processes."""
        return Explorer(self)


class Policy(nn.Module):
    """Raw observations [rows, obs_size] to deterministic actions [rows, action_size]."""

    def __init__(self, agent: ActorCriticAgent):
        super().__init__()
        self.normalizer, self.balance, self.actor = agent.normalizer, agent.balance, agent.actor

    def forward(self, obs: Tensor) -> Tensor:
        return self.actor.mode(self.balance.condition(self.normalizer(obs)))


class Explorer(nn.Module):
    """Raw observations [rows, obs_size] to exploratory actions [rows, action_size]; the noise comes from `generator`."""

    def __init__(self, agent: ActorCriticAgent):
        super().__init__()
        self.normalizer, self.balance, self.actor = agent.normalizer, agent.balance, agent.actor
        self.action_size = agent.spec.action_size

    def forward(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(obs.shape[0], self.action_size, generator=generator)
        return self.actor.sample(self.balance.condition(self.normalizer(obs)), noise)
