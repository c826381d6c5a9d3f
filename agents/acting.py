"""What all agents share that act: normalisation, a policy, and the balance that conditions it."""

from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from steelyard.agents.agent import Agent, Execution, seeded
from steelyard.agents.errors import SlotError, require
from steelyard.agents.networks import Network
from steelyard.agents.networks.augmentation import Augmentation
from steelyard.agents.networks.encoders import Encoder
from steelyard.agents.networks.normalizers import ObservationNormalizer, RewardScaler
from steelyard.agents.networks.policies import BodyBuilder
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts import Balance
from steelyard.agents.types import Batch, Metrics, Records, Spec, Step

PARTS_SEED = 1_000_000
"""Learned parts draw their initial weights from a stream of their own, so that the agent begins with the same weights with and without them."""


class Setting(NamedTuple):
    """For what, and how, an agent is built."""

    spec: Spec
    """The task's observation and action sizes."""
    num_envs: int
    """Worlds that will be collected from (the return statistics keep one running return per world)."""
    total_updates: int
    """Updates over which learning rates decay: those of the whole run, or of its offline phase."""
    seed: int
    """Seed of initial weights and of the agent's noise."""
    device: torch.device
    """Where everything lives."""
    execution: Execution
    """Precision and compilation."""
    all_updates: int
    """Updates of the whole run, in both phases where there are two."""


class Buildable:
    """What all configurations of agents share."""

    observations: ObservationNormalizer
    augmentation: Augmentation
    encoder: Encoder
    rewards: RewardScaler
    balance: Balance
    optimizer: Adam
    batch_size: int
    n_step: int

    def make(self, setting: Setting) -> "ActingAgent":
        """The agent, before `finish`."""
        raise NotImplementedError

    def build(
        self,
        spec: Spec,
        *,
        num_envs: int,
        total_updates: int,
        seed: int,
        device: str | torch.device = "cpu",
        execution: Execution | None = None,
        all_updates: int | None = None,
    ) -> Any:
        """The agent for a task; the arguments are those of `Setting`, `all_updates` being `total_updates` unless given.

        Its initial weights depend on `seed` alone.
        """
        every = total_updates if all_updates is None else all_updates
        with seeded(seed):
            agent = self.make(Setting(spec, num_envs, total_updates, seed, torch.device(device), execution or Execution(), every))
            agent.finish(total_updates)
        return agent


class ActingAgent(Agent):
    """An agent with running statistics, a balance and a policy that acts."""

    actor: Any
    """The policy, one of `policies.Policy`; an agent that needs a certain one says which."""
    columns: frozenset[str] = frozenset()
    """Columns of replay beyond the usual ones that its losses read: `next_action`, `goal_return`."""
    teacher: ClassVar[str] = "critic"
    """Name of the loss that trains the encoder."""
    choices: ClassVar[bool] = False
    """Whether its actions are choices among a few (`Spec.discrete`), or points in a box."""

    def __init__(self, config: Buildable, setting: Setting, gamma: float):
        super().__init__(setting.spec, setting.seed, setting.device, setting.execution)
        self.require_actions(type(config).__name__)
        self.require_view(type(config).__name__)
        self.recipe, self.setting = config, setting
        self.gamma = gamma
        self.normalizer = config.observations.build(setting.spec.obs_size)
        if setting.spec.frames and any(True for _ in self.normalizer.buffers()):
            raise SlotError(
                "pictures are scaled by their encoder, and statistics of each pixel are no use; use the observations RawObservations."
            )
        self.augmentation = config.augmentation.build(setting.spec)
        self.encoder = config.encoder.build(setting.spec)
        self.augmentation_draws = slice(0)
        learned = any(True for _ in self.encoder.parameters())
        if setting.spec.frames and not learned:
            raise SlotError(
                "this task shows pictures, and no network behind the encoder reads bytes; use the encoder PictureEncoder."
            )
        self.seen: Spec = self.encoder.spec
        """The task as the networks behind the encoder see it."""
        if learned:
            self.losses = ("encoder", *self.losses)
        self.reward_scale = config.rewards.build(setting.num_envs, gamma)
        with seeded(setting.seed + PARTS_SEED):
            self.balance = config.balance.build(self.seen)

    def require_actions(self, name: str) -> None:
        """Raises `SlotError` if the task's actions are not of the agent's kind."""
        if self.spec.discrete and not self.choices:
            raise SlotError(
                f"{name} needs actions in a box, and this task has {self.spec.action_size} choices; use a DQN preset."
            )
        if self.choices and not self.spec.discrete:
            raise SlotError(f"{name} needs a few choices of action, and this task's actions are real numbers; use SAC or TD3.")

    def require_view(self, name: str) -> None:
        """Raises `SlotError` if the policy is to see a part of the observation that makes no sense, or cannot see less than critics do."""
        size = self.spec.policy_obs_size
        if size is None:
            return
        require(
            0 < size <= self.spec.obs_size and self.spec.picture is None,
            f"policies are to see {size} of {self.spec.obs_size} numbers of an observation; give one or more of them, and no pictures.",
        )
        require(
            not self.choices,
            f"{name} acts by its critics, which see all of an observation, and this task hides part of it from policies; use SAC or TD3.",
        )

    def twin(self, seed: int) -> Any:
        """Another agent of the same configuration, complete, with fresh weights and optimisers that depend on `seed` alone."""
        return self.recipe.build(
            self.spec,
            num_envs=self.setting.num_envs,
            total_updates=self.total_updates,
            seed=seed,
            device=self.device,
            execution=replace(self.execution, compile=False),
        )

    def body_builder(self, network: Network) -> BodyBuilder:
        """Builds a policy's network, from what the balance shows it of an observation."""
        return partial(network.build, self.seen.visible + self.balance.inputs)

    def count_draws(self, own: int) -> None:
        """Sets how much noise an update needs: first the agent's `own` draws, then the augmentation's, last the balance's."""
        self.augmentation_draws = slice(own, own + self.augmentation.draws)
        self.draws = own + self.augmentation.draws + self.balance.draws

    def prepare(self, batch: Batch, noise: Tensor) -> Batch:
        """Normalised observations and scaled rewards, by the statistics of this moment.

        An encoder's pictures are augmented; `next_obs` are features already, `obs` not before the encoder's loss hands them on.
        """
        batch = self.augmentation(batch, noise[self.augmentation_draws])
        return batch._replace(
            obs=self.normalizer(batch.obs), next_obs=self.perceive(batch.next_obs), reward=self.reward_scale(batch.reward)
        )

    def perceived(self, batch: Batch) -> Batch:
        """A prepared batch with features in place of pictures: what all losses but the encoder's see."""
        return batch._replace(obs=self.encoder(batch.obs))

    def encoder_loss(self, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
        """The teacher's loss as a function of the encoder, before anything else moves.

        Where the teacher follows at once (DrQ-v2, DQN), both together are one gradient step of that loss. Only features of `obs` have a
        gradient: those of `next_obs` come from the same encoder, as constants (DrQ-v2 has no slow copy of it).
        """
        batch = self.perceived(batch)
        return getattr(self, f"{self.teacher}_loss")(batch, noise, seen)[0], {"features": batch.obs}

    def hand_on(self, name: str, batch: Batch, reported: Metrics) -> tuple[Batch, Metrics]:
        """The features of the encoder's loss are what all later losses see: pictures pass through it once."""
        if name != "encoder":
            return batch, reported
        return batch._replace(obs=reported["features"]), {}

    def perceive(self, obs: Tensor) -> Tensor:
        """What networks see of raw observations: normalised, or the features of pictures."""
        return self.encoder(self.normalizer(obs))

    def view(self, obs: Tensor) -> Tensor:
        """What the actor sees when it acts on normalised observations: its part of them and the coefficient that the balance chooses."""
        return self.balance.condition(obs, self.balance.choose(obs))

    @torch.no_grad()
    def fit(self, records: Records) -> None:
        """Set statistics from a whole data set, before learning from it."""
        self.normalizer.fit(records)
        self.reward_scale.fit(records)

    @torch.no_grad()
    def observe(self, step: Step) -> None:
        """Learn running statistics from one step of every world.

        Observation statistics see what the agent will act on next: the observation after a reset, never a terminal one. The step may lie on
        another device than the agent.
        """
        step = step._replace(
            **{name: value.to(self.device) for name, value in step._asdict().items() if isinstance(value, Tensor)}
        )
        done = step.terminated | step.truncated
        acted_on = ~done | (step.obs != step.next_obs).any(-1)
        self.normalizer.observe(step.obs, acted_on)
        self.reward_scale.observe(step.reward, done, step.valid)

    def choose(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Actions for raw observations, or the policy's part of them, and standard normal noise; zero noise gives the deterministic action."""
        with torch.no_grad():
            return self.actor.sample(self.view(self.perceive(self.spec.completed(obs))), noise)

    def policy(self) -> "DeterministicActor":
        """The deterministic policy with its normaliser, as a module to export."""
        return DeterministicActor(self)

    def explorer(self) -> "Explorer":
        """The exploratory policy with its normaliser, as a module for other processes."""
        return Explorer(self)


class Front(nn.Module):
    """Normaliser, encoder and balance in front of the policy: what an exported policy is made of."""

    def __init__(self, agent: ActingAgent):
        super().__init__()
        self.normalizer, self.encoder, self.balance, self.actor = agent.normalizer, agent.encoder, agent.balance, agent.actor
        self.spec = agent.spec

    def view(self, obs: Tensor) -> Tensor:
        """What the actor sees of raw observations, or of the policy's part of them."""
        perceived = self.encoder(self.normalizer(self.spec.completed(obs)))
        return self.balance.condition(perceived, self.balance.choose(perceived))


class DeterministicActor(Front):
    """Raw observations [rows, obs_size] to deterministic actions [rows, action_size]."""

    def forward(self, obs: Tensor) -> Tensor:
        return self.actor.mode(self.view(obs))


class Explorer(Front):
    """Raw observations [rows, obs_size] to exploratory actions [rows, action_size]; the noise comes from `generator`."""

    def forward(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(obs.shape[0], self.spec.action_size, generator=generator)
        return self.actor.sample(self.view(obs), noise)
