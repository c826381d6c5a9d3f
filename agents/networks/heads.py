"""What network outputs mean: policies over actions in [-1, 1], and scalar or categorical values that nothing else needs to tell apart."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Gaussian:
    """Tanh-squashed Gaussian policy with a state-dependent deviation."""

    low: float = -20.0
    """Smallest log standard deviation."""
    high: float = 2.0
    """Largest log standard deviation."""
    bound: Literal["clamp", "tanh"] = "clamp"
    """How the network's output is kept in [low, high]: cut off, or squashed by low + (high - low) (1 + tanh x) / 2."""

    def log_std(self, raw: Tensor) -> Tensor:
        """Bounded log standard deviation of the shape of `raw`."""
        if self.bound == "clamp":
            return raw.clamp(self.low, self.high)
        return self.low + 0.5 * (self.high - self.low) * (1 + raw.tanh())


class GaussianPolicy(nn.Module):
    """a = tanh(mean + std noise), with log pi(a|s) from the change of variables (Haarnoja et al. 2018, appendix C).

    Args:
        body: Network from observations to (mean, raw log standard deviation), each [batch, action_size].
        config: Bounds of the deviation.
    """

    def __init__(self, body: nn.Module, config: Gaussian):
        super().__init__()
        self.body, self.config = body, config

    def forward(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [batch, action_size] for standard normal `noise` of that shape, and their log densities [batch]."""
        mean, raw = self.body(obs)
        log_std = self.config.log_std(raw)
        x = mean + log_std.exp() * noise
        density = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        jacobian = 2 * (math.log(2) - x - F.softplus(-2 * x))  # log(1 - tanh(x)^2), stable for large |x|
        return x.tanh(), (density - jacobian).sum(-1)

    def sample(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Exploratory actions [batch, action_size] for standard normal noise; zero noise gives the mode."""
        return self(obs, noise)[0]

    def mode(self, obs: Tensor) -> Tensor:
        """Deterministic actions tanh(mean) [batch, action_size]."""
        return self.body(obs)[0].tanh()


class DeterministicPolicy(nn.Module):
    """a = tanh(f(s)).

    Args:
        body: Network from observations to one tensor [batch, action_size].
        exploration_noise: Standard deviation of the Gaussian noise on exploratory actions.
    """

    def __init__(self, body: nn.Module, exploration_noise: float):
        super().__init__()
        self.body, self.exploration_noise = body, exploration_noise

    def forward(self, obs: Tensor) -> Tensor:
        """Actions [batch, action_size]."""
        return self.body(obs)[0].tanh()

    mode = forward

    def sample(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Exploratory actions [batch, action_size], kept in [-1, 1]."""
        return (self(obs) + self.exploration_noise * noise).clamp(-1, 1)


@dataclass(frozen=True)
class Scalar:
    """The critic's output is the value."""

    def build(self) -> "ScalarValue":
        """The module with the operations on outputs [..., 1]."""
        return ScalarValue()


class ScalarValue(nn.Module):
    """Operations on scalar outputs [..., batch, 1]."""

    size = 1

    def value(self, output: Tensor) -> Tensor:
        """Q [..., batch] of outputs [..., batch, 1]."""
        return output.squeeze(-1)

    def backup(self, output: Tensor, reward: Tensor, discount: Tensor, bonus: Tensor) -> Tensor:
        """r + discount (Q' - bonus) as an output [batch, 1]; `bonus` [batch] is the entropy term alpha log pi, or zero."""
        return (reward + discount * (output.squeeze(-1) - bonus)).unsqueeze(-1)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """(Q - y)^2 / 2 per sample [..., batch]."""
        return 0.5 * (output - target).square().squeeze(-1)


@dataclass(frozen=True)
class Categorical:
    """The critic's output is a distribution over evenly spaced values (C51, Bellemare et al. 2017), as in SimbaV2."""

    atoms: int = 101
    """Number of support points."""
    low: float = -5.0
    """Smallest value of the support."""
    high: float = 5.0
    """Largest value of the support; choose it together with the reward scaling's `max_return`."""

    def build(self) -> "CategoricalValue":
        """The module with the operations on logits [..., atoms]."""
        return CategoricalValue(self)


class CategoricalValue(nn.Module):
    """Operations on categorical outputs: logits [..., batch, atoms]; targets are probabilities [batch, atoms]."""

    support: Tensor

    def __init__(self, config: Categorical):
        super().__init__()
        self.config = config
        self.size = config.atoms
        self.register_buffer("support", torch.linspace(config.low, config.high, config.atoms), persistent=False)

    def value(self, output: Tensor) -> Tensor:
        """Q = sum_i p_i z_i [..., batch] of logits [..., batch, atoms]."""
        return (output.softmax(-1) * self.support).sum(-1)

    def backup(self, output: Tensor, reward: Tensor, discount: Tensor, bonus: Tensor) -> Tensor:
        """Project the distribution of r + discount (Z' - bonus), clipped to the support, onto the atoms: probabilities [batch, atoms].

        Each moved atom shares its mass between its two neighbours by distance: y_k = sum_i p_i max(0, 1 - |b_i - k|), b_i its position in
        units of atoms. The sum is dense because a scatter would add in an order that threads decide.
        """
        low, high, last = self.config.low, self.config.high, self.config.atoms - 1
        moved = (reward - discount * bonus).unsqueeze(-1) + discount.unsqueeze(-1) * self.support
        position = (moved.clamp(low, high) - low) * (last / (high - low))
        slot = torch.arange(self.config.atoms, device=output.device)
        share = (1 - (position.unsqueeze(-2) - slot.unsqueeze(-1)).abs()).clamp(min=0)
        return (output.softmax(-1).unsqueeze(-2) * share).sum(-1)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy -sum_i y_i log p_i per sample [..., batch]."""
        return -(target * output.log_softmax(-1)).sum(-1)


ValueHead = Scalar | Categorical


def pessimistic(head: ScalarValue | CategoricalValue, output: Tensor) -> Tensor:
    """Of outputs [critics, batch, size], each sample's whole output from the critic that values it least: [batch, size] (clipped double Q)."""
    lowest = head.value(output).argmin(0)
    return output.gather(0, lowest[None, :, None].expand(1, -1, output.shape[-1])).squeeze(0)
