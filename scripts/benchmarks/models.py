"""Dynamics models: the suite's batched ensemble, and beside it the same model as a plain loop over members."""

import copy
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.peers import IMAGINED, MODEL_ROWS
from benchmarks.window import Subject, repeat
from steelyard.agents.agent import Execution
from steelyard.agents.networks import MLP
from steelyard.agents.parts import Ensemble, ValueGradient
from steelyard.agents.parts.model_fit import Transitions, tensors
from steelyard.agents.sac import SAC
from steelyard.agents.types import Spec

BATCH = 256


def model(
    work: Literal["fit", "imagine"],
    objective: Literal["likelihood", "vagram"],
    plain: bool,
    compile: bool,
    precision: Literal["fp32", "bf16"],
    spec: Spec,
    device: str,
) -> Subject:
    """Member-rows a second of a fit's steps, or imagined transitions a second, with seven members of 4 x 200."""
    generator = torch.Generator().manual_seed(0)
    obs, noise = torch.randn(2, MODEL_ROWS, spec.obs_size, generator=generator)
    action, reward = spec.random_action(MODEL_ROWS, generator), torch.randn(MODEL_ROWS, generator=generator)
    data = Transitions(*(given.to(device) for given in (obs, action, reward, obs + 0.1 * noise)))
    ensemble = Ensemble() if objective == "likelihood" else Ensemble(objective=ValueGradient())
    agent: Any = SAC(critic=MLP((256, 256)), actor=MLP((256, 256)), model=ensemble).build(
        spec, num_envs=1, total_updates=1, seed=0, device=device, execution=Execution(precision=precision, compile=compile)
    )
    inputs, target = tensors(agent.model, data)
    known = agent.model.objective.know(agent, data.next_obs, agent.model.generator)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    loop = Loop(ensemble, spec, agent.model.objective, device)

    def fit() -> None:
        rows = torch.randint(MODEL_ROWS, (ensemble.members, BATCH), device=device)
        if plain:
            loop.step(inputs, target, known, rows)
        else:
            agent.model.run_step(inputs[rows], target[rows], known[rows])

    def imagine() -> None:
        given = data.obs[:IMAGINED]
        if plain:
            loop.imagine(agent, given)
        else:
            agent.model.imagine(agent, given)

    action_of, amount = (fit, ensemble.members * BATCH) if work == "fit" else (imagine, IMAGINED)
    for _ in range(3):
        action_of()
    wait()
    return repeat(action_of, amount, wait)


class Loop:
    """The same members as modules of their own with torch's Adam, one after the other, nothing compiled."""

    def __init__(self, ensemble: Ensemble, spec: Spec, objective: Any, device: str):
        sizes = (spec.obs_size + spec.action_size, *ensemble.hidden, (spec.obs_size + 1) * objective.outputs_per_target)
        self.objective, self.elites = copy.deepcopy(objective), ensemble.elites
        self.members = [nn.Sequential(*layers(sizes)).to(device) for _ in range(ensemble.members)]
        decay = ensemble.weight_decay[0]
        self.optimizers = [torch.optim.Adam(member.parameters(), 1e-3, weight_decay=decay) for member in self.members]
        self.scale, self.late = torch.ones(spec.obs_size + 1, device=device), torch.tensor(9, device=device)

    def step(self, inputs: Tensor, target: Tensor, known: Tensor, rows: Tensor) -> None:
        """A step of every member on its own rows."""
        for member, optimizer, own in zip(self.members, self.optimizers, rows, strict=True):
            batch = (given[None] for given in (member(inputs[own]), target[own]))
            loss = self.objective.loss(*batch, self.scale, known[own][None], self.late).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @torch.no_grad()
    def imagine(self, agent: Any, obs: Tensor) -> None:
        """One step of all rows; each elite predicts its share."""
        action = agent.act(obs, explore=True)
        inputs = torch.cat((obs, action), -1)
        order = torch.randperm(len(obs), device=obs.device)
        result = torch.empty(len(obs), obs.shape[1] + 1, device=obs.device)
        for member, own in zip(self.members, order.chunk(self.elites), strict=False):
            noise = torch.randn(len(own), obs.shape[1] + 1, device=obs.device)
            result[own] = self.objective.draw(member(inputs[own]), noise)
        agent.model.terminates(obs + result[:, :-1])


def layers(sizes: tuple[int, ...]) -> list[nn.Module]:
    """Linear layers with SiLU between them."""
    built: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        built += [nn.Linear(inputs, outputs), nn.SiLU()]
    return built[:-1]
