"""`check_contract`: random play that proves an environment keeps what `VectorEnv` promises. Run it on every new adapter."""

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from steelyard.agents.types import Spec, Step
from steelyard.envs.vector import EnvError, VectorEnv

FIELDS = ("obs", "next_obs", "reward", "terminated", "truncated", "valid")


def check_contract(env: VectorEnv, *, steps: int | None = None, seed: int = 0, deterministic: bool = False) -> None:
    """Play `env` at random and raise `EnvError`, saying what is broken, unless it keeps the contract.

    Checked: shapes, dtypes and device; that `reset(seed)` determines what follows and that another seed starts elsewhere
    (unless the world is `deterministic`); actions out of bounds, and choices that are not one-hot, refused without harm; the
    meaning of `valid`, `terminated`, `truncated` and of `next_obs` beside `obs`, across episode ends; the horizon; that tensors
    handed out are not written to later; and that a saved state continues exactly. `steps` defaults to a little more than the
    horizon, or 500 without one.
    """
    steps = steps or (env.spec.horizon + 10 if env.spec.horizon else 500)
    _check_spec(env)
    _check_seeding(env, seed, deterministic)
    _check_refusals(env, seed)
    _check_play(env, seed, steps, deterministic)
    _check_state(env, seed)


def _check_spec(env: VectorEnv) -> None:
    _require(isinstance(env, VectorEnv), f"{type(env).__name__} lacks a method or attribute of VectorEnv")
    _require(isinstance(env.spec, Spec) and dataclasses.is_dataclass(env.spec), "spec must be a steelyard.agents.types.Spec")
    _require(isinstance(env.device, torch.device), "device must be a torch.device")
    cells = math.prod(env.spec.picture or (env.spec.obs_size,))
    _require(
        cells == env.spec.obs_size, f"spec.picture {env.spec.picture} has {cells} cells, and observations {env.spec.obs_size}"
    )
    _require(0 < env.spec.visible <= env.spec.obs_size, f"policies cannot see {env.spec.visible} of {env.spec.obs_size} numbers")
    frames = env.spec.frames or 1
    _require(frames > 0 and (env.spec.picture or (frames,))[0] % frames == 0, f"a picture cannot consist of {frames} frames")
    _require(env.num_envs > 0 and env.spec.obs_size > 0 and env.spec.action_size > 0, "num_envs and sizes must be positive")


def _check_seeding(env: VectorEnv, seed: int, deterministic: bool) -> None:
    first, again = ([env.reset(seed=seed), *(step.obs for step in _play(env, seed, 30))] for _ in range(2))
    _require(all(map(torch.equal, first, again)), "the same seed and actions must give the same observations")
    if not deterministic:
        other = env.reset(seed=seed + env.num_envs)
        _require(not torch.equal(first[0], other), "another seed must start elsewhere")
        shared = env.reset(seed=seed + 1)[:-1]
        _require(torch.equal(first[0][1:], shared), "world i must start from seed + i")
        worlds = env.num_envs
        _require(worlds == 1 or not torch.equal(first[0][0], first[0][1]), "worlds must start from seeds of their own")


def _check_refusals(env: VectorEnv, seed: int) -> None:
    shape = (env.num_envs, env.spec.action_size)
    good = env.spec.random_action(env.num_envs, torch.Generator().manual_seed(seed)).to(env.device)
    env.reset(seed=seed)
    expected = env.step(good)
    env.reset(seed=seed)
    refused = [
        ("outside [-1, 1]", torch.full(shape, 1.01, device=env.device)),
        ("that are NaN", torch.full(shape, torch.nan, device=env.device)),
        ("of a wrong shape", good[:1].expand(shape[0] + 1, -1)),
    ]
    if env.spec.discrete:
        twice = good + good.roll(1, 1)
        refused += [("that choose nothing", 0 * good), ("that choose twice", twice), ("that choose by halves", twice / 2)]
    for name, bad in refused:
        try:
            env.step(bad)
        except EnvError:
            continue
        raise EnvError(f"contract: actions {name} must be refused with an EnvError.")
    step = env.step(good)
    _require(torch.equal(step.obs, expected.obs), "a refused action must leave the worlds as they were")


def _check_play(env: VectorEnv, seed: int, steps: int, deterministic: bool) -> None:
    obs = env.reset(seed=seed)
    _require(obs.shape == (env.num_envs, env.spec.obs_size), f"reset returned shape {tuple(obs.shape)}")
    _require(obs.dtype == _kind(env.spec) and _placed(env, obs), f"reset returned {obs.dtype} on {obs.device}")
    _check_single(env.spec, obs)
    done = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
    length = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
    ended, resets = 0, set()
    earlier: Step | None = None
    copies: list[Tensor] = []
    for step in _play(env, seed, steps):
        _check_step(env, step)
        _check_frames(env.spec, obs, step)
        obs = step.obs
        if earlier is not None:
            kept = [getattr(earlier, name) for name in FIELDS]
            _require(all(map(torch.equal, kept, copies)), "a tensor handed out was written to by a later call")
            moved = (earlier.obs != earlier.next_obs).any(dim=1)
            _require(
                not bool(moved[done & ~step.valid].any()), "obs must be the last of the episode where the next call resets it"
            )
            started = deterministic or bool(moved[done & step.valid].all())
            _require(started, "obs must be the first of a new episode after an end, or the next row must have valid=False")
        resets.update((~step.valid[done]).tolist())
        _require(len(resets) < 2, "worlds must be reset either always in the call that ends an episode or always in the next")
        _require(bool(step.valid[~done].all()), "valid may be False only in the call after an episode's end")
        length = torch.where(done, 0, length) + step.valid
        done = step.terminated | step.truncated
        _check_horizon(env, step, length)
        ended += int(done.sum())
        earlier, copies = step, [getattr(step, name).clone() for name in FIELDS]
    must_end = env.spec.horizon is not None and steps > env.spec.horizon
    _require(ended > 0 or not must_end, f"no episode ended within {steps} steps although spec.horizon is {env.spec.horizon}")


def _check_step(env: VectorEnv, step: Step) -> None:
    rows, flag = (env.num_envs,), torch.bool
    wide = (env.num_envs, env.spec.obs_size)
    expected = {
        "obs": (wide, _kind(env.spec)),
        "next_obs": (wide, _kind(env.spec)),
        "reward": (rows, torch.float32),
        "terminated": (rows, flag),
        "truncated": (rows, flag),
        "valid": (rows, flag),
    }
    for name, (shape, dtype) in expected.items():
        value = getattr(step, name)
        _require(value.shape == shape, f"step.{name} has shape {tuple(value.shape)} instead of {shape}")
        _require(value.dtype == dtype, f"step.{name} is {value.dtype} instead of {dtype}")
        _require(_placed(env, value), f"step.{name} is on {value.device} instead of {env.device}")
    for name in ("obs", "next_obs", "reward"):
        _require(bool(getattr(step, name).isfinite().all()), f"step.{name} is not finite")
    going_on = ~(step.terminated | step.truncated)
    _require(torch.equal(step.obs[going_on], step.next_obs[going_on]), "next_obs must equal obs where no episode ended")
    reset = ~step.valid
    _require(not bool((step.reward[reset] != 0).any()), "a row that only resets must have reward zero")
    _require(bool(going_on[reset].all()), "a row that only resets must not end an episode")


def _check_frames(spec: Spec, obs: Tensor, step: Step) -> None:
    """Stacks drop their oldest frame and gain one; where an episode begins they are copies of one frame."""
    if spec.frames is None:
        return
    size = spec.obs_size // spec.frames
    follows = (step.next_obs[:, :-size] == obs[:, size:]).all(1)
    _require(bool(follows[step.valid].all()), "the frames of next_obs must be those of the observation before, and a new one")
    begun = ~step.valid | (step.obs != step.next_obs).any(1)
    _check_single(spec, step.obs[begun])


def _check_single(spec: Spec, obs: Tensor) -> None:
    frames = obs.unflatten(1, (spec.frames or 1, -1))
    _require(bool((frames == frames[:, :1]).all()), "an episode must begin with copies of its first frame")


def _kind(spec: Spec) -> torch.dtype:
    return torch.float32 if spec.frames is None else torch.uint8


def _check_horizon(env: VectorEnv, step: Step, length: Tensor) -> None:
    _require(env.spec.can_terminate or not bool(step.terminated.any()), "terminated although spec.can_terminate is False")
    if env.spec.horizon is not None:
        done = step.terminated | step.truncated
        _require(bool(done[length >= env.spec.horizon].all()), f"an episode is longer than spec.horizon = {env.spec.horizon}")


def _check_state(env: VectorEnv, seed: int) -> None:
    state = env.state_dict()
    if state is None:
        return
    first = [getattr(step, name) for step in _play(env, seed, 30) for name in FIELDS]
    env.load_state_dict(state)
    again = [getattr(step, name) for step in _play(env, seed, 30) for name in FIELDS]
    _require(all(map(torch.equal, first, again)), "load_state_dict must continue exactly where state_dict was taken")


def _play(env: VectorEnv, seed: int, steps: int) -> Iterator[Step]:
    """Uniform actions, or choices, from a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield env.step(env.spec.random_action(env.num_envs, generator).to(env.device))


def _placed(env: VectorEnv, value: Tensor) -> bool:
    """Whether `value` is on the device of `env`, which may name "cuda" without a number."""
    return value.device.type == env.device.type and env.device.index in (None, value.device.index)


def _require(kept: bool, sentence: str) -> None:
    if not kept:
        raise EnvError(f"contract: {sentence}.")
