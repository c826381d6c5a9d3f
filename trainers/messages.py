"""What travels between a learner and remote actors: steps of worlds and weights, each as a few plain arrays."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelyard.agents.types import Step

Acted = tuple[Tensor, Tensor, Step]
"""Observations acted on [n, obs_size], actions [n, action_size], and the step that they made."""


class Request(NamedTuple):
    """What an actor is asked for."""

    transitions: int
    """It answers with exactly so many valid rows."""
    random: int
    """How many of them, the first ones, come from uniformly random actions."""
    version: int
    """Of the weights that come with it."""


class Refusal(NamedTuple):
    """An actor's answer if its worlds refuse; nothing that it could be asked for again."""

    words: str
    """One sentence."""


class Chunk(NamedTuple):
    """Some steps of the n worlds of one actor."""

    obs: NDArray[Any]
    """[steps + 1, n, obs_size] the observations acted on, and at the end those to act on next."""
    action: NDArray[np.float32]
    """[steps, n, action_size]"""
    numbers: NDArray[np.float32]
    """[steps, n, 5]: reward, terminated, truncated, valid, and whether the world stepped: beyond a limit it did though the row is not valid."""
    where: NDArray[np.int64]
    """[ends] places `step * n + world` at which the world was reset within its step, so that the successor is not the next observation."""
    next_obs: NDArray[Any]
    """[ends, obs_size] the true successors there."""

    @staticmethod
    def pack(acted: Sequence[Acted], stepped: Sequence[Tensor]) -> "Chunk":
        """Consecutive steps (at least one); `stepped` says which worlds [n] each moved, whether or not its row counts."""
        steps = [step for *_, step in acted]
        following = torch.stack([step.obs for step in steps])
        after = torch.stack([step.next_obs for step in steps])
        where = (following != after).any(-1).flatten().nonzero().flatten()
        numbers = [
            torch.stack((step.reward, step.terminated, step.truncated, step.valid, moved), dim=-1).float()
            for step, moved in zip(steps, stepped, strict=True)
        ]
        tensors = (
            torch.cat((acted[0][0][None], following)),
            torch.stack([action for _, action, _ in acted]).float(),
            torch.stack(numbers),
            where,
            after.flatten(0, 1)[where],
        )
        return Chunk(*(tensor.cpu().numpy() for tensor in tensors))

    def unpack(self) -> tuple[list[Acted], list[Tensor]]:
        """What `pack` was given, but for `Step.info`."""
        # Copies: what Ray hands over is read-only.
        obs, action, numbers, where, next_obs = (torch.from_numpy(np.array(array)) for array in self)
        after = obs[1:].clone()
        after.flatten(0, 1)[where] = next_obs
        reward, *flags = numbers.unbind(-1)
        terminated, truncated, valid, stepped = (flag > 0 for flag in flags)
        acted = [
            (obs[t], action[t], Step(obs[t + 1], after[t], reward[t], terminated[t], truncated[t], valid[t], {}))
            for t in range(len(action))
        ]
        return acted, list(stepped)


def flatten(state: Mapping[str, Tensor]) -> NDArray[np.uint8]:
    """All tensors of a `state_dict`, from any device, as one array of bytes."""
    pieces = [tensor.detach().cpu().contiguous().view(-1).view(torch.uint8) for tensor in state.values()]
    return torch.cat([torch.zeros(0, dtype=torch.uint8), *pieces]).numpy()


def restore(content: NDArray[np.uint8], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `flatten`, for a module whose `state_dict` has the same entries in the same order."""
    sizes = [tensor.numel() * tensor.element_size() for tensor in like.values()]
    pieces = torch.from_numpy(np.array(content)).split(sizes)
    # A copy of each, because a piece need not begin where its dtype may.
    return {
        name: piece.clone().view(tensor.dtype).view(tensor.shape)
        for (name, tensor), piece in zip(like.items(), pieces, strict=True)
    }
