"""An actor that answers requests: what runs in a Ray actor, on whatever machine."""

import pickle
import socket
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelyard.agents.errors import SteelyardError
from steelyard.envs.vector import VectorEnv
from steelyard.trainers.actor_process import first_of
from steelyard.trainers.messages import Acted, Chunk, Refusal, Request, restore


class RemoteActor:
    """Worlds and a policy. Each call of `collect` goes on where the last one stopped."""

    def begin(self, make_env: Callable[[int], VectorEnv], policy: bytes, num_envs: int, seeds: tuple[int, int]) -> str | Refusal:
        """Build the worlds and the pickled policy, with seeds of the worlds and of the exploration; returns this machine's name."""
        torch.set_num_threads(1)
        try:
            self.env = make_env(num_envs)
            self.obs = self.env.reset(seeds[0])
        except SteelyardError as error:
            return Refusal(str(error))
        self.policy = pickle.loads(policy)
        self.version = -1
        self.generator = torch.Generator().manual_seed(seeds[1])
        return socket.gethostname()

    @torch.no_grad()
    def collect(self, request: Request, weights: NDArray[np.uint8]) -> Chunk | Refusal:
        """Exactly `request.transitions` valid rows, from actions of the policy with these weights (`messages.flatten`)."""
        if request.version != self.version:
            self.policy.load_state_dict(restore(weights, self.policy.state_dict()))
            self.version = request.version
        acted: list[Acted] = []
        stepped: list[Tensor] = []
        written = 0
        try:
            while written < request.transitions:
                explore = written < request.random
                action = (
                    self.env.spec.random_action(self.env.num_envs, self.generator)
                    if explore
                    else self.policy(self.obs, self.generator)
                )
                step = self.env.step(action)
                kept = first_of(step.valid, request.transitions - written)
                acted.append((self.obs, action, step._replace(valid=kept, info={})))
                stepped.append(step.valid)
                written += int(kept.sum())
                self.obs = step.obs
        except SteelyardError as error:
            return Refusal(str(error))
        return Chunk.pack(acted, stepped)
