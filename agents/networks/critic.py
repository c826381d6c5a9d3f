"""Functions of a state and an action: one or several members as one batched module, for continuous actions and for choices."""

import torch
from torch import Tensor, nn

from steelyard.agents.networks import Network
from steelyard.agents.types import Spec


class Critic(nn.Module):
    """Q(s, a) of every critic at once, for actions in a box.

    Args:
        body: Network from [obs, action] to one tensor [critics, batch, size].
    """

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Outputs [critics, batch, size] in float32; a value head says what they mean."""
        return self.body(torch.cat([obs, action], -1))[0]


class ChoiceCritic(nn.Module):
    """Q(s, a) of every critic at once, for actions that are choices: one pass gives all of them.

    Args:
        body: Network from observations to one tensor [critics, batch, choices * size], and, if it is dueling, another [critics, batch, size].
        choices: Number of actions.
    """

    def __init__(self, body: nn.Module, choices: int):
        super().__init__()
        self.body, self.choices = body, choices

    def every(self, obs: Tensor) -> Tensor:
        """Outputs [critics, batch, choices, size] of every action.

        Dueling (Wang et al. 2016, equation 9): Q(s, a) = V(s) + A(s, a) - mean_a A(s, a).
        """
        outputs, *value = self.body(obs)
        outputs = outputs.unflatten(-1, (self.choices, -1))
        return value[0].unsqueeze(-2) + outputs - outputs.mean(-2, keepdim=True) if value else outputs

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Outputs [critics, batch, size] of the one-hot actions [batch, choices]."""
        return (self.every(obs) * action.unsqueeze(-1)).sum(-2)


def build_critic(network: Network, spec: Spec, size: int, members: int, *, dueling: bool = False) -> Critic | ChoiceCritic:
    """A function of state and action with outputs [members, batch, size], of the form that the task's actions need."""
    if not spec.discrete:
        return Critic(network.build(spec.obs_size + spec.action_size, (size,), members, beside=spec.action_size))
    outputs = (spec.action_size * size, size) if dueling else (spec.action_size * size,)
    return ChoiceCritic(network.build(spec.obs_size, outputs, members), spec.action_size)
