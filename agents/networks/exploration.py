"""Slot `exploration`: what becomes of the standard normal noise of each world before the policy acts with it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steelyard.agents.errors import SlotError
from steelyard.agents.networks.dropout import WORD, scrambled
from steelyard.agents.types import Step


@dataclass(frozen=True)
class SameNoise:
    """The policy's own noise, fresh at every step and alike in all worlds."""

    def build(self, num_envs: int, action_size: int) -> "UnchangedNoise":
        """A module that changes nothing and holds nothing."""
        del num_envs, action_size
        return UnchangedNoise()


class UnchangedNoise(nn.Module):
    """The module that `SameNoise` describes."""

    def forward(self, noise: Tensor) -> Tensor:
        return noise

    def observe(self, step: Step) -> None:
        """Nothing to learn."""


@dataclass(frozen=True)
class NoiseRange:
    """The policy's noise times a factor of each world's own, drawn from U(low, high) at each start of an episode (FastTD3, arXiv 2505.22642).

    With TD3 and an `exploration_noise` of 1 the factor is the standard deviation.
    """

    low: float = 0.001
    """Smallest factor."""
    high: float = 0.4
    """Largest factor."""

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise SlotError(
                f"NoiseRange goes from {self.low} to {self.high}; give two numbers that are not negative, the lower one first."
            )

    def build(self, num_envs: int, action_size: int) -> "RangedNoise":
        """The module for `num_envs` worlds."""
        del action_size
        return RangedNoise(self, num_envs)


class RangedNoise(nn.Module):
    """The module that `NoiseRange` describes. A factor is a hash of world and episode, so no generator is read where it changes."""

    seed: Tensor
    episode: Tensor

    def __init__(self, config: NoiseRange, num_envs: int):
        super().__init__()
        self.config, self.num_envs = config, num_envs
        self.register_buffer("seed", torch.randint(WORD, ()))
        self.register_buffer("episode", torch.zeros(num_envs, dtype=torch.int64))

    def factor(self) -> Tensor:
        """[num_envs, 1]: the factor of each world in its present episode."""
        world = torch.arange(self.num_envs, device=self.episode.device)
        share = uniform(scrambled(world) ^ self.episode, self.seed)
        return (self.config.low + (self.config.high - self.config.low) * share).unsqueeze(-1)

    def forward(self, noise: Tensor) -> Tensor:
        require_worlds(noise, self.num_envs)
        return self.factor()[: noise.shape[0]] * noise

    def observe(self, step: Step) -> None:
        """Count the episodes that ended."""
        self.episode.add_((step.terminated | step.truncated).to(self.episode.device))


@dataclass(frozen=True)
class HeldNoise:
    """The policy's noise, held for k steps of all worlds, P(k) proportional to k^-exponent up to `longest` (FlashSAC, arXiv 2604.04539)."""

    exponent: float = 2.0
    """How rare long holds are (2: of holds up to 16, 63 % last one step)."""
    longest: int = 16
    """Longest hold."""

    def __post_init__(self) -> None:
        if self.longest < 1:
            raise SlotError(f"longest of HeldNoise is {self.longest}; give one step or more.")

    def build(self, num_envs: int, action_size: int) -> "RepeatedNoise":
        """The module for `num_envs` worlds."""
        return RepeatedNoise(self, num_envs, action_size)


class RepeatedNoise(nn.Module):
    """The module that `HeldNoise` describes; all worlds change their noise together."""

    seed: Tensor
    held: Tensor
    left: Tensor
    holds: Tensor
    cumulative: Tensor

    def __init__(self, config: HeldNoise, num_envs: int, action_size: int):
        super().__init__()
        self.num_envs = num_envs
        self.register_buffer("seed", torch.randint(WORD, ()))
        self.register_buffer("held", torch.zeros(num_envs, action_size))
        self.register_buffer("left", torch.zeros((), dtype=torch.int64))
        self.register_buffer("holds", torch.zeros((), dtype=torch.int64))
        share = torch.arange(1, config.longest + 1).double() ** -config.exponent
        self.register_buffer("cumulative", (share.cumsum(0) / share.sum())[:-1].float(), persistent=False)

    def forward(self, noise: Tensor) -> Tensor:
        """The noise [num_envs, action_size] to act with: `noise` where a hold begins, else what is held."""
        require_worlds(noise, self.num_envs)
        begins = self.left == 0
        if noise.shape[0] < self.num_envs:  # a film or a recording of the policy with fewer worlds; what is held is for training
            return noise
        length = 1 + (uniform(self.holds, self.seed) > self.cumulative).sum()
        self.held.copy_(torch.where(begins, noise, self.held))
        self.holds.add_(begins)
        self.left.copy_(torch.where(begins, length, self.left) - 1)
        return self.held.clone()

    def observe(self, step: Step) -> None:
        """Holds do not ask for ends of episodes."""


def uniform(number: Tensor, seed: Tensor) -> Tensor:
    """A hash of int64 `number` and `seed` as float32 numbers in [0, 1)."""
    return (scrambled(scrambled(number & WORD) ^ seed) >> 8).float() / 2**24


def require_worlds(noise: Tensor, num_envs: int) -> None:
    """Raises `SlotError` for noise of more worlds than the agent was built for."""
    if noise.shape[0] > num_envs:
        raise SlotError(
            f"exploration was built for {num_envs} worlds and {noise.shape[0]} act; build the agent with num_envs={noise.shape[0]}."
        )


Exploration = SameNoise | NoiseRange | HeldNoise
