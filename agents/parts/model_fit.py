"""How a dynamics ensemble is fitted: bootstraps, rows held out, early stopping, and the best weights of every member."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from steelyard.agents.errors import DivergenceError, SteelyardError

if TYPE_CHECKING:
    from steelyard.agents.parts.ensemble import DynamicsEnsemble
    from steelyard.agents.value_learner import ValueLearningAgent

IMPROVEMENT = 0.01
"""Share of its score by which a member must improve for an epoch to count."""
SMALLEST_SCALE = 1e-8
"""Deviations below this one are taken for one: what does not vary is only shifted."""
FEWEST = 5
"""Transitions without which nothing can be fitted and held out."""
SCORED_TOGETHER = 2_048
"""Held-out rows that all members are scored on at once."""


class ModelError(SteelyardError):
    """A model cannot be fitted. The message is one sentence with the remedy."""


class Transitions(NamedTuple):
    """Everything that a model is fitted to, raw, on the agent's device."""

    obs: Tensor
    """[rows, obs_size]."""
    action: Tensor
    """[rows, action_size]."""
    reward: Tensor
    """[rows]."""
    next_obs: Tensor
    """[rows, obs_size]."""


class FitRecord(NamedTuple):
    """How a fit went."""

    epochs: int
    """Epochs that were made."""
    steps: int
    """Steps of gradient descent."""
    loss: float
    """Mean loss of the last epoch's steps."""
    scores: Tensor
    """[members] scores on the rows held out, of the weights that the members end with."""


def fit(
    model: "DynamicsEnsemble", agent: "ValueLearningAgent", data: Transitions, report: Callable[[int, Tensor], None]
) -> FitRecord:
    """Fit all members of an ensemble, each to its own bootstrap, going on from their weights and moments.

    Input statistics are taken of all rows, in float64. A new hold-out is drawn. After each epoch the members are scored on it, and the fit ends
    after `patience` epochs in which none improved by more than 1 % on its best score, which is at first that before the fit. A member that improved
    ends with the weights of its best epoch. One that never did keeps its last ones and not those before the fit: scores that are mostly noise,
    as under distractors, hardly move while the rest is learned, and fits have to add up. The best members become elites.

    Args:
        model: What is fitted.
        agent: Whose values the objective may ask for.
        data: All rows.
        report: Told the number of each epoch and the members' scores.

    Raises `ModelError` for too few rows, and `DivergenceError` if scores are NaN or infinite.
    """
    config, generator = model.config, model.generator
    rows, device = len(data.obs), data.obs.device
    if rows < FEWEST:
        raise ModelError(
            f"the dynamics model is to be fitted to {rows} {'transition' if rows == 1 else 'transitions'} and needs {FEWEST}; collect more before "
            "the first update with --random-steps, or learn from a larger data set."
        )
    inputs, target = tensors(model, data)
    known = model.objective.know(agent, data.next_obs, generator)
    order = torch.randperm(rows, generator=generator, device=device)
    held = config.held_out(rows)
    held_out, training = order[:held], order[held:]
    size = len(training)
    draw = torch.randint(size, (config.members, size), generator=generator, device=device)
    bootstrap = training[draw]
    batch = min(config.batch_size, size)
    weights = {name: weight for name, weight in model.weights().items() if weight.ndim == 3}  # what each member has of its own
    best = {name: weight.clone() for name, weight in weights.items()}
    now = best_score = score(model, inputs, target, known, held_out)
    require_finite(now, 0)
    ever = torch.zeros_like(now, dtype=torch.bool)
    waited, epoch, steps, loss = 0, 0, 0, torch.zeros((), device=device)
    while epoch < config.epochs and waited < config.patience:
        epoch += 1
        order = torch.randperm(size, generator=generator, device=device)
        # The last batch is filled up from the beginning: all batches have one size, and so one compiled graph.
        shuffled = bootstrap[:, torch.cat((order, order[: -size % batch]))]
        losses: list[Tensor] = []
        for start in range(0, shuffled.shape[1], batch):
            index = shuffled[:, start : start + batch]
            losses.append(model.run_step(inputs[index], target[index], known[index]).clone())
        steps += len(losses)
        loss = torch.stack(losses).mean()
        now = score(model, inputs, target, known, held_out)
        require_finite(now, epoch)
        improved = (best_score - now) / best_score.abs() > IMPROVEMENT
        ever |= improved
        best_score = torch.where(improved, now, best_score)
        best = {name: torch.where(improved[:, None, None], weight, best[name]) for name, weight in weights.items()}
        waited = 0 if bool(improved.any()) else waited + 1
        report(epoch, now)
    for name, weight in weights.items():
        weight.copy_(torch.where(ever[:, None, None], best[name], weight))
    scores = torch.where(ever, best_score, now)
    model.elites.copy_(scores.argsort(stable=True)[: config.elites])
    model.fits.add_(1)
    return FitRecord(epoch, steps, float(loss), scores)


def tensors(model: "DynamicsEnsemble", data: Transitions) -> tuple[Tensor, Tensor]:
    """Renews the statistics and returns standardised inputs [rows, inputs] and targets [rows, targets]."""
    columns = {
        "input": torch.cat((data.obs, data.action), -1),
        "target": torch.cat((data.next_obs - data.obs, data.reward[:, None]), -1),
    }
    for name, column in columns.items():
        if name == "target" and not model.config.normalized_targets:
            continue
        scale = column.double().std(0, correction=0)
        model.get_buffer(f"{name}_mean").copy_(column.double().mean(0))
        model.get_buffer(f"{name}_scale").copy_(torch.where(scale < SMALLEST_SCALE, 1.0, scale))
    target = (columns["target"] - model.target_mean) / model.target_scale
    return model.standardize(data.obs, data.action), target.float()


def score(model: "DynamicsEnsemble", inputs: Tensor, target: Tensor, known: Tensor, rows: Tensor) -> Tensor:
    """[members] mean scores on the given rows."""
    total = torch.zeros(model.config.members, device=inputs.device)
    for start in range(0, len(rows), SCORED_TOGETHER):
        part = rows[start : start + SCORED_TOGETHER]
        total += len(part) * model.score(inputs[part], target[part], known[part])
    return total / len(rows)


def require_finite(scores: Tensor, epoch: int) -> None:
    """Raises `DivergenceError` for scores that are NaN or infinite."""
    finite = scores.isfinite()
    if not bool(finite.all()):
        member = int((~finite).nonzero()[0, 0])
        raise DivergenceError(
            f"the dynamics model diverged: member {member} scores {float(scores[member])} on held-out rows after epoch {epoch} of a fit; "
            "lower agent.model.optimizer.learning_rate, or look for outliers in what was collected."
        )
