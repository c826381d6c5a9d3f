"""Conservative Q-learning on SAC (Kumar et al. 2020, arXiv 2006.04779), the variant CQL(H).

With something in its `calibration` slot it is Cal-QL (Nakamoto et al. 2023, arXiv 2303.05479).
"""

import math
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from steelyard.agents.acting import Setting
from steelyard.agents.networks.policies import Gaussian
from steelyard.agents.parts.calibration import Calibration, Uncalibrated
from steelyard.agents.sac import SAC, SoftActorCritic, Temperature
from steelyard.agents.types import Batch, Metrics

LARGEST_MULTIPLIER = 1e6


@dataclass(frozen=True)
class CQL(SAC):
    """Conservative Q-learning."""

    policy: Gaussian = field(default_factory=lambda: Gaussian(offset=-1.0))
    """Distribution of actions."""
    entropy_backup: bool = False
    """Count the policy's entropy in the critic's target."""
    conservatism: float = 10.0
    """alpha: weight of the gap between the values of sampled actions and of the data's (10 on D4RL locomotion, 5 or 1 elsewhere)."""
    online_conservatism: float | None = None
    """alpha in the online phase; None keeps it, zero leaves plain SAC (WSRL)."""
    samples: int = 10
    """N: uniformly random actions, policy's actions and policy's actions of the next state, of each so many."""
    softness: float = 1.0
    """T: temperature of the soft maximum."""
    importance_sampling: bool = True
    """Subtract each sampled action's log density from its value; without it the data's action joins the soft maximum instead."""
    smallest_gap: float = -math.inf
    """Lower bound of the gap; -200 keeps AntMaze from diverging."""
    lagrange_gap: float | None = None
    """If given, the weight is multiplied by a learned factor that keeps the gap at this value."""
    max_target: bool = False
    """Bootstrap from the best of `samples` actions of the next state instead of from one."""
    calibration: Calibration = field(default_factory=Uncalibrated)
    """Whether returns seen in the data bound the values that are pushed down (Cal-QL)."""

    def make(self, setting: Setting) -> "Conservative":
        """The agent that this configuration describes."""
        return Conservative(self, setting)


class Conservative(SoftActorCritic):
    """The agent that `CQL` describes."""

    def __init__(self, config: CQL, setting: Setting):
        super().__init__(config, setting)
        self.conservative, self.weight = config, config.conservatism
        self.calibration = config.calibration.build()
        self.columns = self.calibration.columns
        if config.lagrange_gap is not None:
            self.losses = (*self.losses, "multiplier")
            self.multiplier = Temperature(math.e)
        self.count_draws(2 + config.samples * (4 if config.max_target else 3))

    def begin_online(self) -> None:
        """The weight of the online phase."""
        super().begin_online()
        if self.conservative.online_conservatism is not None:
            self.weight = self.conservative.online_conservatism

    def critic_loss(self, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
        """Sum over critics of the regression and of alpha E[gap] / 2.

        The published loss is twice this: it has the squared error where the regression has half of it. Adam does not see the factor.
        """
        loss, metrics = super().critic_loss(batch, noise, seen)
        if self.weight == 0:
            return loss, metrics
        config, gap = self.conservative, self.gap(batch, noise)
        mean = self.weighting.mean(batch, gap)
        penalty = mean.sum()
        if config.lagrange_gap is not None:
            penalty = self.factor().detach() * (mean - config.lagrange_gap).sum()
        return loss + 0.5 * self.weight * penalty, metrics | {"gap": mean.mean()}

    def gap(self, batch: Batch, noise: Tensor) -> Tensor:
        """max(T log sum exp(z / T) - Q(s, a), smallest) [critics, batch]; z are the values at s of random actions, of pi(.|s) and of pi(.|s').

        With importance sampling each value is reduced by the log density of its action (appendix F).
        """
        config, samples = self.conservative, self.conservative.samples
        actions, densities = self.sampled_actions(batch, noise)
        sampled = self.values(batch.obs, actions)
        data = self.head.value(self.critic(batch.obs, batch.action))
        bounded = self.calibration.bound(sampled[:, samples:], batch.goal_return)
        sampled = torch.cat((sampled[:, :samples], bounded), 1)
        z = sampled - densities if config.importance_sampling else torch.cat((sampled, data[:, None]), 1)
        soft = config.softness * (z / config.softness).logsumexp(1)
        return (soft - data).clamp(min=config.smallest_gap)

    def sampled_actions(self, batch: Batch, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [3 N, batch, action_size] and their log densities [3 N, batch], constants: random ones, of pi(.|s), of pi(.|s')."""
        samples, coefficient = self.conservative.samples, self.balance.sample(batch.obs, noise)
        with torch.no_grad():
            for_random, for_here, for_there = (noise[2 + k * samples : 2 + (k + 1) * samples] for k in range(3))
            random = torch.erf(for_random / math.sqrt(2))
            density = torch.full_like(random[..., 0], self.spec.action_size * math.log(0.5))
            here = self.actor(self.balance.condition(batch.obs, coefficient), for_here)
            there = self.actor(self.next_view(batch, noise), for_there)
        return torch.cat((random, here[0], there[0])), torch.cat((density, here[1], there[1]))

    def values(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Q_i(s, a) [critics, n, batch] for actions [n, batch, action_size]."""
        n, batch, size = actions.shape
        output = self.critic(obs.expand(n, batch, -1).reshape(n * batch, -1), actions.reshape(n * batch, size))
        return self.head.value(output).view(-1, n, batch)

    def next_view(self, batch: Batch, noise: Tensor) -> Tensor:
        """What the actor sees of the next state: with a family, under a coefficient drawn for the present one (FamO2O's released code)."""
        return self.balance.condition(batch.next_obs, self.balance.draw(batch.obs, noise))

    def backup(self, critic: nn.Module, batch: Batch, noise: Tensor) -> Tensor:
        """r + gamma^n (1 - terminated) min_i Q_i(s', a'), a' ~ pi or the best of N such actions (by the smallest of the critics)."""
        if not self.conservative.max_target:
            action, log_prob = self.actor(self.next_view(batch, noise), noise[1])
        else:
            samples = self.conservative.samples
            actions, log_probs = self.actor(self.next_view(batch, noise), noise[2 + 3 * samples : 2 + 4 * samples])
            n, size, width = actions.shape
            output = critic(batch.next_obs.expand(n, size, -1).reshape(n * size, -1), actions.reshape(n * size, width))
            best = self.head.value(output).amin(0).view(n, size).argmax(0)
            action = actions.gather(0, best[None, :, None].expand(1, size, width))[0]
            log_prob = log_probs.gather(0, best[None])[0]
        output = self.pessimistic(critic(batch.next_obs, action), noise)
        return self.head.backup(output, batch.reward, batch.discount, self.entropy_bonus(log_prob))

    def factor(self) -> Tensor:
        """The learned factor of the conservative weight."""
        return self.multiplier().clamp(max=LARGEST_MULTIPLIER)

    def multiplier_loss(self, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
        """-factor alpha (gap - wanted gap), the gap averaged over critics (equation 30)."""
        config, factor = self.conservative, self.factor()
        return -factor * self.weight * (seen["gap"] - cast(float, config.lagrange_gap)), {"conservative_factor": factor}
