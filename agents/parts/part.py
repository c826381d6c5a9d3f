"""What every occupant of a slot shares."""

from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

from steelyard.agents.optimizer import Adam
from steelyard.agents.types import Batch, Metrics

if TYPE_CHECKING:
    from steelyard.agents.value_learner import ValueLearningAgent


class Watcher(Protocol):
    """Looks at the batches of some updates, eagerly and before them. It changes nothing."""

    def watches(self, update: int) -> bool:
        """Whether update number `update`, the next one, is to be shown."""
        ...

    def watch(self, agent: "ValueLearningAgent", batch: Batch, noise: Tensor) -> None:
        """See the prepared batch and the noise that the next update will have."""
        ...


class Part(nn.Module):
    """Occupant of a slot. One with parameters that require gradients is trained by its own `loss`, after the agent's own, by an optimiser of its own.

    A part that defines `begin_online()` is told when the offline phase is over.
    """

    optimizer: Adam | None = None
    """Optimiser of this part's parameters; None for that of the agent's losses."""
    interval: int = 1
    """Updates of the agent per update of this part's parameters."""
    draws: int = 0
    """Standard normal draws that it needs of each update's noise, where its slot has some."""

    def begin(self, agent: "ValueLearningAgent") -> None:
        """Look at the agent that the part belongs to, once it is complete."""

    def refresh(self, agent: "ValueLearningAgent") -> None:
        """Move buffers of this part, at the start of each update and inside its graph; losses must not move any."""

    def watches(self, update: int) -> bool:
        """Whether this part is to see the batch of update number `update` before it (`watch`)."""
        return False

    def watch(self, agent: "ValueLearningAgent", batch: Batch, noise: Tensor) -> None:
        """See the prepared batch and the noise of the update that comes, outside the compiled graph."""

    def intervene(self, agent: "ValueLearningAgent", update_count: int) -> None:
        """Change the agent, or this part, after the agent's update number `update_count`, outside the compiled graph."""

    def regularizer(self, agent: "ValueLearningAgent", name: str) -> Tensor | None:
        """What is added to the agent's own loss called `name`, a scalar whose gradient reaches the child of that name; None for nothing."""
        return None

    def loss(self, agent: "ValueLearningAgent", batch: Batch, noise: Tensor) -> tuple[Tensor, Metrics]:
        """Scalar loss of this part's parameters and metrics to log. Only parts with parameters are asked.

        Args:
            agent: The whole agent, to read from; the gradient reaches this part alone.
            batch: Normalised batch.
            noise: The update's standard normal draws [draws, batch, action_size].
        """
        raise NotImplementedError(f"{type(self).__name__} has parameters but no loss")
