"""Function classes: what an agent's actor and critic are made of."""

from steelyard.agents.networks.convolution import Convolution
from steelyard.agents.networks.mlp import MLP
from steelyard.agents.networks.simba_v2 import SimbaV2

Network = MLP | SimbaV2 | Convolution
"""A frozen config with `build(inputs, outputs, members) -> nn.Module`. A module of it may define `project()`, called after every optimiser step."""

__all__ = ["MLP", "Convolution", "Network", "SimbaV2"]
