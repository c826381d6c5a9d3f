"""Slot `weighting`: how much each sample counts in the critic's regression, and, if the part says so, in every other loss."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from steelyard.agents.errors import require
from steelyard.agents.networks import MLP, Network
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts.objective import Regression
from steelyard.agents.parts.part import Part
from steelyard.agents.types import Batch, Metrics, Records, Spec

if TYPE_CHECKING:
    from steelyard.agents.value_learner import ValueLearningAgent


@dataclass(frozen=True)
class Uniform:
    """Every sample counts as the sampler says."""

    def build(self, spec: Spec, critics: int) -> "UniformWeighting":
        """The part; it learns nothing."""
        del spec, critics
        return UniformWeighting()


class UniformWeighting(Part):
    """The part that `Uniform` describes, and the base of the others."""

    def forward(self, weight: Tensor, regression: Regression) -> Tensor:
        """Weights [batch] (or [critics, batch]) in the critic's regression, from the sampler's weights [batch]."""
        del regression
        return weight

    def fit(self, records: Records) -> None:
        """Learn what there is to learn from a data set as a whole, its rewards scaled as the agent sees them."""

    def mean(self, batch: Batch, losses: Tensor) -> Tensor:
        """The expectation over the batch of losses [..., batch] other than the critic's regression."""
        return losses.mean(-1)

    def state_mean(self, batch: Batch, losses: Tensor) -> Tensor:
        """The same for losses that depend on the batch's observations alone."""
        return losses.mean(-1)


@dataclass(frozen=True)
class DensityRatio:
    """Weights that turn the data's distribution into that of a better policy near it (DW, Hong et al., NeurIPS 2023).

    For data whose good behaviour is not whole good trajectories. Every expectation over the batch becomes a sum weighted by a softmax of learned
    log ratios, of a state and of an action in it.
    """

    flow: float = 1.0
    """lambda_F: weight of the Bellman flow condition, that what flows into a state flows out of it."""
    closeness: float = 0.2
    """lambda_K: weight of the divergence from the data. Published: 0 for CQL, 0.2 or 1 for IQL and TD3+BC."""
    temperature: float = 1.0
    """T of the softmax."""
    bound: float = 1.2
    """Largest absolute value of each log ratio (1 + c, c = 0.2)."""
    clip: Literal["each", "sum"] = "each"
    """What is bounded: each log ratio (CQL, IQL), or their sum (TD3+BC's released code)."""
    divergence: Literal["pairs", "states"] = "pairs"
    """Whether the divergence is that of the weights of states and actions (CQL, IQL), or of states alone (TD3+BC's released code)."""
    flow_discount: float = 1.0
    """gamma_F, the discount of the flow condition."""
    reward: Literal["range", "deviation"] = "range"
    """What rewards are divided by: their range in the data, after subtracting the smallest (CQL, TD3+BC), or their deviation (IQL)."""
    network: Network = field(default_factory=MLP)
    """Network of each log ratio."""
    optimizer: Adam = field(default_factory=lambda: Adam(1e-4))
    """Optimiser of the log ratios."""

    def __post_init__(self) -> None:
        for name in ("temperature", "bound", "flow_discount"):
            require(getattr(self, name) > 0, f"{name} of DensityRatio is {getattr(self, name)}; give a positive number.")
        for name in ("flow", "closeness"):
            require(getattr(self, name) >= 0, f"{name} of DensityRatio is {getattr(self, name)}; give zero or more.")

    def build(self, spec: Spec, critics: int) -> "DensityRatioWeighting":
        """The part."""
        del critics
        return DensityRatioWeighting(self, spec)


class DensityRatioWeighting(UniformWeighting):
    """The part that `DensityRatio` describes."""

    offset: Tensor
    scale: Tensor

    def __init__(self, config: DensityRatio, spec: Spec):
        super().__init__()
        self.config, self.optimizer = config, config.optimizer
        self.of_state = config.network.build(spec.obs_size, (1,))
        self.of_action = config.network.build(spec.obs_size + spec.action_size, (1,))
        self.register_buffer("offset", torch.zeros(1))
        self.register_buffer("scale", torch.ones(1))

    def fit(self, records: Records) -> None:
        """Take the range, or the deviation, of the data's rewards."""
        reward = records.reward.double()
        by_range = self.config.reward == "range"
        self.offset.copy_(reward.min() if by_range else torch.zeros(()))
        self.scale.copy_((reward.max() - reward.min() if by_range else reward.std(correction=0)).clamp(min=1e-8))

    def ratios(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Log ratios g(s, a) and f(s), each [batch]."""
        return self.of_action(torch.cat((obs, action), -1))[0].squeeze(-1), self.of_state(obs)[0].squeeze(-1)

    def weights(self, action_ratio: Tensor, state_ratio: Tensor) -> Tensor:
        """Softmax over the batch of the bounded log ratios [batch]; it sums to one."""
        bound = self.config.bound
        if self.config.clip == "sum":
            bounded = (action_ratio + state_ratio).clamp(-bound, bound)
        else:
            bounded = action_ratio.clamp(-bound, bound) + state_ratio.clamp(-bound, bound)
        return (bounded / self.config.temperature).softmax(-1)

    def forward(self, weight: Tensor, regression: Regression) -> Tensor:
        """The sampler's weights times the softmax times the batch size, so that their mean is about one."""
        return weight * self.weights(*self.ratios(regression.obs, regression.action)).detach() * len(weight)

    def mean(self, batch: Batch, losses: Tensor) -> Tensor:
        """Weighted sum of losses [..., batch]."""
        return (self.weights(*self.ratios(batch.obs, batch.action)).detach() * losses).sum(-1)

    def state_mean(self, batch: Batch, losses: Tensor) -> Tensor:
        """Weighted sum by the ratios of states alone."""
        state = self.ratios(batch.obs, batch.action)[1]
        return (self.state_weights(state).detach() * losses).sum(-1)

    def state_weights(self, state_ratio: Tensor) -> Tensor:
        """Softmax over the batch of the bounded log ratios of states [batch]."""
        return self.weights(torch.zeros_like(state_ratio), state_ratio)

    def loss(self, agent: "ValueLearningAgent", batch: Batch, noise: Tensor) -> tuple[Tensor, Metrics]:
        """-sum w r + lambda_F E[(gamma_F e^((g + f)(s, a) / T) - e^(f(s') / T))^2] + lambda_K sum w log w, with unbounded ratios in the flow.

        The last w are those of states alone where `divergence` says so.
        """
        config = self.config
        action_ratio, state_ratio = self.ratios(batch.obs, batch.action)
        next_ratio = self.of_state(batch.next_obs)[0].squeeze(-1)
        weights = self.weights(action_ratio, state_ratio)
        reward = (weights * (batch.reward - self.offset) / self.scale).sum()
        out = config.flow_discount * ((action_ratio + state_ratio) / config.temperature).exp()
        flow = (out - (next_ratio / config.temperature).exp()).square().mean()
        compared = weights if config.divergence == "pairs" else self.state_weights(state_ratio)
        divergence = (compared * compared.log()).sum()
        size = weights.square().sum().reciprocal()
        loss = config.flow * flow + config.closeness * divergence - reward
        return loss, {"density_flow": flow, "density_effective_batch": size}
