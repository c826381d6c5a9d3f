"""How trainable networks still are: measures of units, features, weights and gradients of any agent, taken eagerly and without changing it.

Definitions: fraction of active units as in Ma et al. (2024, arXiv 2310.07418, and its released code); dormant units as in Sokar et al. (2023,
arXiv 2302.12902); ranks as in Roy & Vetterli (2007) and Kumar et al. (2021, arXiv 2010.14498).
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import grad_and_value  # pyright: ignore[reportUnknownVariableType]

from steelyard.agents.networks.hidden import Activity, layered, watched
from steelyard.agents.networks.linear import matrix_precision
from steelyard.agents.networks.matrices import matrices
from steelyard.agents.types import Batch, Metrics

TAU = 0.025
"""Largest score of a dormant unit (Sokar et al.)."""
SATURATED = 0.99
"""Absolute value beyond which tanh passes hardly any gradient."""
SHARE = 0.99
"""Share of the sum of singular values that `rank_99` asks for."""


def active_share(activities: Sequence[Activity]) -> Tensor:
    """Share of outputs above zero, over batch, units and layers. About one half in a fresh network; it is no share of living units."""
    positive = torch.stack([(activity.values > 0).sum() for activity in activities]).sum()
    return positive / sum(activity.values.numel() for activity in activities)


def scores(values: Tensor) -> Tensor:
    """ReDo's score [members, units] of outputs [members, samples, units]: E|a_i| over the mean of that over the units of the layer.

    The scores of a layer without any output are zero.
    """
    size = values.abs().mean(1)
    return size / size.mean(-1, keepdim=True).clamp(min=torch.finfo(size.dtype).tiny)


def dormant_units(values: Tensor, tau: float = TAU) -> Tensor:
    """[members, units] bool: which units of outputs [members, samples, units] have a score of at most `tau`."""
    return scores(values) <= tau


def dormant_share(activities: Sequence[Activity], tau: float = TAU) -> Tensor:
    """Share of units, over layers, that are dormant."""
    dormant = [dormant_units(activity.values, tau) for activity in activities]
    return torch.stack([units.sum() for units in dormant]).sum() / sum(units.numel() for units in dormant)


def ranks(features: Tensor) -> tuple[Tensor, Tensor]:
    """Two ranks of features [members, batch, units], means over members.

    The effective rank exp(-sum p_i log p_i), p_i the singular values over their sum; and the smallest k whose k largest singular values have
    99 % of the sum, which some call stable rank (that is another number, |F|^2 / sigma_1^2). Both need as many samples as units.
    """
    values = singular_values(features.double())
    share = values / values.sum(-1, keepdim=True).clamp(min=1e-300)
    effective = (-torch.xlogy(share, share)).sum(-1).exp()
    # A member without any feature has rank zero.
    effective = torch.where(values.sum(-1) > 0, effective, 0.0)
    enough = (share.cumsum(-1) < SHARE - 1e-12).sum(-1) + 1
    enough = torch.where(values.sum(-1) > 0, enough, 0)
    return effective.mean().float(), enough.double().mean().float()


def singular_values(matrix: Tensor) -> Tensor:
    """[..., min(rows, columns)] in falling order, of matrices [..., rows, columns]."""
    return cast(Any, torch.linalg).svdvals(matrix)


def units(activities: Sequence[Activity], name: str) -> Metrics:
    """What hidden layers show, as `<name>/...`; nothing of what their activation functions give no meaning to."""
    found: Metrics = {}
    for convolution, place in ((False, name), (True, f"{name}_convolutions")):
        here = [activity for activity in activities if activity.layer.convolution == convolution]
        counted = [activity for activity in here if activity.layer.counted]
        scored = [activity for activity in here if activity.layer.scored]
        saturating = [activity for activity in here if activity.layer.activation == "tanh"]
        if counted:
            found[f"{place}/active"] = active_share(counted)
        if scored:
            found[f"{place}/dormant"] = dormant_share(scored)
        if saturating:
            found[f"{place}/unsaturated"] = torch.stack([(a.values.abs() <= SATURATED).float().mean() for a in saturating]).mean()
        if here and not convolution:
            features = here[-1].values
            found[f"{place}/effective_rank"], found[f"{place}/rank_99"] = ranks(features)
            found[f"{place}/feature_norm"] = features.square().sum(-1).sqrt().mean()
    return found


def weights(module: nn.Module, name: str) -> Metrics:
    """Norm of all trained parameters, and the largest singular value of each matrix (of the member where it is largest)."""
    parameters = [p.detach() for p in module.parameters() if p.requires_grad]
    found = {f"{name}/weight_norm": norm(parameters)}
    for matrix in matrices(module):
        found[f"{name}/singular_value/{matrix.name}"] = singular_values(matrix.weight().detach()).amax()
    return found


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of several tensors as one vector."""
    return torch.stack([tensor.float().square().sum() for tensor in tensors]).sum().sqrt()


def activities_of(agent: Any, name: str, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[list[Activity], Metrics]:
    """Hidden layers of the child `name` in the first pass that its loss makes, for a prepared batch, and the metrics of that loss."""
    with torch.no_grad(), watched(agent.get_submodule(name)) as recorders:
        loss, metrics = agent(name, batch, noise, seen)
    found = [activity for recorder in recorders for activity in recorder.activities()]
    return found, {f"{name}_loss": loss, **metrics}


def critic_activities(agent: Any, batch: Batch, noise: Tensor) -> list[Activity]:
    """Hidden layers of the critic, convolutions left out, when it values the actions of a prepared batch; one pass of the critic."""
    with (
        torch.no_grad(),
        matrix_precision(agent.device, agent.bf16),
        watched(agent.critic) as recorders,
    ):
        agent.regression(agent.perceived(batch), noise)
    found = [activity for recorder in recorders for activity in recorder.activities()]
    return [activity for activity in found if not activity.layer.convolution]


def measure(agent: Any, batch: Batch, noise: Tensor) -> Metrics:
    """All measures of every trained child that has matrices, as `<child>/<measure>`, on a prepared batch.

    Features are those of the last hidden layer; the gradient is that of the child's own loss. Nothing of the agent changes.
    """
    found: Metrics = {}
    seen: Metrics = {}
    with torch.no_grad():
        for name in agent.trained:
            module = agent.get_submodule(name)
            activities, metrics = activities_of(agent, name, batch, noise, seen)
            if matrices(module):
                gradient, _ = grad_and_value(agent.evaluate, has_aux=True)(agent.own(name), name, batch, noise, seen)
                gradients = {f"{name}/gradient_norm": norm(list(gradient.values()))}
                found |= units(activities, name) | weights(module, name) | gradients
            batch, metrics = agent.hand_on(name, batch, metrics)
            seen = seen | metrics
    return found


def value_layers(critic: nn.Module) -> list[Any]:
    """The hidden layers that say how trainable a critic is: those of its perceptrons, not of its convolutions."""
    return [layer for _, network in layered(critic) for layer in network.hidden_layers() if not layer.convolution]  # pyright: ignore
