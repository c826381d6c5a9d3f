"""What every occupant of a slot shares."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from steelyard.agents.types import Batch, Metrics

if TYPE_CHECKING:
    from steelyard.agents.actor_critic import ActorCriticAgent


class Part(nn.Module):
    """Occupant of a slot. One that has parameters is trained by its own `loss`, applied after the agent's own, by an optimiser of its own."""

    def loss(self, agent: "ActorCriticAgent", batch: Batch, noise: Tensor) -> tuple[Tensor, Metrics]:
        """Scalar loss of this part's parameters and metrics to log. Only parts with parameters are asked.

        Args:
            agent: The whole agent, to read from; the gradient reaches this part alone.
            batch: Normalised batch.
            noise: The update's standard normal draws [draws, batch, action_size].
        """
        raise NotImplementedError(f"{type(self).__name__} has parameters but no loss")
