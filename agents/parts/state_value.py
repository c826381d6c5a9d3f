"""The value of a state as a dynamics model's objective needs it: per critic, and with its gradient."""

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from steelyard.agents.value_learner import ValueLearningAgent

CHUNK = 8_192
"""Rows whose values or gradients are computed at once."""


class StateValue:
    """V_j(s) = Q_j(s, a), a from the policy and held constant, for several critics and raw observations s.

    The agent's observation normaliser is inside, so gradients are those with respect to raw observations. A categorical critic counts with the mean
    of its distribution.

    Args:
        agent: Whose critics, policy and normaliser.
        critics: The current and the target critics, or the target critics alone.
        action: The policy's deterministic action, or a drawn one.
        generator: Of the noise of drawn actions.
    """

    def __init__(
        self,
        agent: "ValueLearningAgent",
        critics: Literal["all", "targets"],
        action: Literal["mean", "sample"],
        generator: torch.Generator,
    ):
        self.agent, self.action, self.generator = agent, action, generator
        self.critics = (agent.critic, agent.target_critic) if critics == "all" else (agent.target_critic,)

    def actions(self, obs: Tensor) -> Tensor:
        """The policy's actions [rows, action_size] for raw observations, without a gradient."""
        shape = (obs.shape[0], self.agent.spec.action_size)
        if self.action == "mean":
            return self.agent.choose(obs.detach(), torch.zeros(shape, device=obs.device)).detach()
        return self.agent.choose(obs.detach(), torch.randn(shape, generator=self.generator, device=obs.device)).detach()

    def values(self, obs: Tensor, action: Tensor) -> Tensor:
        """[critics, rows] for raw observations [rows, obs_size]; differentiable in them."""
        normalized = self.agent.normalizer(obs)
        return torch.cat([self.agent.head.value(critic(normalized, action)) for critic in self.critics])

    def tabulate(self, obs: Tensor) -> Tensor:
        """[rows, critics] of many rows."""
        with torch.no_grad():
            return torch.cat([self.values(part, self.actions(part)).T for part in pieces(obs)])

    def gradients(self, obs: Tensor) -> Tensor:
        """[rows, critics, obs_size]: each critic's own gradient with respect to the observation, and to nothing else."""
        return torch.cat([self._gradients(part, self.actions(part)) for part in pieces(obs)])

    def _gradients(self, obs: Tensor, action: Tensor) -> Tensor:
        with torch.enable_grad():
            point = obs.detach().clone().requires_grad_()
            values = self.values(point, action)
            each = [torch.autograd.grad(value.sum(), point, retain_graph=True)[0] for value in values]
        return torch.stack(each, 1).detach()


def pieces(rows: Tensor) -> list[Tensor]:
    """Rows [rows, ...] in pieces of at most `CHUNK`."""
    return [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
