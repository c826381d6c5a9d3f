"""Function classes: what an agent's actor and critic are made of."""

from steelyard.agents.networks.bottleneck import Bottleneck
from steelyard.agents.networks.convolution import Convolution
from steelyard.agents.networks.mlp import MLP
from steelyard.agents.networks.simba_v2 import SimbaV2

Network = MLP | SimbaV2 | Convolution | Bottleneck
"""A frozen config with `build(inputs, outputs, members, beside) -> nn.Module`; the last `beside` inputs are an action. A module of it may define
`project()`, called after every optimiser step."""

__all__ = ["MLP", "Bottleneck", "Convolution", "Network", "SimbaV2"]
