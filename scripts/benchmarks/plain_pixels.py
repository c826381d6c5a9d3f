"""DrQ-v2's update as one would write it for PyTorch without compilation: modules, optimisers, `backward`. The yardstick of the table `pixels`."""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLIP, RATE, PAD = 0.3, 0.01, 4


def layers(*sizes: int) -> nn.Sequential:
    """A perceptron with ReLU."""
    stack: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes[:-1]):
        stack += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*stack, nn.Linear(sizes[-2], sizes[-1]))


def trunk(inputs: int, features: int) -> nn.Sequential:
    """The bottleneck."""
    return nn.Sequential(nn.Linear(inputs, features), nn.LayerNorm(features), nn.Tanh())


class TwinCritic(nn.Module):
    """Two action values behind one bottleneck."""

    def __init__(self, inputs: int, action_size: int, features: int, hidden: int):
        super().__init__()
        self.trunk = trunk(inputs, features)
        self.values = nn.ModuleList(layers(features + action_size, hidden, hidden, 1) for _ in range(2))

    def forward(self, features: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Both values [batch, 1]."""
        x = torch.cat((self.trunk(features), action), -1)
        return self.values[0](x), self.values[1](x)


def encoder(frames: int, channels: int) -> nn.Sequential:
    """Four convolutions."""
    stack: list[nn.Module] = []
    for number in range(4):
        stack += [nn.Conv2d(channels if number else frames, channels, 3, 1 if number else 2), nn.ReLU(inplace=True)]
    return nn.Sequential(*stack, nn.Flatten())


def augment(x: Tensor) -> Tensor:
    """Shift by up to `PAD` pixels, by bilinear resampling of the padded picture."""
    rows, _, side, _ = x.shape
    x = F.pad(x, (PAD,) * 4, mode="replicate")
    whole = side + 2 * PAD
    line = torch.linspace(-1 + 1 / whole, 1 - 1 / whole, whole)[:side]
    y, across = torch.meshgrid(line, line, indexing="ij")
    moves = torch.randint(0, 2 * PAD + 1, (rows, 1, 1, 2)).float() * 2 / whole
    return F.grid_sample(x, torch.stack((across, y), -1) + moves, align_corners=False)


class PlainDrQV2:
    """Encoder, twin critic, policy and their optimisers, on random pictures.

    Args:
        side: Height and width of the pictures, of nine channels.
        channels: Of each convolution.
        hidden: Width of each of the two hidden layers.
        batch: Transitions per update.
    """

    def __init__(self, side: int, channels: int, hidden: int, batch: int, action_size: int = 6, features: int = 50):
        self.side, self.batch, self.action_size = side, batch, action_size
        self.encoder = encoder(9, channels)
        size = self.encoder(torch.zeros(1, 9, side, side)).shape[-1]
        self.critic, self.target = (TwinCritic(size, action_size, features, hidden) for _ in range(2))
        self.target.load_state_dict(self.critic.state_dict())
        self.policy = nn.Sequential(trunk(size, features), layers(features, hidden, hidden, action_size), nn.Tanh())
        modules = (self.encoder, self.critic, self.policy)
        self.of_encoder, self.of_critic, self.of_policy = (torch.optim.Adam(module.parameters(), 1e-4) for module in modules)
        self.stored = torch.randint(0, 256, (1_000, 9, side, side), dtype=torch.uint8)

    def act(self, features: Tensor) -> Tensor:
        """Noisy actions."""
        mean = self.policy(features)
        return (mean + (0.5 * torch.randn_like(mean)).clamp(-CLIP, CLIP)).clamp(-1, 1)

    def draw(self) -> tuple[Tensor, ...]:
        """A batch of random transitions."""
        index = torch.randint(0, len(self.stored), (2, self.batch))
        obs, following = (self.stored[rows].float() for rows in index)
        return obs, torch.rand(self.batch, self.action_size) * 2 - 1, torch.randn(self.batch, 1), following

    def update(self, *_: Any) -> None:
        """One update of everything."""
        obs, action, reward, following = self.draw()
        features = self.encoder(augment(obs) / 255 - 0.5)
        with torch.no_grad():
            ahead = self.encoder(augment(following) / 255 - 0.5)
            target = reward + 0.97 * torch.min(*self.target(ahead, self.act(ahead)))
        first, second = self.critic(features, action)
        loss = F.mse_loss(first, target) + F.mse_loss(second, target)
        self.of_encoder.zero_grad(set_to_none=True)
        self.of_critic.zero_grad(set_to_none=True)
        loss.backward()
        self.of_critic.step()
        self.of_encoder.step()
        features = features.detach()
        value = torch.min(*self.critic(features, self.act(features)))
        self.of_policy.zero_grad(set_to_none=True)
        (-value.mean()).backward()
        self.of_policy.step()
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.critic.parameters(), strict=True):
                slow.lerp_(fast, RATE)
