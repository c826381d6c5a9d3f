"""Measurements of the suite itself."""

import dataclasses
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

import torch

from benchmarks import shared_replay
from benchmarks.models import model
from benchmarks.plain_pixels import PlainDrQV2
from benchmarks.resident import resident_training
from benchmarks.window import Subject, repeat, serve
from steelyard.agents.agent import Execution
from steelyard.agents.networks import MLP
from steelyard.agents.types import Spec, Step
from steelyard.envs import Pictures, make
from steelyard.envs.pixels import Rendering
from steelyard.envs.warp_envs import WarpEnv
from steelyard.trainers.buffer import Placement, ReplayBuffer
from steelyard.trainers.config import Run
from steelyard.trainers.d4rl_presets import D4RL
from steelyard.trainers.learner import Learner
from steelyard.trainers.online import Online
from steelyard.trainers.pixel_presets import SMALL, of_task
from steelyard.trainers.presets import MINATAR, MUJOCO
from steelyard.trainers.samplers import Uniform
from steelyard.trainers.threads import use

SPEC = Spec(obs_size=17, action_size=6, horizon=1000)
GAME = Spec(obs_size=400, action_size=6, discrete=True, picture=(4, 10, 10))
"""MinAtar's Breakout."""
BATCH, ROWS, MILLION = 256, 100_000, 1_000_000
PICTURES = {"small": (48, 16, 256, 64), "published": (84, 32, 1024, 256)}
"""Sides of pictures, channels, widths and batches of DrQ-v2's two sizes."""
UPDATES_PER_CALL = {"cpu": 1, "cuda": 16}
"""On a GPU several updates are one launch, as in training at replay ratios above one."""


def build(kind: str, threads: int, **options: Any) -> Subject:
    """The subject of one row of a table (`benchmarks.plan`)."""
    use(threads)
    subjects = {
        "updates": updates,
        "offline": offline,
        "end_to_end": end_to_end,
        "game_updates": game_updates,
        "game_training": game_training,
        "pixel_updates": pixel_updates,
        "plain_pixel_updates": plain_pixel_updates,
        "pixel_training": pixel_training,
        "stepping": stepping,
        "bare_stepping": bare_stepping,
        "replay_add": replay_add,
        "replay_sample": replay_sample,
        "replay_shared": shared_replay.reading_and_writing,
        "replay_actors": shared_replay.collecting,
        "model": partial(model, spec=SPEC),
        "resident_training": resident_training,
    }
    return subjects[kind](**options)


def random_step(num_envs: int) -> Step:
    """A step of worlds that go on."""
    obs, never = torch.randn(num_envs, SPEC.obs_size), torch.zeros(num_envs, dtype=torch.bool)
    return Step(obs, obs, torch.randn(num_envs), never, never, ~never, {})


def filled(rows: int, num_envs: int = 1, device: str = "cpu", spec: Spec = SPEC) -> ReplayBuffer:
    """A replay buffer full of random transitions."""
    placement: Placement = "host" if device == "cpu" else "device"
    buffer = ReplayBuffer(spec, rows, num_envs, placement=placement, device=device)
    buffer.data.normal_()
    buffer.data[..., -3:-1], buffer.data[..., -1] = 0, 1
    buffer.cursors.fill_(buffer.rows - 1)
    return buffer


def updates(preset: str, critics: int, compile: bool, precision: Literal["fp32", "bf16"], device: str = "cpu") -> Subject:
    """One update after another, sampling included, as in training."""
    return learning(dataclasses.replace(MUJOCO[preset].agent, critics=critics, batch_size=BATCH), compile, precision, device)


def offline(algorithm: str, compile: bool, precision: Literal["fp32", "bf16"], device: str = "cpu") -> Subject:
    """The same for an offline agent, all networks with two hidden layers of 256."""
    config, layers = D4RL[f"{algorithm}-locomotion"].agent, MLP((256, 256))
    networks = {name: layers for name in ("actor", "critic", "value") if hasattr(config, name)}
    return learning(dataclasses.replace(config, **networks, batch_size=BATCH), compile, precision, device)


def game_updates(preset: str, compile: bool, precision: Literal["fp32", "bf16"], device: str) -> Subject:
    """The same for an agent of MinAtar."""
    return learning(MINATAR[preset].agent, compile, precision, device, GAME)


def learning(
    config: Any, compile: bool, precision: Literal["fp32", "bf16"], device: str, spec: Spec = SPEC, rows: int = ROWS
) -> Subject:
    """One update after another of an agent on replay full of random transitions."""
    execution = Execution(precision=precision, compile=compile)
    agent = config.build(spec, num_envs=1, total_updates=MILLION, seed=0, device=device, execution=execution)
    sampler = Uniform().build(filled(rows, device=device, spec=spec), config.batch_size, config.n_step, agent.gamma, seed=0)
    learner, count = Learner(agent, sampler, Path(mkdtemp())), UPDATES_PER_CALL[device]
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(5):
        learner.update(count)
    wait()
    return repeat(lambda: learner.update(count), count, wait)


def pixel_updates(size: str, compile: bool, device: str) -> Subject:
    """The same for DrQ-v2 on pictures of bytes."""
    side, _, _, batch = PICTURES[size]
    base: Any = SMALL if size == "small" else of_task("cheetah-run")
    config = dataclasses.replace(base.agent, batch_size=batch)
    spec = Spec(9 * side**2, SPEC.action_size, picture=(9, side, side), frames=3)
    return learning(config, compile, "fp32", device, spec, rows=2_000)


def plain_pixel_updates(size: str) -> Subject:
    """The plain form of the same update, with sampling from as many pictures."""
    subject = PlainDrQV2(*PICTURES[size], action_size=SPEC.action_size)
    for _ in range(2):
        subject.update()
    return repeat(subject.update)


def pixel_training() -> Subject:
    """Decisions of the training loop of the small recipe, in frames."""
    return training(SMALL, Execution(compile=False), random_steps=60, amount=SMALL.action_repeat)


def end_to_end(compile: bool, precision: Literal["fp32", "bf16"]) -> Subject:
    """Steps of the training loop: act, step, store, update; without evaluation and checkpoints."""
    return training(MUJOCO["sac"], Execution(precision=precision, compile=compile))


def game_training(num_envs: int, vectorization: Literal["sync", "batch"], compile: bool) -> Subject:
    """The same in MinAtar's Breakout."""
    run = dataclasses.replace(MINATAR["m-dqn"], num_envs=num_envs, vectorization=vectorization)
    return training(run, Execution(compile=compile))


def training(run: Run, execution: Execution, random_steps: int = 300, amount: int = 1) -> Subject:
    """Steps of the training loop of a run, `amount` for each world and turn."""
    run = dataclasses.replace(
        run,
        random_steps=random_steps,
        evaluation_episodes=1,
        threads=torch.get_num_threads(),
        device="cpu",
        execution=execution,
        log_to=(),
    )
    online = Online(run, Path(mkdtemp()))

    def step() -> None:
        online.step()
        online.progress.update(online.env_steps, online.agent.update_count)
        if online.clocks["log"](online.env_steps):
            online.log()

    while online.agent.update_count < 5:
        step()
    return repeat(step, run.num_envs * amount)


def stepping(
    vectorization: str, num_envs: int, task: str = "HalfCheetah-v5", rendering: Rendering | None = None, device: str = "cpu"
) -> Subject:
    """Random actions, resets included."""
    pictures = None if rendering is None else Pictures(rendering=rendering)
    env = make(task, num_envs, vectorization=vectorization, pictures=pictures, device=device)
    env.reset(0)
    generator, kept = torch.Generator().manual_seed(0), min(1000, -(-MILLION // num_envs))
    actions = [env.spec.random_action(num_envs, generator).to(device) for _ in range(kept)]
    state = {"steps": 0}

    def step() -> None:
        env.step(actions[state["steps"] % kept])
        state["steps"] += 1

    return repeat(step, num_envs, torch.cuda.synchronize if device == "cuda" else lambda: None)


def bare_stepping(num_envs: int, task: str, device: str) -> Subject:
    """mujoco-warp's graph of one environment step alone, with random controls; worlds that fall stay down."""
    env = WarpEnv(task, num_envs, device=device)
    env.reset(0)
    simulator = env.simulator
    controls = [(2 * torch.rand(simulator.control.shape) - 1).to(device) for _ in range(min(100, -(-MILLION // num_envs)))]
    state = {"steps": 0}

    def step() -> None:
        simulator.control.copy_(controls[state["steps"] % len(controls)])
        simulator.step()
        state["steps"] += 1

    return repeat(step, num_envs, torch.cuda.synchronize if device == "cuda" else lambda: None)


def replay_add(num_envs: int) -> Subject:
    """Transitions written, one time step of all worlds per call."""
    buffer, step = ReplayBuffer(SPEC, MILLION, num_envs), random_step(num_envs)
    action = torch.rand(num_envs, SPEC.action_size) * 2 - 1
    return repeat(lambda: buffer.add(step.obs, action, step), num_envs)


def replay_sample(batch_size: int) -> Subject:
    """Transitions drawn uniformly and gathered, without compilation."""
    sampler = Uniform().build(filled(MILLION), batch_size, 1, 0.99, seed=0)
    return repeat(sampler.sample, batch_size)


if __name__ == "__main__":
    serve(build)
