"""Adam as plain tensor operations, so that it is part of the one compiled graph of an update."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from steelyard.agents.errors import require


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015) with a learning rate that moves to its final value over the whole run and then stays there."""

    learning_rate: float = 3e-4
    """Learning rate of the first update."""
    final_learning_rate: float | None = None
    """Learning rate of the last update; None keeps it constant."""
    first_decay: float = 0.9
    """beta_1, decay of the gradient's running mean."""
    second_decay: float = 0.999
    """beta_2, decay of the squared gradient's running mean."""
    epsilon: float = 1e-8
    """Added to the denominator."""
    decay: Literal["linear", "cosine"] = "linear"
    """How the learning rate moves."""
    weight_decay: float = 0.0
    """Share of each parameter, times the learning rate, that a step takes away, beside Adam and not through it (Loshchilov & Hutter 2019)."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "final_learning_rate", "weight_decay"):
            value = getattr(self, name)
            require(value is None or 0 <= value < math.inf, f"{name} of Adam is {value}; give zero or more.")
        for name in ("first_decay", "second_decay"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{name} of Adam is {value}; give a number from 0 to below 1.")
        require(self.epsilon > 0, f"epsilon of Adam is {self.epsilon}; give a positive number.")

    def build(self, parameters: Mapping[str, Tensor], total_updates: int) -> "AdamState":
        """Optimiser state for the named parameters; the schedule ends after `total_updates` steps."""
        return AdamState(self, parameters, total_updates)


class AdamState(nn.Module):
    """Moments and step count of `Adam`, as buffers."""

    steps: Tensor
    decaying: Tensor

    def __init__(self, config: Adam, parameters: Mapping[str, Tensor], total_updates: int):
        super().__init__()
        self.config, self.total_updates = config, max(total_updates, 1)
        self.register_buffer("steps", torch.zeros(()))
        if config.final_learning_rate is not None:
            self.register_buffer("decaying", torch.ones(()))
        self.means = nn.ParameterList(nn.Parameter(torch.zeros_like(p), requires_grad=False) for p in parameters.values())
        self.squares = nn.ParameterList(nn.Parameter(torch.zeros_like(p), requires_grad=False) for p in parameters.values())

    def learning_rate(self) -> Tensor:
        """Learning rate of the step that is being taken, a scalar tensor."""
        start, final = self.config.learning_rate, self.config.final_learning_rate
        if final is None:
            return torch.full_like(self.steps, start)
        done = ((self.steps - 1) / self.total_updates).clamp(0, 1)
        share = done if self.config.decay == "linear" else 0.5 * (1 - (math.pi * done).cos())
        return start + (final - start) * share * self.decaying

    def begin_online(self) -> None:
        """A schedule belongs to the offline phase: from now on the learning rate is that of the first update.

        Where no update was made offline, the schedule is that of the online phase.
        """
        if self.config.final_learning_rate is not None:
            self.decaying.mul_(self.steps == 0)

    def step(self, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """p <- p - lr (m_hat / (sqrt(v_hat) + epsilon) + weight_decay p), in place, for every named parameter."""
        first, second = self.config.first_decay, self.config.second_decay
        self.steps.add_(1)
        learning_rate = self.learning_rate()
        # As exponentials, not powers: those that all parameters share the compiler computes once, powers anew for every eight numbers.
        rate = learning_rate / (1 - (self.steps * logarithm(first)).exp())
        correction = (1 - (self.steps * logarithm(second)).exp()).sqrt()
        for (name, parameter), mean, square in zip(parameters.items(), self.means, self.squares, strict=True):
            gradient = gradients[name]
            mean.lerp_(gradient, 1 - first)
            square.lerp_(gradient.square(), 1 - second)
            if self.config.weight_decay:
                parameter.mul_(1 - learning_rate * self.config.weight_decay)
            parameter.sub_(rate * mean / (square.sqrt() / correction + self.config.epsilon))


def logarithm(decay: float) -> float:
    """The natural logarithm of a decay, that of zero included."""
    return math.log(decay) if decay else -math.inf
