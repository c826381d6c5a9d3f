"""Robust Bellman losses as saddle points (Patterson, Liao & White 2023, arXiv 2205.08464): occupants of the slot `objective`."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from steelyard.agents.errors import SlotError
from steelyard.agents.networks import MLP, Network
from steelyard.agents.networks.critic import build_critic
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts.objective import Regression, require_positive
from steelyard.agents.parts.part import Part
from steelyard.agents.types import Batch, Metrics, Spec

if TYPE_CHECKING:
    from steelyard.agents.value_learner import ValueLearningAgent

ZERO_OUTPUT = MLP(output_gain=0.0)
"""A perceptron whose output starts at zero: no error is expected before any was seen."""
CORRECTION = Adam(weight_decay=1.0)
"""Adam with the regularisation of TDRC and QRC (beta = 1)."""


@dataclass(frozen=True)
class HuberBellman:
    """Mean Huber Bellman error: robust against states whose expected error is an outlier.

    The Huber map is applied to the expected error of a state and action, which a second function h(s, a) estimates, and never to a sample.
    Targets come from the critic itself; there is no target network in them. An infinite threshold leaves the squared error's gradient-TD updates
    (GTD2, TDC, TDRC, QRC).
    """

    threshold: float = 1.0
    """t, in units of the temporal-difference error: from there on an expected error counts linearly."""
    update: Literal["corrected", "saddle-point", "gated"] = "corrected"
    """Which gradient the critic follows: that of TD with a bounded correction (TDC-Huber, QRC-Huber), that of the saddle point itself
    (GTD2-Huber), or TD's while |h| is within the threshold and the saddle point's beyond."""
    bound: Literal["tanh", "clip"] = "tanh"
    """How h is bounded where it is used: t tanh(h / t), or cut off at t."""
    network: Network = field(default_factory=lambda: ZERO_OUTPUT)
    """Network of h; it should not be smaller than the critic's."""
    optimizer: Adam = field(default_factory=lambda: CORRECTION)
    """Optimiser of h. Its weight decay regularises the correction (TDRC, QRC); it should not be slower than the critic's."""

    def __post_init__(self) -> None:
        require_positive("HuberBellman", self.threshold)

    def bounded(self, h: Tensor) -> Tensor:
        """c(h) in [-t, t]."""
        if math.isinf(self.threshold):
            return h
        return self.threshold * (h / self.threshold).tanh() if self.bound == "tanh" else h.clamp(-self.threshold, self.threshold)

    def conjugate(self, bounded: Tensor) -> Tensor:
        """c^2 / 2, what the saddle point subtracts."""
        return 0.5 * bounded.square()

    def main_error(self, error: Tensor, h: Tensor) -> Tensor:
        """What pulls the critic's value at (s, a), a constant: the sampled error, or c(h)."""
        match self.update:
            case "corrected":
                return error
            case "saddle-point":
                return self.bounded(h)
            case "gated":
                return torch.where(h.abs() <= self.threshold, error, self.bounded(h))

    def build(self, spec: Spec, critics: int) -> "SaddlePoint":
        """The part."""
        return SaddlePoint(self, spec, critics)


@dataclass(frozen=True)
class AbsoluteBellman:
    """Mean absolute Bellman error: only the sign of an expected error counts.

    The sign hovers around the solution, so the critic's learning rate should fall.
    """

    network: Network = field(default_factory=lambda: ZERO_OUTPUT)
    """Network of h; it should not be smaller than the critic's."""
    optimizer: Adam = field(default_factory=lambda: CORRECTION)
    """Optimiser of h."""

    @property
    def threshold(self) -> float:
        """Largest size of c(h)."""
        return 1.0

    def bounded(self, h: Tensor) -> Tensor:
        """c(h) = sign(h)."""
        return h.sign()

    def conjugate(self, bounded: Tensor) -> Tensor:
        """Zero: |x| is the largest x h of all |h| <= 1."""
        return torch.zeros_like(bounded)

    def main_error(self, error: Tensor, h: Tensor) -> Tensor:
        """What pulls the critic's value at (s, a): the sign."""
        del error
        return self.bounded(h)

    def build(self, spec: Spec, critics: int) -> "SaddlePoint":
        """The part."""
        return SaddlePoint(self, spec, critics)


class SaddlePoint(Part):
    """min over Q, max over h of E[2 delta c(h) - c(h)^2] / 2, delta = r + gamma (1 - terminated) V_Q(s') - Q(s, a) (biconjugate form)."""

    def __init__(self, config: HuberBellman | AbsoluteBellman, spec: Spec, critics: int):
        super().__init__()
        self.config, self.optimizer = config, config.optimizer
        self.secondary = build_critic(config.network, spec, 1, critics)

    def begin(self, agent: "ValueLearningAgent") -> None:
        """Raises `SlotError` for an agent whose target does not come from its critic: there would be nothing to correct."""
        if not agent.bootstraps:
            raise SlotError(
                f"the objective {type(self.config).__name__} corrects for targets that move with the critic, and those of "
                f"{type(agent.value_learner).__name__} come from another network; use the objective Squared."
            )

    def estimate(self, regression: Regression) -> Tensor:
        """h(s, a) [critics, batch]: the expected error, not bounded."""
        return self.secondary(regression.obs, regression.action).squeeze(-1)

    def errors(self, regression: Regression) -> tuple[Tensor, Tensor]:
        """Values and targets [critics, batch] of the critic itself, both with gradients."""
        value = regression.head.value(regression.output)
        return value, regression.head.expectation(regression.backup(regression.critic)).expand_as(value)

    def forward(self, regression: Regression) -> Tensor:
        """c(h) y - m Q [critics, batch] plus a constant: its gradient is c(h) grad y - m grad Q, m the main error.

        With m = c(h) the value is that of the saddle point, c(h) delta - c(h)^2 / 2.
        """
        value, target = self.errors(regression)
        h = self.estimate(regression).detach()
        bounded = self.config.bounded(h)
        main = self.config.main_error((target - value).detach(), h)
        constant = ((bounded - main) * value).detach()
        return bounded * target - main * value - constant - self.config.conjugate(bounded)

    def loss(self, agent: "ValueLearningAgent", batch: Batch, noise: Tensor) -> tuple[Tensor, Metrics]:
        """E[w (delta - h(s, a))^2] / 2: h regresses on the sampled errors, which are not bounded, with the weights of the critic's regression."""
        regression = agent.regression(batch, noise)
        value, target = self.errors(regression)
        error = (target - value).detach()
        h = self.estimate(regression)
        weight = agent.weighting(batch.weight, regression).detach()
        loss = (0.5 * weight * (error - h).square()).mean(-1).sum()
        bounded = (h.abs() > self.config.threshold).float().mean()
        return loss, {"bounded_share": bounded, "explained_error": h.square().mean() / error.square().mean().clamp(min=1e-12)}
