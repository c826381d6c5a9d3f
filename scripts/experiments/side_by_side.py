"""Many agents of one kind that learn side by side as one batched program, such as all seeds and learning rates of a sweep.

Small networks leave a processor idle between operations. An update of 35 agents by one batched graph took 2.4 times as long as that
of one alone (QRC, hidden layers of 32).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from steelyard.agents.acting import ActingAgent
from steelyard.agents.compiling import one_graph
from steelyard.agents.networks.linear import batched_product
from steelyard.agents.optimizer import Adam, AdamState
from steelyard.agents.parts.improvement import Greedy, GreedyImprovement
from steelyard.agents.types import Batch, Metrics

State = dict[str, Tensor]
"""Parameters and buffers by their names."""


@dataclass(frozen=True)
class AdamOfEach(Adam):
    """Adam whose learning rate is constant and a tensor, so that agents side by side may each have their own."""

    def build(self, parameters: Mapping[str, Tensor], total_updates: int) -> "AdamOfEachState":
        """Optimiser state for the named parameters."""
        return AdamOfEachState(self, parameters, total_updates)


class AdamOfEachState(AdamState):
    """The state that `AdamOfEach` describes. Its arithmetic is Adam's, in operations that are made for batches of agents."""

    rate: Tensor

    def __init__(self, config: AdamOfEach, parameters: Mapping[str, Tensor], total_updates: int):
        super().__init__(config, parameters, total_updates)
        self.register_buffer("rate", torch.tensor(config.learning_rate))

    def learning_rate(self) -> Tensor:
        """The learning rate, a scalar tensor."""
        return self.rate

    def step(self, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """p <- p - lr (m_hat / (sqrt(v_hat) + epsilon) + weight_decay p), in place, for every named parameter."""
        config = self.config
        self.steps.add_(1)
        rate = self.rate / (1 - config.first_decay**self.steps)
        correction = (1 - config.second_decay**self.steps).sqrt()
        for (name, parameter), mean, square in zip(parameters.items(), self.means, self.squares, strict=True):
            gradient = gradients[name]
            mean.add_((1 - config.first_decay) * (gradient - mean))
            square.add_((1 - config.second_decay) * (gradient.square() - square))
            parameter.mul_(1 - self.rate * config.weight_decay)
            parameter.sub_(rate * mean / (square.sqrt() / correction + config.epsilon))


@dataclass(frozen=True)
class GreedyOfEach(Greedy):
    """`Greedy` in operations that are made for batches of agents."""

    def build(self) -> "GreedyOfEachImprovement":
        """The part; it learns nothing."""
        return GreedyOfEachImprovement(self.random_share)


class GreedyOfEachImprovement(GreedyImprovement):
    """The part that `GreedyOfEach` describes."""

    def policy(self, values: Tensor) -> Tensor:
        """Probabilities [batch, choices] of actions with the given values, constants."""
        best = (torch.arange(values.shape[-1]) == values.argmax(-1, keepdim=True)).float()
        return (1 - self.random_share) * best + self.random_share / values.shape[-1]


class Method(nn.Module):
    """Calls a method of an agent by its name, for `functional_call`."""

    def __init__(self, agent: ActingAgent):
        super().__init__()
        self.agent = agent

    def forward(self, name: str, *arguments: Any) -> Any:
        """What the method returns; zero for nothing, because a batched function has to return tensors."""
        result = getattr(self.agent, name)(*arguments)
        return torch.zeros(()) if result is None else result


class SideBySide:
    """Agents that were built alike, but for seeds and learning rates; each learns exactly as it would alone.

    Running statistics and decaying exploration are not kept up: nobody calls `observe`.

    Args:
        agents: At least one; all optimisers are `AdamOfEach`.
        compiled: Compile the batched update and the batched choice of actions.
        interval: Updates between two calls of `intervene`, a divisor of whatever period the agents have; None if they have none.
    """

    def __init__(self, agents: Sequence[ActingAgent], compiled: bool, interval: int | None = None):
        self.members, self.template, self.interval = len(agents), agents[0], interval
        parameters, buffers = stack_module_state([Method(agent) for agent in agents])
        self.state = {name: tensor.detach() for name, tensor in {**parameters, **buffers}.items()}
        """Every parameter and buffer of all agents: [members, ...]."""
        self.method = Method(self.template)
        self.trained = {name: tuple(self.template.own(name)) for name in self.template.trained}
        self.template.own, self.template.move_targets = self._own, self._move_targets
        update, choose = vmap(self._update_one, in_dims=(0, None, 0, 0)), vmap(self._choose_one)
        if compiled:
            # Under `vmap` the compiler cannot trace a gradient of its own kind; taken as it is, the function is mapped like any other.
            torch.compiler.allow_in_graph(batched_product)
        self._update: Callable[..., Metrics] = one_graph(update) if compiled else update
        self._choose: Callable[..., Tensor] = one_graph(choose) if compiled else choose
        self._intervene: Callable[..., Tensor] = vmap(self._intervene_one)

    def update(self, batch: Batch, noise: Tensor) -> Metrics:
        """One update of every agent from its own batch, columns [members, batch, ...], with noise [members, draws, batch, action_size]."""
        due = self.template.advance()
        columns = {name: column for name, column in batch._asdict().items() if column is not None}
        metrics = self._update(self.state, due, columns, noise)
        if self.interval and self.template.update_count % self.interval == 0:
            self._intervene(self.state)
        return metrics

    def choose(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Actions [members, rows, action_size] for observations [members, rows, obs_size]; zero noise gives the best ones."""
        return self._choose(self.state, obs, noise)

    def evaluate(self, name: str, *arguments: Tensor) -> Tensor:
        """What the agents' child `name` makes of arguments [members, ...]."""
        prefix = f"agent.{name}."
        own = {key.removeprefix(prefix): tensor for key, tensor in self.state.items() if key.startswith(prefix)}
        child = self.template.get_submodule(name)
        return vmap(lambda state, *given: functional_call(child, state, given))(own, *arguments)

    def draws(self, rows: int) -> tuple[int, int, int, int]:
        """Shape of the noise of an update with batches of `rows`."""
        return (self.members, self.template.draws, rows, self.template.spec.action_size)

    def _own(self, name: str) -> dict[str, Tensor]:
        """The template's parameters of a child that are to be trained, which under `vmap` no tensor says any more."""
        parameters = dict(self.template.named_parameters())
        return {key: parameters[key].detach() for key in self.trained[name]}

    def _move_targets(self) -> None:
        """The template's `move_targets` in operations that are made for batches of agents."""
        for slow, fast in self.template.slow.items():
            pairs = zip(*(self.template.get_submodule(name).parameters() for name in (slow, fast)), strict=True)
            for target, source in pairs:
                target.add_(self.template.target_rate * (source - target))

    def _update_one(self, state: State, due: tuple[str, ...], columns: dict[str, Tensor], noise: Tensor) -> Metrics:
        return functional_call(self.method, state, ("apply_update", due, Batch(**columns), noise))

    def _choose_one(self, state: State, obs: Tensor, noise: Tensor) -> Tensor:
        return functional_call(self.method, state, ("choose", obs, noise))

    def _intervene_one(self, state: State) -> Tensor:
        return functional_call(self.method, state, ("intervene",))
