"""Deep Variance Weighting (Kitamura et al. 2023, arXiv 2301.12680): an occupant of the slot `weighting`."""

import copy
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steelyard.agents.errors import SlotError
from steelyard.agents.networks import MLP, Network
from steelyard.agents.networks.critic import build_critic
from steelyard.agents.networks.heads import pessimistic
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts.objective import Regression
from steelyard.agents.parts.weighting import UniformWeighting
from steelyard.agents.types import Batch, Metrics, Spec

if TYPE_CHECKING:
    from steelyard.agents.value_learner import ValueLearningAgent


@dataclass(frozen=True)
class InverseVariance:
    """Weights that fall with the variance of the regression target at a state and action (DVW).

    The variance is learned from how far one-sample targets of an older critic lie from the newer critic that was fitted to them, so that a
    sample's own error never decides its weight. What was not learned yet is not mistaken for noise.
    """

    network: Network = field(default_factory=MLP)
    """Network of the log variance; the critic's own kind in the paper."""
    optimizer: Adam = field(default_factory=lambda: Adam(2.5e-4))
    """Optimiser of the variance and of the scale."""
    period: int = 1_000
    """Updates between two generations: the critic and the variance are copied, the copy before becomes the older generation (250 in MinAtar)."""
    smallest_variance: float = 0.1
    """Added to the variance, in units of squared (scaled) reward."""
    lowest: float = 0.1
    """Floor of the weights, at most one."""
    initial_scale: float = math.e
    """eta at the start; it is learned so that the mean weight becomes one."""
    scale_speed: float = 4.0
    """Learning rate of log eta, and of log b, in units of the optimiser's (1e-3 beside 2.5e-4; on mazes 5e-3 beside 1e-4)."""
    learned_floor: float | None = None
    """Initial value of b, a number added to the variance in the weights' denominator and learned to be the square root of the largest variance of
    the batch, as on the paper's mazes (e), where it stands for the root of the horizon in the theory; None: none, as on MinAtar."""

    def __post_init__(self) -> None:
        for name in ("smallest_variance", "initial_scale", "scale_speed", "learned_floor"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise SlotError(f"{name} of InverseVariance is {getattr(self, name)}; give a positive number.")
        if not 0 <= self.lowest <= 1:
            raise SlotError(f"lowest of InverseVariance is {self.lowest}; the mean weight is one, give a floor from 0 to 1.")
        if self.period < 1:
            raise SlotError(f"period of InverseVariance is {self.period}; give one update or more.")

    def build(self, spec: Spec, critics: int) -> "InverseVarianceWeighting":
        """The part; one variance serves all critics, which share their target."""
        del critics
        return InverseVarianceWeighting(self, spec)


class InverseVarianceWeighting(UniformWeighting):
    """The part that `InverseVariance` describes."""

    def __init__(self, config: InverseVariance, spec: Spec):
        super().__init__()
        self.config, self.optimizer = config, config.optimizer
        self.variance_network = build_critic(config.network, spec, 1, 1)
        self.frozen_network = copy.deepcopy(self.variance_network).requires_grad_(False)
        self.slow_log_scale = nn.Parameter(torch.tensor(math.log(config.initial_scale) / config.scale_speed))
        if config.learned_floor is not None:
            self.slow_log_floor = nn.Parameter(torch.tensor(math.log(config.learned_floor) / config.scale_speed))
        self.generation = 0

    def begin(self, agent: "ValueLearningAgent") -> None:
        """Two generations of the agent's critic. Raises `SlotError` where critics have targets of their own: one variance serves all."""
        if not agent.shares_target:
            raise SlotError("InverseVariance learns the variance of one target for all critics; use target_value lowest.")
        self.newer = copy.deepcopy(agent.critic).requires_grad_(False)
        self.older = copy.deepcopy(agent.critic).requires_grad_(False)

    def variance(self, network: nn.Module, obs: Tensor, action: Tensor) -> Tensor:
        """exp(network) + smallest variance [batch]."""
        return network(obs, action)[0].squeeze(-1).exp() + self.config.smallest_variance

    def scale(self) -> Tensor:
        """eta. Adam's steps do not depend on a parameter's scale, so a multiple of it moves at a multiple of the learning rate."""
        return (self.config.scale_speed * self.slow_log_scale).exp()

    def floor(self) -> Tensor | float:
        """b, or nothing."""
        return 0.0 if self.config.learned_floor is None else (self.config.scale_speed * self.slow_log_floor).exp()

    def frozen_variance(self, obs: Tensor, action: Tensor) -> Tensor:
        """Var(s, a) [batch] as it was at the last generation; constants."""
        return self.variance(self.frozen_network, obs, action).detach()

    def inverse(self, frozen: Tensor) -> Tensor:
        """max(eta / (Var(s, a) + b), floor) [batch] for a frozen variance; constants."""
        return (self.scale() / (frozen + self.floor())).clamp(min=self.config.lowest).detach()

    def factors(self, obs: Tensor, action: Tensor) -> Tensor:
        """The weights of transitions [batch]; constants."""
        return self.inverse(self.frozen_variance(obs, action))

    def forward(self, weight: Tensor, regression: Regression) -> Tensor:
        """The sampler's weights times the inverse variance's."""
        return weight * self.factors(regression.obs, regression.action)

    def loss(self, agent: "ValueLearningAgent", batch: Batch, noise: Tensor) -> tuple[Tensor, Metrics]:
        """E[huber(Var(s, a) - z)] + (E[eta / (Var(s, a) + b)] - 1)^2 + (b - max sqrt(Var))^2, z = (y_older - Q_newer(s, a))^2.

        z is the squared error of one sample of the target. The last term is there only where b is learned, with the frozen variance.
        y_older is the agent's own target, computed with the older generation: the newer one was fitted to such targets, so it is near
        their mean.
        """
        with torch.no_grad():
            target = agent.head.expectation(agent.backup(self.older, batch, noise))
            output = pessimistic(agent.head, self.newer(batch.obs, batch.action))
            squared_error = (target - agent.head.value(output)).square()
        variance = self.variance(self.variance_network, batch.obs, batch.action)
        regression = F.huber_loss(variance, squared_error, reduction="none")
        frozen = self.frozen_variance(batch.obs, batch.action)
        denominator = (frozen + self.floor()).detach()
        mean_weight = (batch.weight * self.scale() / denominator).mean() / batch.weight.mean()
        loss = (batch.weight * regression).mean() + (mean_weight - 1).square()
        learned: Metrics = {}
        if self.config.learned_floor is not None:
            floor, largest = self.floor(), (frozen - self.config.smallest_variance).amax().sqrt()
            loss = loss + (floor - largest).square()
            learned = {"learned_floor": torch.as_tensor(floor).detach()}
        factors = self.inverse(frozen)
        return loss, learned | {
            "variance_loss": (batch.weight * regression).mean(),
            "variance": variance.mean(),
            "lowest_weight": factors.amin(),
            "mean_weight": factors.mean(),
            "highest_weight": factors.amax(),
        }

    @torch.no_grad()
    def intervene(self, agent: "ValueLearningAgent", update_count: int) -> None:
        """At each new generation: newer becomes older, the critic becomes newer, and the variance learned since is frozen."""
        generation = update_count // self.config.period
        if generation == self.generation:
            return
        self.generation = generation
        for old, new in ((self.older, self.newer), (self.newer, agent.critic), (self.frozen_network, self.variance_network)):
            cast(nn.Module, old).load_state_dict(cast(nn.Module, new).state_dict())

    def get_extra_state(self) -> Tensor:
        """Which generation this is."""
        return torch.tensor(self.generation)

    def set_extra_state(self, state: Tensor) -> None:
        """The inverse of `get_extra_state`."""
        self.generation = int(state)
