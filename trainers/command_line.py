"""How training scripts read their command line: a preset is a subcommand, every field an option, every slot a union that can be swapped."""

import difflib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from steelyard.trainers import shrinking
from steelyard.trainers.config import ConfigError, Run


@dataclass(frozen=True)
class Launch:
    """What to do with a run."""

    root: Path = Path("runs")
    """Folder below which the run's folder TASK/PRESET/seed_N lies."""
    fresh: bool = False
    """Start anew and delete what lies in the run's folder; without it the same command continues an interrupted run."""
    debug: bool = False
    """Shrink everything to a few seconds, to see whether it runs."""


def read(
    presets: Mapping[str, Run],
    description: str,
    arguments: list[str] | None = None,
    for_task: Callable[[str, str], Run] | None = None,
) -> tuple[Run, Launch]:
    """The run and the launch options of a command line (of this process unless given).

    `for_task(preset, task)` is what an option `--task` makes of a preset before the other options; by default nothing else changes.

    Exits with a usage message on a mistake. Raises `ConfigError` for an unknown preset.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    name = next((word for word in arguments if word in presets), None)
    if name is None:
        require_preset(presets, arguments)
        run_type, default = every(presets), tyro.MISSING_NONPROP
    else:
        # The others are left out: to suggest a remedy for a mistyped option tyro would build all of their options, for many seconds.
        place = arguments.index(name)
        arguments = arguments[:place] + arguments[place + 1 :]
        task = named_task(arguments)
        default = presets[name] if for_task is None or task is None else for_task(name, task)
        description, run_type = summary(default), type(default)

    def parse(
        run: Annotated[Any, tyro.conf.arg(name="")] = default,
        launch: Annotated[Launch, tyro.conf.arg(name="")] = Launch(),
    ) -> tuple[Run, Launch]:
        return run, launch

    parse.__annotations__["run"] = Annotated[run_type, tyro.conf.arg(name="")]
    run, launch = tyro.cli(
        parse,
        prog=" ".join(filter(None, (Path(sys.argv[0]).name, name))),
        description=description,
        args=arguments,
        config=(tyro.conf.CascadeSubcommandArgs,),
    )
    return (shrinking.debug(run) if launch.debug else run), launch


def named_task(arguments: list[str]) -> str | None:
    """What a command line gives as `--task`, if it does."""
    words = " ".join(arguments).replace("=", " ").split()
    places = [place for place, word in enumerate(words[:-1]) if word == "--task"]
    return words[places[-1] + 1] if places else None


def every(presets: Mapping[str, Run]) -> Any:
    """The type that makes each preset a subcommand."""
    return tyro.extras.subcommand_type_from_defaults(
        dict(presets), {name: summary(run) for name, run in presets.items()}, prefix_names=False
    )


def require_preset(presets: Mapping[str, Run], arguments: list[str]) -> None:
    """Raises `ConfigError` if a word of a command line without a preset looks like one that was mistyped."""
    for word in arguments:
        close = difflib.get_close_matches(word, presets, n=3, cutoff=0.6)
        if close and not word.startswith("-"):
            raise ConfigError(f"there is no preset {word!r}; did you mean {' or '.join(close)}?")


def summary(run: Run) -> str:
    """One line about a preset."""
    agent = run.agent
    networks = [f"{name} {type(getattr(agent, name)).__name__}" for name in ("actor", "critic") if hasattr(agent, name)]
    return f"{', '.join([type(agent).__name__, *networks])}, on {getattr(run, 'dataset', run.task)}"
