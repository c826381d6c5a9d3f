"""Objectives of a dynamics model that count an error by what it does to values: VaGraM (Voelcker et al. 2022, ICLR) and its relatives."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from steelyard.agents.errors import SlotError
from steelyard.agents.parts.model_objective import Deterministic
from steelyard.agents.parts.state_value import StateValue

if TYPE_CHECKING:
    from steelyard.agents.value_learner import ValueLearningAgent

Critics = Literal["all", "targets"]
Action = Literal["mean", "sample"]
Reward = Literal["published", "rescaled", "dimension"]


@dataclass(frozen=True)
class ValueGradient:
    """VaGraM: squared error whose weight, per sample, dimension and critic, is the squared value gradient at the true next observation.

    E[ mean over critics j and dimensions d of (dV_j/ds_d (s') (s_hat'_d - s'_d))^2 + (r_hat - r)^2 ], a bound of the first-order error of the
    value without its factor. The gradient is taken of each critic by itself, at the observed and not the predicted s', with the policy's action
    held constant. Values count in raw rewards, as r does, however the agent scales what it learns from.
    """

    critics: Critics = "all"
    """Whose gradients: the current and the target critics, or the target critics alone."""
    action: Action = "mean"
    """Where V(s') = Q(s', a') takes a': the policy's deterministic action, or a drawn one."""
    clip: float | None = 0.95
    """Gradients longer than this quantile of the lengths in a member's batch, per critic, are shortened to it; None leaves them."""
    low_clip: float | None = None
    """If given (0.05), shorter ones than this quantile are lengthened to it."""
    running_rate: float | None = 0.2
    """With `low_clip` both quantiles are running means over all rows, which move so far at a fit; None takes those of each member's batch."""
    reward: Reward = "published"
    """Weight of the reward's squared error: one; the square of the gradients' mean length (the author's code of 2023); or that of one dimension more,
    whose gradient is the mean size of all others' (the author's code of 2025)."""
    warmup_fits: int = 4
    """First fits in which the plain squared error is added, because the critic is still random: those of the first epoch."""

    def __post_init__(self) -> None:
        low = 0.0 if self.low_clip is None else self.low_clip
        if self.clip is not None and not 0 <= low < self.clip <= 1:
            raise SlotError(
                f"ValueGradient clips at the quantiles {low} and {self.clip}; give two of [0, 1], the lower one first."
            )
        if self.clip is None and self.low_clip is not None:
            raise SlotError("ValueGradient has low_clip but no clip; give both quantiles, or only clip.")
        if self.running_rate is not None and not 0 < self.running_rate <= 1:
            raise SlotError(f"running_rate of ValueGradient is {self.running_rate}; give a share above 0 and up to 1, or None.")
        if self.warmup_fits < 0:
            raise SlotError(f"warmup_fits of ValueGradient is {self.warmup_fits}; give zero or more.")

    def build(self, targets: int) -> "ValueGradientObjective":
        """The module for so many targets."""
        del targets
        return ValueGradientObjective(self)


LATER_VALUE_GRADIENT = ValueGradient(action="sample", low_clip=0.0005, running_rate=None, reward="dimension", warmup_fits=0)
"""VaGraM as its author's code of 2025 has it (jax_mbpo); whatever is its own is a setting of `ValueGradient`."""


class ValueGradientObjective(Deterministic):
    """The objective that `ValueGradient` describes. It knows the gradients [rows, critics, obs_size] of every row's next observation.

    They are computed once per fit, for all rows: critics do not move during a fit, and a row's gradients stay with the row whatever order
    members see rows in.
    """

    bounds: Tensor
    seen: Tensor
    of_values = True

    def __init__(self, config: ValueGradient):
        super().__init__()
        self.config = config
        self.register_buffer("bounds", torch.zeros(2))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    def know(self, agent: "ValueLearningAgent", next_obs: Tensor, generator: torch.Generator) -> Tensor:
        """Gradients [rows, critics, obs_size] at the true next observations; running quantiles of their lengths move towards those of now."""
        gradients = StateValue(agent, self.config.critics, self.config.action, generator).gradients(next_obs) / reward_unit(agent)
        if self.config.low_clip is not None and self.config.running_rate is not None:
            lengths = length(gradients).flatten()
            ranks = torch.tensor([self.config.low_clip, self.config.clip], device=lengths.device) * (len(lengths) - 1)
            now = lengths.sort().values[ranks.round().long()]
            self.bounds.copy_(torch.where(self.seen, self.bounds.lerp(now, self.config.running_rate), now))
            self.seen.fill_(True)
        self.emphasis = gradients.square().mean((0, 1))
        return gradients

    def clipped(self, gradients: Tensor) -> Tensor:
        """Gradients [members, batch, critics, obs_size] with bounded lengths and their own directions."""
        if self.config.clip is None:
            return gradients
        lengths = length(gradients)
        if self.config.low_clip is None:
            return gradients * (quantile(lengths, self.config.clip) / lengths.clamp(min=1e-12)).clamp(max=1)
        if self.config.running_rate is None:
            low, high = (quantile(lengths, share) for share in (self.config.low_clip, self.config.clip))
        else:
            low, high = self.bounds.unbind()
        return gradients * (lengths.clamp(low, high) / lengths.clamp(min=1e-12))

    def loss(self, output: Tensor, target: Tensor, scale: Tensor, known: Tensor, fits: Tensor) -> Tensor:
        """Mean over critics and dimensions of (g err)^2, plus the reward's squared error; [members, batch], errors in raw units.

        The reward as a dimension: the mean over D + 1 of them, times (D + 1) / D, so that the state's part is the same.
        """
        error = (output - target) * scale
        gradients = self.clipped(known)
        state = (gradients * error[..., None, :-1]).square().mean((-1, -2))
        reward = error[..., -1].square()
        if self.config.reward == "rescaled":
            reward = length(gradients).mean().square() * reward
        elif self.config.reward == "dimension":
            size = gradients.abs().mean((1, 2, 3))[:, None]
            reward = size.square() * reward / gradients.shape[-1]
        return state + reward + (fits < self.config.warmup_fits) * error.square().mean(-1)


def reward_unit(agent: "ValueLearningAgent") -> Tensor:
    """Scalar: what a raw reward of one is in the units of the agent's values, the slope of its reward scaling."""
    none, one = agent.reward_scale(torch.tensor([0.0, 1.0], device=agent.device))
    return one - none


def length(gradients: Tensor) -> Tensor:
    """Euclidean lengths [..., 1] of gradients [..., size]."""
    return gradients.square().sum(-1, keepdim=True).sqrt()


def quantile(lengths: Tensor, share: float) -> Tensor:
    """The quantile [members, 1, critics, 1] of lengths [members, batch, critics, 1], interpolated between its two neighbours."""
    place = share * (lengths.shape[1] - 1)
    ordered, low = lengths.sort(1).values, int(place)
    high = min(low + 1, lengths.shape[1] - 1)
    return ordered[:, low : low + 1].lerp(ordered[:, high : high + 1], place - low)


@dataclass(frozen=True)
class ExactTaylor:
    """Squared first-order error of the value, E[ mean over critics of (grad V(s')^T (s_hat' - s'))^2 + (r_hat - r)^2 ].

    Errors of several dimensions may cancel, which is why VaGraM bounds it instead.
    """

    critics: Critics = "all"
    """Whose gradients."""
    action: Action = "mean"
    """Where V(s') = Q(s', a') takes a'."""

    def build(self, targets: int) -> "ExactTaylorObjective":
        """The module for so many targets."""
        del targets
        return ExactTaylorObjective(self)


class ExactTaylorObjective(Deterministic):
    """The objective that `ExactTaylor` describes."""

    of_values = True

    def __init__(self, config: ExactTaylor):
        super().__init__()
        self.config = config

    def know(self, agent: "ValueLearningAgent", next_obs: Tensor, generator: torch.Generator) -> Tensor:
        """Gradients [rows, critics, obs_size] at the true next observations."""
        return StateValue(agent, self.config.critics, self.config.action, generator).gradients(next_obs) / reward_unit(agent)

    def loss(self, output: Tensor, target: Tensor, scale: Tensor, known: Tensor, fits: Tensor) -> Tensor:
        """[members, batch], errors in raw units."""
        error = (output - target) * scale
        return (known * error[..., None, :-1]).sum(-1).square().mean(-1) + error[..., -1].square()


@dataclass(frozen=True)
class IterVAML:
    """E[ mean over critics of (V(s_hat') - V(s'))^2 + (r_hat - r)^2 ] (Farahmand 2018): what VaGraM is the approximation of.

    The value is asked where there may be no data, and its level sets are minima too. V(s) = Q(s, a), a the policy's mode, held constant.
    """

    critics: Critics = "all"
    """Whose values."""

    def build(self, targets: int) -> "IterVAMLObjective":
        """The module for so many targets."""
        del targets
        return IterVAMLObjective(self)


class IterVAMLObjective(Deterministic):
    """The objective that `IterVAML` describes."""

    unit: Tensor
    of_values = True

    def __init__(self, config: IterVAML):
        super().__init__()
        self.config = config
        self.register_buffer("unit", torch.ones(()), persistent=False)
        self.state_value: StateValue | None = None

    def know(self, agent: "ValueLearningAgent", next_obs: Tensor, generator: torch.Generator) -> Tensor:
        """[rows, critics + obs_size]: the true next observations' values, and they themselves."""
        # Made once: a new one at each fit would have the loss compiled anew.
        self.state_value = self.state_value or StateValue(agent, self.config.critics, "mean", generator)
        self.unit.copy_(reward_unit(agent))
        return torch.cat((self.state_value.tabulate(next_obs) / self.unit, next_obs), -1)

    def loss(self, output: Tensor, target: Tensor, scale: Tensor, known: Tensor, fits: Tensor) -> Tensor:
        """[members, batch], the value's errors in raw rewards."""
        error = (output - target) * scale
        critics = known.shape[-1] - error.shape[-1] + 1
        values, next_obs = known[..., :critics], known[..., critics:]
        predicted = (next_obs + error[..., :-1]).flatten(0, 1)
        assert self.state_value is not None
        found = self.state_value.values(predicted, self.state_value.actions(predicted))
        return (found.T.view(values.shape) / self.unit - values).square().mean(-1) + error[..., -1].square()
