"""An ensemble of learned dynamics: the occupant of the slot `model` that MBPO (Janner et al. 2019) and VaGraM are made of."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value  # pyright: ignore[reportUnknownVariableType]

from steelyard.agents.errors import SlotError
from steelyard.agents.networks.dynamics import DynamicsNetwork
from steelyard.agents.networks.linear import matrix_precision
from steelyard.agents.optimizer import Adam
from steelyard.agents.parts.model_fit import FitRecord, Transitions, fit
from steelyard.agents.parts.model_objective import Likelihood, SquaredError
from steelyard.agents.parts.part import Part
from steelyard.agents.parts.value_aware import ExactTaylor, IterVAML, ValueGradient
from steelyard.agents.random_streams import resume
from steelyard.agents.types import Batch, Spec

if TYPE_CHECKING:
    from steelyard.agents.value_learner import ValueLearningAgent

ModelObjective = Likelihood | SquaredError | ValueGradient | ExactTaylor | IterVAML
Termination = Callable[[Tensor], Tensor]
"""Turns raw observations [rows, obs_size] into whether each is terminal, [rows] bool."""

SEED = 10
"""Offset of the model's random stream from that of the agent's updates."""


def never(obs: Tensor) -> Tensor:
    """No state is terminal."""
    return torch.zeros(obs.shape[0], dtype=torch.bool, device=obs.device)


@dataclass(frozen=True)
class Ensemble:
    """Several networks that predict the change of the observation, and the reward, from observation and action."""

    members: int = 7
    """Number of networks."""
    elites: int = 5
    """How many of them, the best on data held out, are imagined with."""
    hidden: tuple[int, ...] = (200, 200, 200, 200)
    """Width of each hidden layer."""
    objective: ModelObjective = field(default_factory=Likelihood)
    """What the networks are fitted to."""
    normalized_targets: bool = False
    """Predict standardised targets. Published models predict raw ones; inputs are always standardised."""
    optimizer: Adam = field(default_factory=lambda: Adam(1e-3))
    """Optimiser of the fits; its moments persist between them."""
    weight_decay: tuple[float, ...] = (1e-5,)
    """L2 penalty inside the loss, one for all layers or one per layer; MBPO's authors: 2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4."""
    batch_size: int = 256
    """Rows per member and step."""
    holdout: float = 0.2
    """Share of the rows held out, drawn anew at each fit."""
    holdout_limit: int | None = 5_000
    """Most rows held out (5,000 in MBPO's code); None for no limit (VaGraM's code and mbrl-lib)."""
    patience: int = 5
    """A fit ends after so many epochs in which no member's score improved by more than a hundredth."""
    epochs: int = 200
    """Most epochs of a fit."""
    fresh_share: float = 0.0
    """Share of every batch whose action, next observation and reward are replaced by the present policy's and the model's (MAD-TD: 0.05)."""

    def __post_init__(self) -> None:
        if not 1 <= self.elites <= self.members:
            raise SlotError(
                f"Ensemble has {self.elites} elites of {self.members} members; give from one to as many as there are."
            )
        if self.optimizer.final_learning_rate is not None:
            raise SlotError("the learning rate of Ensemble's fits is constant; leave its final_learning_rate None.")
        if len(self.weight_decay) not in (1, len(self.hidden) + 1):
            raise SlotError(
                f"Ensemble has {len(self.weight_decay)} weight decays for {len(self.hidden) + 1} layers; give one, or one per layer."
            )
        if not all(0 <= decay < math.inf for decay in self.weight_decay):
            raise SlotError(f"weight_decay of Ensemble is {self.weight_decay}; give zero or more.")
        if not all(width >= 1 for width in self.hidden):
            raise SlotError(f"hidden of Ensemble is {self.hidden}; give each layer one unit or more, or no layers.")
        if not 0 < self.holdout < 1 or not 0 <= self.fresh_share < 1:
            raise SlotError(
                f"Ensemble has holdout {self.holdout} and fresh_share {self.fresh_share}; give a holdout between 0 and 1, "
                "and a fresh_share from 0 to less than 1."
            )
        for name in ("batch_size", "holdout_limit", "patience", "epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SlotError(f"{name} of Ensemble is {value}; give one or more.")

    def held_out(self, rows: int) -> int:
        """How many of so many rows are held out."""
        return max(min(int(self.holdout * rows), self.holdout_limit or rows), 1)

    def build(self, spec: Spec) -> "DynamicsEnsemble":
        """The part."""
        return DynamicsEnsemble(self, spec)


class Imagined(NamedTuple):
    """One imagined step of many rows."""

    action: Tensor
    """[rows, action_size]."""
    next_obs: Tensor
    """[rows, obs_size] raw."""
    reward: Tensor
    """[rows] raw."""
    terminated: Tensor
    """[rows] bool."""


class DynamicsEnsemble(Part):
    """The part that `Ensemble` describes.

    Its weights are no part of the agent's update: `refit` moves them, whenever whoever trains the agent says so. They, the optimiser, the
    statistics and the random stream are saved with the agent.
    """

    input_mean: Tensor
    input_scale: Tensor
    target_mean: Tensor
    target_scale: Tensor
    elites: Tensor
    fits: Tensor

    def __init__(self, config: Ensemble, spec: Spec):
        super().__init__()
        self.config, self.spec = config, spec
        inputs, targets = spec.obs_size + spec.action_size, spec.obs_size + 1
        self.objective = config.objective.build(targets)
        self.network = DynamicsNetwork(inputs, targets * self.objective.outputs_per_target, config.hidden, config.members)
        self.adam = config.optimizer.build(self.weights(), 1)
        self.requires_grad_(False)
        for name, size in (("input", inputs), ("target", targets)):
            self.register_buffer(f"{name}_mean", torch.zeros(size, dtype=torch.float64))
            self.register_buffer(f"{name}_scale", torch.ones(size, dtype=torch.float64))
        self.register_buffer("elites", torch.arange(config.elites))
        self.register_buffer("fits", torch.zeros((), dtype=torch.int64))
        self.terminates: Termination = never
        """Which imagined observations are terminal; whoever knows the task sets it."""
        self.draws = 1 if config.fresh_share else 0
        self.generator = torch.Generator()
        self.bf16 = False
        """Whether matrix products are bfloat16, as the agent's."""

    def begin(self, agent: "ValueLearningAgent") -> None:
        """A random stream of its own, and compiled forms of a fit's step and of an imagined one."""
        if agent.spec.frames:
            raise SlotError("an ensemble predicts observations, and those of this task are pictures; use the model NoModel.")
        if self.config.fresh_share and (agent.model_draw is None or agent.value_learner.n_step > 1):
            raise SlotError(
                "fresh_share imagines one step with a policy's noise; use SAC, TD3 or another agent with a policy, and n_step 1."
            )
        seed = agent.generators["update"].initial_seed() + SEED
        self.generator = torch.Generator(agent.device).manual_seed(seed)
        self.bf16 = agent.bf16
        self.run_step, self.run_imagine = agent.compiled_for_batches(self.step), agent.compiled_for_batches(self.imagine_rows)

    def weights(self) -> dict[str, Tensor]:
        """Detached parameters that a fit moves, by name."""
        named = [
            (f"{child}.{name}", p)
            for child in ("network", "objective")
            for name, p in self.get_submodule(child).named_parameters()
        ]
        return {name: parameter.detach() for name, parameter in named}

    def output(self, x: Tensor, chosen: Tensor | None = None) -> Tensor:
        """What the networks say [members, rows, outputs] of standardised inputs [members, rows, inputs]; of the members `chosen`, or all."""
        with matrix_precision(x.device, self.bf16):
            return self.network(x, chosen)

    def forward(self, x: Tensor, target: Tensor, known: Tensor) -> Tensor:
        """The loss of a batch, summed over members so that each learns as it would alone: mean of the objective and half of the L2 penalty."""
        loss = self.objective.loss(self.output(x), target, self.target_scale.float(), known, self.fits).mean(-1).sum()
        layers = zip(self.network.weights, self.network.biases, strict=True)
        for decay, (weight, bias) in zip(itertools.cycle(self.config.weight_decay), layers, strict=False):
            loss = loss + 0.5 * decay * (weight.square().sum() + bias.square().sum())
        return loss + self.objective.penalty()

    def evaluate(self, weights: dict[str, Tensor], x: Tensor, target: Tensor, known: Tensor) -> Tensor:
        """The loss as a function of the weights."""
        return functional_call(self, weights, (x, target, known))

    def step(self, x: Tensor, target: Tensor, known: Tensor) -> Tensor:
        """One step of Adam on rows [members, batch, ...] of standardised inputs and targets; returns the loss. One graph."""
        with torch.no_grad():
            weights = self.weights()
            gradient, value = grad_and_value(self.evaluate)(weights, x, target, known)
            self.adam.step(weights, gradient)
            return value

    def score(self, x: Tensor, target: Tensor, known: Tensor) -> Tensor:
        """[members] mean score on rows [rows, ...] that all members see."""
        x, target, known = (rows.expand(self.config.members, *(-1 for _ in rows.shape)) for rows in (x, target, known))
        return self.objective.score(self.output(x), target, self.target_scale.float(), known, self.fits).mean(-1)

    def standardize(self, obs: Tensor, action: Tensor) -> Tensor:
        """The networks' inputs [..., obs_size + action_size] for raw observations and actions."""
        return ((torch.cat((obs, action), -1) - self.input_mean) / self.input_scale).float()

    def predict(self, obs: Tensor, action: Tensor, chosen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean next observations [members, rows, obs_size] and rewards [members, rows] for rows [rows, ...]; of the members `chosen`, or all."""
        count = self.config.members if chosen is None else len(chosen)
        output = self.output(self.standardize(obs, action).expand(count, -1, -1), chosen)
        target = self.objective.mean(output) * self.target_scale.float() + self.target_mean.float()
        return obs + target[..., :-1], target[..., -1]

    @torch.no_grad()
    def refit(self, agent: "ValueLearningAgent", data: Transitions, report: Callable[[int, Tensor], None]) -> FitRecord:
        """Fit all members to the data, from the weights of the fit before; see `model_fit.fit`."""
        return fit(cast(Any, self), agent, data, report)

    def imagine(self, agent: "ValueLearningAgent", obs: Tensor, explore: bool = True) -> Imagined:
        """One step of the policy in the model from raw observations [rows, obs_size]; each row is predicted by an elite drawn for it.

        All elites get equally many rows, so the rows must be a multiple of them. `explore`: draw the policy's actions, or take its mode.
        """
        rows, device = len(obs), self.generator.device
        shape = (2, rows, max(self.spec.action_size, self.spec.obs_size + 1))
        noise = torch.randn(shape, generator=self.generator, device=device)
        order = torch.randperm(rows, generator=self.generator, device=device)
        with matrix_precision(device, self.bf16):
            action = agent.act(obs, False) if not explore else agent.run_act(obs, noise[0, :, : self.spec.action_size])
        return Imagined(action, *self.run_imagine(obs, action, order, noise[1, :, : self.spec.obs_size + 1]))

    def imagine_rows(self, obs: Tensor, action: Tensor, order: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Next observations, rewards and terminations of rows; `order` [rows] is a permutation that says which elite predicts which row."""
        with torch.no_grad():
            x = self.standardize(obs, action)[order].view(self.config.elites, -1, self.network.weights[0].shape[1])
            output = self.output(x, self.elites).flatten(0, 1)
            target = torch.empty_like(noise).index_copy(0, order, self.objective.draw(output, noise))
            target = target * self.target_scale.float() + self.target_mean.float()
            next_obs = obs + target[:, :-1]
            return next_obs, target[:, -1], self.terminates(next_obs)

    def mix(self, agent: "ValueLearningAgent", batch: Batch, noise: Tensor) -> Batch:
        """The batch with its last rows imagined anew, `fresh_share` of them: actions of the present policy, and what the model makes of them.

        Before the first fit the batch stays as it is.
        """
        rows = round(self.config.fresh_share * batch.obs.shape[0])
        if not rows or agent.model_draw is None:
            return batch
        obs = batch.obs[-rows:]
        action = agent.choose(obs, noise[agent.model_draw][-rows:])
        next_obs, reward = self.predict(obs, action, self.elites)
        row = torch.arange(rows, device=obs.device)
        next_obs, reward = next_obs[row % self.config.elites, row], reward[row % self.config.elites, row]
        discount = agent.gamma * (~self.terminates(next_obs)).float()
        real = (batch.action, batch.next_obs, batch.reward, batch.discount, batch.weight)
        fresh = (action, next_obs, reward, discount, (batch.weight[-rows:] > 0).float())
        joined = (
            torch.cat((old[:-rows], torch.where(self.fits > 0, new, old[-rows:]))) for old, new in zip(real, fresh, strict=True)
        )
        action, next_obs, reward, discount, weight = joined
        return batch._replace(action=action, next_obs=next_obs, reward=reward, discount=discount, weight=weight)

    def get_extra_state(self) -> Tensor:
        """The random stream."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """The inverse of `get_extra_state`."""
        resume(self.generator, state)
