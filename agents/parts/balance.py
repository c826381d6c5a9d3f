"""Slot `balance`: improvement of the policy against closeness to the data."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from steelyard.agents.errors import require
from steelyard.agents.networks import MLP, Network
from steelyard.agents.networks.policies import squashed_density
from steelyard.agents.parts.part import Part
from steelyard.agents.types import Batch, Metrics, Spec

if TYPE_CHECKING:
    from steelyard.agents.value_learner import ValueLearningAgent

ENCODING_SIZE = 6
ENCODING_BASE = 10_000.0


@dataclass(frozen=True)
class Fixed:
    """One coefficient for all states."""

    coefficient: float = 1.0
    """What improvement counts against closeness to the data: the inverse temperature of IQL (beta) and AWAC (1 / lambda), the factor of the
    value in the policy losses of CQL and TD3+BC (alpha). At one online agents are as published."""

    def __post_init__(self) -> None:
        require(math.isfinite(self.coefficient), f"coefficient of Fixed is {self.coefficient}; give a number.")

    def build(self, spec: Spec) -> "FixedBalance":
        """The part; it learns nothing."""
        return FixedBalance(self.coefficient, spec)


class FixedBalance(Part):
    """The part that `Fixed` describes."""

    inputs = 0
    """How many numbers `condition` appends to an observation."""
    draws = 0
    """Standard normal draws [draws, batch, action_size] that it needs of an update; they are the last ones."""

    def __init__(self, coefficient: float, spec: Spec):
        super().__init__()
        self.coefficient, self.spec = coefficient, spec

    def sample(self, obs: Tensor, noise: Tensor) -> Tensor | float:
        """The coefficient that the policy is trained for at normalised observations [batch, obs_size]: [batch], or one number."""
        return self.coefficient

    def draw(self, obs: Tensor, noise: Tensor) -> Tensor | float:
        """A coefficient of the balance policy, offline too, for targets: [batch], or one number; a constant."""
        return self.coefficient

    def choose(self, obs: Tensor) -> Tensor | float:
        """The coefficient that the policy acts with: [batch], or one number."""
        return self.coefficient

    def condition(self, obs: Tensor, coefficient: Tensor | float) -> Tensor:
        """What the actor sees of normalised observations [batch, obs_size]: its part of them, [batch, policy_obs_size + inputs]."""
        return self.spec.shown(obs)


@dataclass(frozen=True)
class Family:
    """A family of policies, one per coefficient in a range, and a balance policy that picks the coefficient by state (FamO2O, 2023).

    Offline the policy is trained for coefficients drawn uniformly; online for those that the balance policy picks. The same coefficient stands
    in the policy's loss and in its input.
    """

    low: float = 1.0
    """Smallest coefficient."""
    high: float = 5.0
    """Largest coefficient. If it equals `low` there is nothing to choose and the balance is `Fixed`."""
    network: Network = field(default_factory=MLP)
    """Network of the balance policy."""
    values: Literal["target", "current"] = "target"
    """Which critics judge the picked coefficient: the target critics (FamO2O on IQL) or the current ones (on CQL)."""
    entropy: bool = True
    """Tune the balance policy's entropy towards -1/2 (FamO2O on IQL); without it the balance policy only maximises the value (on CQL)."""
    interval: int = 1
    """Updates of the agent per update of the balance policy: 5 in the presets for locomotion."""

    def __post_init__(self) -> None:
        require(
            -math.inf < self.low <= self.high < math.inf,
            f"Family goes from low {self.low} to high {self.high}; give two numbers, the smaller one first.",
        )
        require(self.interval >= 1, f"interval of Family is {self.interval}; give one update or more.")

    def build(self, spec: Spec) -> "FixedBalance | FamilyBalance":
        """The part."""
        return FixedBalance(self.low, spec) if self.low == self.high else FamilyBalance(self, spec)


class FamilyBalance(Part):
    """The part that `Family` describes. Trained after the agent's own losses, so an actor's loss sees the balance policy of the update before."""

    inputs = ENCODING_SIZE
    draws = 3
    online: Tensor
    divisors: Tensor

    def __init__(self, config: Family, spec: Spec):
        super().__init__()
        self.config, self.spec, self.interval = config, spec, config.interval
        self.body = config.network.build(spec.visible, (1,))
        self.raw_log_std = nn.Parameter(torch.zeros(1))
        self.log_temperature = nn.Parameter(torch.zeros(1))
        self.register_buffer("online", torch.zeros(1, dtype=torch.bool))
        powers = torch.arange(0, ENCODING_SIZE, 2) / ENCODING_SIZE
        self.register_buffer("divisors", ENCODING_BASE**powers, persistent=False)

    def begin_online(self) -> None:
        """From now on the policy is trained for the coefficients that the balance policy picks."""
        self.online.fill_(True)

    def pick(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients [batch] for standard normal noise [batch, 1], and the log density [batch] of their place in (-1, 1)."""
        (mean,) = self.body(self.spec.shown(obs))
        log_std = self.raw_log_std.clamp(-10, 2)
        x = mean + log_std.exp() * noise
        return self.scale(x.tanh().squeeze(-1)), squashed_density(x, noise, log_std)

    def scale(self, place: Tensor) -> Tensor:
        """From (-1, 1) to (low, high)."""
        return self.config.low + 0.5 * (place + 1) * (self.config.high - self.config.low)

    def sample(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Coefficients [batch] to train the policy for: uniform offline, the balance policy's online."""
        normal = noise[-3, :, :1]
        uniform = self.scale(torch.erf(normal.squeeze(-1) / 2**0.5))
        return torch.where(self.online, self.pick(obs, normal)[0].detach(), uniform)

    def draw(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Coefficients [batch] drawn from the balance policy, with the noise of its own loss, which comes later in the update."""
        return self.pick(obs, noise[-2, :, :1])[0].detach()

    def choose(self, obs: Tensor) -> Tensor:
        """The balance policy's mode [batch]."""
        return self.scale(self.body(self.spec.shown(obs))[0].tanh().squeeze(-1))

    def condition(self, obs: Tensor, coefficient: Tensor | float) -> Tensor:
        """The policy's part of `obs` with the encoded coefficient: sin(c / n^(2i/d)) and cos(c / n^(2i/d)) for i = 0, 1, 2; d = 6, n = 10000."""
        angle = torch.as_tensor(coefficient, device=obs.device).unsqueeze(-1) / self.divisors
        encoding = torch.stack((angle.sin(), angle.cos()), -1).flatten(-2)
        return torch.cat((self.spec.shown(obs), encoding.expand(*obs.shape[:-1], ENCODING_SIZE)), -1)

    def loss(self, agent: "ValueLearningAgent", batch: Batch, noise: Tensor) -> tuple[Tensor, Metrics]:
        """E[temperature log pi_b(c|s) - min_i Q_i(s, a)], c ~ pi_b, a ~ pi(.|s, c), both reparameterised; and temperature (H - target entropy)."""
        coefficient, log_prob = self.pick(batch.obs, noise[-2, :, :1])
        action = agent.actor.propose(self.condition(batch.obs, coefficient), noise[-1])
        critic = agent.target_critic if self.config.values == "target" else agent.critic
        value = agent.head.value(critic(batch.obs, action)).amin(0)
        metrics = {"coefficient": coefficient.mean(), "coefficient_std": coefficient.std()}
        if not self.config.entropy:
            return -value.mean(), metrics
        temperature, entropy = self.log_temperature.exp().squeeze(), -log_prob.mean()
        loss = (temperature.detach() * log_prob - value).mean() + temperature * (entropy.detach() + 0.5)
        return loss, metrics | {"balance_entropy": entropy, "balance_temperature": temperature}


Balance = Fixed | Family
