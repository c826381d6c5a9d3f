"""`Agent`: named losses in order, each differentiated only with respect to the child of its name, in one compiled update."""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value  # pyright: ignore[reportUnknownVariableType]

from steelyard.agents.compiling import one_graph
from steelyard.agents.float32_products import fast_float32
from steelyard.agents.networks.dropout import Dropout
from steelyard.agents.networks.linear import matrix_precision
from steelyard.agents.optimizer import Adam, AdamState
from steelyard.agents.parts.part import Part, Watcher
from steelyard.agents.random_streams import resume
from steelyard.agents.types import Batch, Metrics, Spec

Result = TypeVar("Result")


@dataclass(frozen=True)
class Execution:
    """How an update runs; the mathematics is the same."""

    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    """Matrix products in float32 (the reference; convolutions on a GPU in TF32, as torch has it by default) or bfloat16; parameters,
    targets and optimisers stay float32. `auto` takes bf16 where the hardware multiplies it natively."""
    compile: bool = True
    """Compile the update into one graph; False runs the same code eagerly."""

    def autocast_enabled(self, device: torch.device) -> bool:
        """Whether matrix products run in bfloat16 on `device`."""
        return self.precision == "bf16" or (self.precision == "auto" and has_native_bf16(device))


def has_native_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 matrices in hardware. A CPU without it emulates them about a hundred times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # pyright: ignore[reportPrivateUsage]


@contextmanager
def seeded(seed: int) -> Generator[None, None, None]:
    """Torch's own random numbers, which initialise weights, start from `seed` within, and go on as before after."""
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        yield


class Agent(nn.Module):
    """Base of all agents.

    A subclass names its `losses` in the order in which they are applied and defines, for each, a child module of that name and a method
    `<name>_loss(batch, noise, seen) -> (loss, metrics)`; `seen` holds what earlier losses of the same update reported. Learned parts
    follow in the order of `slots`. `slow` maps each target network to the child that it follows. `every` delays a loss, or `slow`, to each
    n-th update.
    """

    losses: tuple[str, ...]
    slots: ClassVar[tuple[str, ...]] = ()
    slow: ClassVar[dict[str, str]] = {}

    def __init__(self, spec: Spec, seed: int, device: torch.device, execution: Execution):
        super().__init__()
        self.spec, self.device, self.execution = spec, device, execution
        self.every: dict[str, int] = {}
        self.target_rate = 1.0
        self.target_period: int | None = None
        """Updates between two moves of the targets, which are then made outside the graph; None moves them in it, whenever "slow" is due. A graph of
        its own for a move that is rare would take longer to compile than it saves."""
        self.target_moves = 0
        self.draws = 0
        """Standard normal draws [draws, batch, action_size] that an update needs."""
        self.update_count = 0
        self.total_updates = 0
        """Updates over which learning rates decay, as far as they were known when it was built."""
        self.generators = {
            name: torch.Generator(device).manual_seed(seed + offset) for name, offset in (("update", 1), ("explore", 2))
        }

    def optimizer_of(self, name: str) -> Adam:
        """The optimiser's configuration for the loss called `name`."""
        raise NotImplementedError

    def finish(self, total_updates: int) -> None:
        """To be called once the children exist: makes target copies and optimisers, moves everything to the device, compiles.

        Learning rates decay over `total_updates`.
        """
        self.total_updates = total_updates
        for slow, fast in self.slow.items():
            self.get_submodule(slow).load_state_dict(self.get_submodule(fast).state_dict())
            self.get_submodule(slow).requires_grad_(False)
        self.trained = (
            *self.losses,
            *(slot for slot in self.slots if any(p.requires_grad for p in self.get_submodule(slot).parameters())),
        )
        self.every |= {slot: cast(Part, self.get_submodule(slot)).interval for slot in self.slots}
        # A delayed loss takes fewer steps than the run has updates, and its learning rate still has to arrive.
        self.optimizers = nn.ModuleDict(
            {
                name: self.optimizer_of(name).build(dict(self.own(name)), total_updates // self.every.get(name, 1))
                for name in self.trained
            }
        )
        self.bf16 = self.execution.autocast_enabled(self.device)
        # In reverse, because an intervention may put something into the networks that other parts then make copies of.
        for part in reversed(self.parts()):
            part.begin(cast(Any, self))
        self.to(self.device)
        self.run_update, self.run_act = self.compiled_for_batches(self.apply_update), self.compiled(self.explore)

    def compiled(self, function: Callable[..., Result]) -> Callable[..., Result]:
        """The function as one compiled graph, or itself if compilation is off."""
        return one_graph(function) if self.execution.compile else function

    def compiled_for_batches(self, function: Callable[..., Result]) -> Callable[..., Result]:
        """`compiled`, with the processor's fastest products of float32 matrices, which for single rows would begin later than they gain."""
        return fast_float32(self.compiled(function), self.device)

    def own(self, name: str) -> dict[str, Tensor]:
        """Detached parameters of the child `name` that are to be trained, by their names in the agent."""
        return {f"{name}.{key}": p.detach() for key, p in self.get_submodule(name).named_parameters() if p.requires_grad}

    def forward(self, name: str, batch: Batch, noise: Tensor, seen: Metrics) -> tuple[Tensor, Metrics]:
        """The loss called `name` and its metrics, with matrix products in the configured precision."""
        with matrix_precision(self.device, self.bf16):
            if name not in self.losses:
                return cast(Part, self.get_submodule(name)).loss(cast(Any, self), batch, noise)
            loss, metrics = getattr(self, f"{name}_loss")(batch, noise, seen)
            return self.regularized(name, loss), metrics

    def hand_on(self, name: str, batch: Batch, reported: Metrics) -> tuple[Batch, Metrics]:
        """What losses after `name` see of the batch, and what of its report is a metric."""
        return batch, reported

    def regularized(self, name: str, loss: Tensor) -> Tensor:
        """The loss called `name` and what the slots add to it."""
        for part in self.parts():
            term = part.regularizer(cast(Any, self), name)
            loss = loss if term is None else loss + term
        return loss

    def evaluate(
        self, parameters: dict[str, Tensor], name: str, batch: Batch, noise: Tensor, seen: Metrics
    ) -> tuple[Tensor, Metrics]:
        """The loss called `name` as a function of the parameters of its child, whose dropout is at work in it and nowhere else."""
        return functional_call(self, parameters | self.dropout_keys(name), (name, batch, noise, seen))

    def dropout_keys(self, name: str) -> dict[str, Tensor]:
        """What the dropout layers of the child `name` make their masks of in its next step."""
        steps = cast(AdamState, self.optimizers[name]).steps
        modules = dict(self.get_submodule(name).named_modules())  # pyright: ignore[reportUnknownArgumentType]
        return {f"{name}.{path}.key": layer.make_key(steps) for path, layer in modules.items() if isinstance(layer, Dropout)}

    def prepare(self, batch: Batch, noise: Tensor) -> Batch:
        """What the losses see of a raw batch, for example normalised observations. `noise` is the update's."""
        return batch

    def apply_update(self, due: tuple[str, ...], batch: Batch, noise: Tensor) -> Metrics:
        """One update of the children in `due`, and of the slow targets if "slow" is due. The whole of it is one graph.

        `no_grad` stands around everything: without it a returned loss still requires gradients and the compiler traces a second backward.
        """
        with torch.no_grad():
            batch = self.prepare(batch, noise)
            for part in self.parts():
                part.refresh(cast(Any, self))
            metrics: Metrics = {}
            for name in self.trained:
                if name not in due:
                    continue
                parameters = self.own(name)
                gradient, (value, more) = grad_and_value(self.evaluate, has_aux=True)(parameters, name, batch, noise, metrics)
                cast(AdamState, self.optimizers[name]).step(parameters, gradient)
                for module in self.get_submodule(name).modules():
                    if hasattr(module, "project"):
                        module.project()  # pyright: ignore[reportCallIssue]
                batch, more = self.hand_on(name, batch, more)
                metrics = metrics | {f"{name}_loss": value} | more
            if "slow" in due:
                self.move_targets()
            return metrics

    def move_targets(self) -> None:
        """target <- target + rate (source - target), for every parameter of the slow children."""
        for slow, fast in self.slow.items():
            for target, source in zip(self.get_submodule(slow).parameters(), self.get_submodule(fast).parameters(), strict=True):
                target.lerp_(source, self.target_rate)

    def due(self, count: int) -> tuple[str, ...]:
        """What update number `count` trains."""
        names = self.trained if self.target_period else (*self.trained, "slow")
        return tuple(name for name in names if count % self.every.get(name, 1) == 0)

    def update(self, batch: Batch) -> Metrics:
        """One gradient update of every loss that is due, from a batch of raw transitions. Metrics are tensors: nothing synchronises."""
        noise = self.draw(batch.obs.shape[0])
        watchers = [part for part in self.parts() if part.watches(self.update_count + 1)]
        if watchers:
            self.show(watchers, batch, noise)
        metrics = self.run_update(self.advance(), batch, noise)
        self.intervene()
        return metrics

    def parts(self) -> list[Part]:
        """The occupants of the slots."""
        return [cast(Part, self.get_submodule(slot)) for slot in self.slots]

    @torch.no_grad()
    def show(self, watchers: Iterable[Watcher], batch: Batch, noise: Tensor) -> None:
        """Let watchers see, as the losses will, the raw batch and the noise of the next update, before it."""
        prepared = self.prepare(batch, noise)
        for watcher in watchers:
            watcher.watch(cast(Any, self), prepared, noise)

    def advance(self) -> tuple[str, ...]:
        """Count one more update and return what it trains."""
        self.update_count += 1
        return self.due(self.update_count)

    @torch.no_grad()
    def intervene(self) -> None:
        """What happens between updates, outside the compiled graph: rare moves of the targets, and the slots' turn."""
        if self.target_period and self.update_count // self.target_period != self.target_moves:
            self.target_moves = self.update_count // self.target_period
            self.move_targets()
        for part in self.parts():
            part.intervene(cast(Any, self), self.update_count)

    def draw(self, size: int) -> Tensor:
        """Standard normal noise [draws, size, action_size] of one update."""
        return torch.randn(self.draws, size, self.spec.action_size, generator=self.generators["update"], device=self.device)

    def act(self, obs: Tensor, explore: bool) -> Tensor:
        """Actions [rows, action_size] in [-1, 1] for raw observations [rows, obs_size]; deterministic unless `explore`."""
        if not explore:
            return self.choose(obs, torch.zeros(obs.shape[0], self.spec.action_size, device=self.device))
        return self.run_act(obs, self.draw_exploration(obs.shape[0]))

    def draw_exploration(self, rows: int) -> Tensor:
        """Standard normal noise [rows, action_size] of one exploratory action in each of `rows` worlds."""
        return torch.randn(rows, self.spec.action_size, generator=self.generators["explore"], device=self.device)

    def explore(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Exploratory actions for raw observations and standard normal noise."""
        return self.choose(obs, noise)

    def choose(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Actions for raw observations and exploration noise; zero noise gives the deterministic action."""
        raise NotImplementedError

    def begin_online(self) -> None:
        """The offline phase is over: tells every module that defines a method of this name."""
        for module in self.children():
            for part in module.modules():
                if hasattr(part, "begin_online"):
                    part.begin_online()  # pyright: ignore[reportCallIssue]

    def get_extra_state(self) -> dict[str, Tensor]:
        """Counters and generator states, as tensors."""
        states = {name: generator.get_state() for name, generator in self.generators.items()}
        return states | {"update_count": torch.tensor(self.update_count)}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `get_extra_state`."""
        self.update_count = int(state["update_count"])
        self.target_moves = self.update_count // (self.target_period or 1)
        for name, generator in self.generators.items():
            resume(generator, state[name])

    def check(self, metrics: Metrics) -> str | None:
        """Name of the first loss that is not finite, or None. Synchronises."""
        losses = {name: value for name, value in metrics.items() if name.endswith("_loss")}
        if bool(torch.stack(list(losses.values())).isfinite().all()):
            return None
        return next(name for name, value in losses.items() if not bool(value.isfinite()))
