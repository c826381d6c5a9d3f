"""Export a run's policy, normaliser included, to ONNX and torch.export, each checked against the agent's own actions."""

import importlib.util
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from steelyard import envs
from steelyard.agents.errors import SteelyardError
from steelyard.envs.vector import VectorEnv
from steelyard.trainers import plain
from steelyard.trainers.errors import run_script
from steelyard.trainers.evaluation import Actor, evaluation_seed
from steelyard.trainers.restore import Which, restore

TOLERANCE = 1e-5
"""Largest difference between an exported action and the agent's, in units of the range [-1, 1]."""
OBSERVATIONS = 1_000


class ExportError(SteelyardError):
    """A policy cannot be exported, or its file acts differently from the agent."""


@dataclass(frozen=True)
class Export:
    """Export a run's policy, normaliser included, to ONNX and torch.export, each checked against the agent's own actions.

    The files take raw observations `obs` [rows, obs_size], float32 or stacks of uint8 frames, without what critics alone saw in training, and give
    deterministic actions `action` [rows, action_size] in [-1, 1], for any number of rows.
    """

    folder: tyro.conf.Positional[Path]
    """Folder of the run: runs/TASK/PRESET/seed_N."""
    out: Path | None = None
    """Folder for policy.onnx and policy.pt2; default: the run's own folder `export`."""
    formats: tuple[Literal["onnx", "pt2"], ...] = ("onnx", "pt2")
    """What to write. ONNX needs the extra `export`."""
    checkpoint: Which = "last"
    """Last or best checkpoint."""


def export(options: Export) -> list[Path]:
    """Writes and checks the files; returns their paths. Raises `ExportError` if one of them acts differently."""
    run = plain.load(options.folder / "config.json")
    env = envs.make(
        run.task,
        8,
        action_repeat=run.action_repeat,
        vectorization=run.evaluation_vectorization,
        pictures=run.pictures,
        distractors=run.distractors,
    )
    agent, env_steps = restore(options.folder, run, env.spec, options.checkpoint)
    obs = agent.spec.shown(gather_observations(agent, env, OBSERVATIONS, evaluation_seed(run.seed)))
    env.close()
    expected = agent.act(obs, explore=False)
    paths = []
    for kind in options.formats:
        path = (options.out or options.folder / "export") / f"policy.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        notes = {"task": run.task, "preset": run.preset, "env_steps": str(env_steps), "action_repeat": str(run.action_repeat)}
        difference = check(WRITERS[kind](agent.policy().eval(), obs[:2], path, notes), obs, expected)
        if not difference <= TOLERANCE:
            raise ExportError(f"{path} differs from the agent by {difference:.1e} on {len(obs)} observations; do not use it.")
        print(f"{path}  largest difference from the agent on {len(obs):,} observations: {difference:.1e}")
        paths.append(path)
    return paths


def write_pt2(policy: nn.Module, obs: Tensor, path: Path, notes: dict[str, str]) -> Callable[[Tensor], Tensor]:
    """Writes a torch.export archive and returns what it computes once it is read again."""
    program = torch.export.export(policy, (obs,), dynamic_shapes=({0: torch.export.Dim("rows")},))
    torch.export.save(program, path, extra_files=notes)
    module = torch.export.load(path).module()
    return lambda x: module(x)


def write_onnx(policy: nn.Module, obs: Tensor, path: Path, notes: dict[str, str]) -> Callable[[Tensor], Tensor]:
    """Writes an ONNX file and returns what onnxruntime computes with it. Raises `ExportError` if a package is missing."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"ONNX needs {', '.join(missing)}; run `pip install 'steelyard[export]'` or use --formats pt2.")
    import onnxruntime

    # The exporter remarks that torchvision is missing and trips over torch's own deprecations: nothing a user could act on.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            policy,
            (obs,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("rows")},),
            input_names=["obs"],
            output_names=["action"],
            external_data=False,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(notes)
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(np.asarray(session.run(["action"], {"obs": x.numpy()})[0]))


WRITERS = {"onnx": write_onnx, "pt2": write_pt2}


@torch.no_grad()
def check(exported: Callable[[Tensor], Tensor], obs: Tensor, expected: Tensor) -> float:
    """Largest difference from the expected actions, with all rows at once and with one row; NaN counts as infinite."""
    difference = torch.cat([exported(obs) - expected, exported(obs[:1]) - expected[:1]]).abs()
    return float(difference.nan_to_num(torch.inf).max())


@torch.no_grad()
def gather_observations(agent: Actor, env: VectorEnv, count: int, seed: int) -> Tensor:
    """Observations [count, obs_size] that the deterministic policy meets."""
    seen = [env.reset(seed)]
    while len(seen) * env.num_envs < count:
        seen.append(env.step(agent.act(seen[-1], explore=False)).obs)
    return torch.cat(seen)[:count]


def main() -> None:
    """Reads the command line."""
    export(tyro.cli(Export))


if __name__ == "__main__":
    run_script(main)
