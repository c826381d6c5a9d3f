"""Action-value networks: one or several critics as one batched module."""

import torch
from torch import Tensor, nn


class Critic(nn.Module):
    """Q(s, a) of every critic at once.

    Args:
        body: Network from [obs, action] to one tensor [critics, batch, size].
    """

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Outputs [critics, batch, size] in float32; a value head says what they mean."""
        return self.body(torch.cat([obs, action], -1))[0]
