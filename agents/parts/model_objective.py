"""What a dynamics model is fitted to. An objective also says what the model's outputs mean, so that loss and head always belong together."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steelyard.agents.errors import SlotError

if TYPE_CHECKING:
    from steelyard.agents.value_learner import ValueLearningAgent


class Deterministic(nn.Module):
    """Objectives whose model predicts a point: outputs are targets.

    Targets are [delta observation, reward], in the units that the model predicts in; `scale` [targets] turns these into raw units.
    """

    outputs_per_target = 1
    of_values = False
    """Whether the agent's values matter, so that the model that fits best moves with them although the data stays."""
    emphasis: Tensor | None = None
    """[obs_size] mean squared weight of each component's error in the last fit, where components are weighted."""

    def mean(self, output: Tensor) -> Tensor:
        """Predicted targets [..., targets] of outputs."""
        return output

    def draw(self, output: Tensor, noise: Tensor) -> Tensor:
        """Targets [..., targets] drawn from the prediction with standard normal noise of that shape."""
        del noise
        return output

    def know(self, agent: "ValueLearningAgent", next_obs: Tensor, generator: torch.Generator) -> Tensor:
        """What the loss must know of each row [rows, ...], constant during a fit: nothing, unless values matter."""
        del agent, generator
        return next_obs[:, :0]

    def loss(self, output: Tensor, target: Tensor, scale: Tensor, known: Tensor, fits: Tensor) -> Tensor:
        """[members, batch] of outputs [members, batch, outputs].

        Args:
            output: The model's outputs.
            target: [members, batch, targets].
            scale: [targets] raw units per unit of the target.
            known: [members, batch, ...] rows of what `know` returned.
            fits: Scalar: how many fits were completed before.
        """
        raise NotImplementedError

    def score(self, output: Tensor, target: Tensor, scale: Tensor, known: Tensor, fits: Tensor) -> Tensor:
        """[members, batch] by which members are compared on rows held out; the smaller the better."""
        return self.loss(output, target, scale, known, fits)

    def penalty(self) -> Tensor | float:
        """Added to the loss, once."""
        return 0.0


@dataclass(frozen=True)
class SquaredError:
    """Mean squared error of a deterministic model."""

    def build(self, targets: int) -> "SquaredErrorObjective":
        """The module for so many targets."""
        del targets
        return SquaredErrorObjective()


class SquaredErrorObjective(Deterministic):
    """The objective that `SquaredError` describes."""

    def loss(self, output: Tensor, target: Tensor, scale: Tensor, known: Tensor, fits: Tensor) -> Tensor:
        """Mean over targets of the squared error, in the units that the model predicts in."""
        return (output - target).square().mean(-1)


@dataclass(frozen=True)
class Likelihood:
    """Negative log-likelihood of a Gaussian model with a diagonal covariance, as in PETS and MBPO."""

    low: float = -10.0
    """Smallest log variance; approached softly."""
    high: float = 0.5
    """Largest log variance. Where raw targets vary by more than this allows (a deviation of 1.28) the fit suffers: raise it (5), or use
    `normalized_targets`."""
    learned: bool = False
    """Learn both bounds, pulled together by 0.01 (sum of highest - sum of lowest) (Chua et al. 2018); else they stay as they are (mbrl-lib)."""

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise SlotError(f"Likelihood has low {self.low} and high {self.high}; low must be the smaller of two finite numbers.")

    def build(self, targets: int) -> "LikelihoodObjective":
        """The module for so many targets."""
        return LikelihoodObjective(self, targets)


class LikelihoodObjective(Deterministic):
    """The objective that `Likelihood` describes; outputs are [mean, raw log variance]."""

    outputs_per_target = 2

    def __init__(self, config: Likelihood, targets: int):
        super().__init__()
        low, high = (torch.full((targets,), float(bound)) for bound in (config.low, config.high))
        self.learned = config.learned
        if config.learned:
            self.low, self.high = nn.Parameter(low), nn.Parameter(high)
        else:
            self.register_buffer("low", low, persistent=False)
            self.register_buffer("high", high, persistent=False)

    def moments(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance [..., targets], the latter kept between its bounds by softplus from both sides."""
        mean, raw = output.chunk(2, -1)
        below = self.high - F.softplus(self.high - raw)
        return mean, self.low + F.softplus(below - self.low)

    def mean(self, output: Tensor) -> Tensor:
        """Predicted means."""
        return self.moments(output)[0]

    def draw(self, output: Tensor, noise: Tensor) -> Tensor:
        """mean + std noise."""
        mean, log_variance = self.moments(output)
        return mean + (0.5 * log_variance).exp() * noise

    def loss(self, output: Tensor, target: Tensor, scale: Tensor, known: Tensor, fits: Tensor) -> Tensor:
        """Mean over targets of err^2 / variance + log variance: twice the negative log-likelihood, without its constant log 2 pi."""
        mean, log_variance = self.moments(output)
        return ((mean - target).square() * (-log_variance).exp() + log_variance).mean(-1)

    def score(self, output: Tensor, target: Tensor, scale: Tensor, known: Tensor, fits: Tensor) -> Tensor:
        """Mean squared error: it, and not the likelihood, picks elites and ends fits (mbrl-lib, and MBPO's authors)."""
        return (self.mean(output) - target).square().mean(-1)

    def penalty(self) -> Tensor | float:
        """0.01 (sum of highest - sum of lowest) where bounds are learned."""
        return 0.01 * (self.high.sum() - self.low.sum()) if self.learned else 0.0
