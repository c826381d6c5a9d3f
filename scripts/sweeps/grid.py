"""Which runs a sweep consists of: presets x tasks (or data sets) x seeds, with the same further options for all."""

import dataclasses
import difflib
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal

from steelyard import envs
from steelyard.trainers import command_line, gpu_presets, model_presets, pixel_presets, presets, shrinking
from steelyard.trainers.config import ConfigError, Run, Transfer
from steelyard.trainers.d4rl_presets import D4RL, resolve

BenchmarkName = Literal["mujoco", "dmc", "minatar", "pixels", "models", "gpu", "d4rl"]
BENCHMARKS: Mapping[BenchmarkName, Mapping[str, Run]] = {
    "mujoco": presets.MUJOCO,
    "dmc": {**presets.DMC, "demo": presets.DEMO},
    "minatar": presets.MINATAR,
    "pixels": pixel_presets.PIXELS,
    "models": model_presets.MODELS,
    "gpu": gpu_presets.GPU,
    "d4rl": D4RL,
}
"""The presets of each training script, by its name."""
FOR_TASK: Mapping[BenchmarkName, Callable[[str, str], Run]] = {"pixels": pixel_presets.for_task}
"""What makes of a preset that depends on the task the one for another."""


def plan(
    benchmark: BenchmarkName,
    names: Sequence[str],
    tasks: Sequence[str],
    datasets: Sequence[str],
    seeds: Sequence[int],
    further: Sequence[str],
    debug: bool = False,
    suffix: str = "",
) -> list[Run]:
    """The runs, seeds last.

    Args:
        benchmark: Whose presets.
        names: Presets.
        tasks: Tasks; without any, each preset's own.
        datasets: Data sets, for `d4rl`.
        seeds: Training seeds.
        further: Options of the benchmark's training script, the same for all runs.
        debug: Shrink every run to seconds.
        suffix: Appended to the presets' names, to tell runs with further options from those without.

    Raises `ConfigError` if nothing is asked for, something twice, or for an unknown preset; `EnvError` for an unknown task.
    """
    table = BENCHMARKS[benchmark]
    for kind, values in (("presets", names), ("tasks", tasks), ("datasets", datasets), ("seeds", seeds)):
        require_distinct(kind, values)
    for name in names:
        require_known(name, table, benchmark)
    if not names or not seeds:
        raise ConfigError("there is nothing to train; give one of --presets and one of --seeds at least.")
    if bool(datasets) != (benchmark == "d4rl"):
        remedy = "name some with --datasets" if benchmark == "d4rl" else "leave --datasets out, or sweep d4rl"
        raise ConfigError(f"presets of {benchmark} {'need' if benchmark == 'd4rl' else 'take no'} data sets; {remedy}.")
    runs = []
    for name, task, dataset in itertools.product(names, tasks or [None], datasets or [None]):
        by_task = FOR_TASK.get(benchmark) if task else None
        run = with_options(by_task(name, task) if by_task and task else table[name], name, further)
        changes = {"preset": f"{run.preset}-{suffix}" if suffix else run.preset}
        run = dataclasses.replace(run, **changes, **({"task": task} if task else {}), **({"dataset": dataset} if dataset else {}))
        run = resolve(run) if isinstance(run, Transfer) else run
        run = shrinking.debug(run) if debug else run
        runs += [dataclasses.replace(run, seed=seed) for seed in seeds]
    require_tasks(runs)
    return runs


def with_options(run: Run, name: str, further: Sequence[str]) -> Run:
    """The preset `name` with options as its training script reads them. Exits with a usage message on a mistake."""
    if not further:
        return run
    if isinstance(run, Transfer) and not run.dataset:
        # A run without data is refused as soon as it is built; the real one is put in afterwards.
        further = ["--dataset", "named-later", *further]
    changed, launch = command_line.read({name: run}, f"Options of {name}", [name, *further])
    if launch != command_line.Launch():
        raise ConfigError("root, fresh and debug are options of the sweep; give them before the --.")
    return changed


def require_known(name: str, table: Collection[str], benchmark: str) -> None:
    """Raises `ConfigError` for a preset that is not there, with a suggestion."""
    if name not in table:
        close = difflib.get_close_matches(name, list(table), n=3, cutoff=0.5)
        remedy = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(table)}."
        raise ConfigError(f"{benchmark} has no preset {name!r}; {remedy}")


def require_distinct(kind: str, values: Sequence[object]) -> None:
    """Raises `ConfigError` if something is given twice."""
    for value in values:
        if values.count(value) > 1:
            raise ConfigError(f"{kind} has {value} twice; give it once.")


def require_tasks(runs: Iterable[Run]) -> None:
    """Raises `EnvError` for a task that cannot be made here, before anything is queued."""
    for task, repeat, form in sorted({(run.task, run.action_repeat, run.evaluation_vectorization) for run in runs}):
        # Those of a GPU are the same tasks on CPU threads, which need no kernels compiled here.
        envs.make(task, 1, action_repeat=repeat, vectorization="batch" if form == "warp" else form).close()
