"""How training scripts read their command line: a preset is a subcommand, every field an option, every slot a union that can be swapped."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from steelyard.trainers import config
from steelyard.trainers.config import Run


@dataclass(frozen=True)
class Launch:
    """What to do with a run."""

    root: Path = Path("runs")
    """Folder below which the run's folder TASK/PRESET/seed_N lies."""
    fresh: bool = False
    """Start anew and delete what lies in the run's folder; without it the same command continues an interrupted run."""
    debug: bool = False
    """Shrink everything to a few seconds, to see whether it runs."""


def read(presets: Mapping[str, Run], description: str, arguments: list[str] | None = None) -> tuple[Run, Launch]:
    """The run and the launch options of a command line (of this process unless given). Exits with a usage message on a mistake."""
    choice = tyro.extras.subcommand_type_from_defaults(
        dict(presets), {name: summary(run) for name, run in presets.items()}, prefix_names=False
    )

    def parse(
        run: Annotated[Any, tyro.conf.arg(name="")], launch: Annotated[Launch, tyro.conf.arg(name="")]
    ) -> tuple[Run, Launch]:
        return run, launch

    parse.__annotations__["run"] = Annotated[choice, tyro.conf.arg(name="")]
    run, launch = tyro.cli(
        parse,
        description=description,
        args=sys.argv[1:] if arguments is None else arguments,
        config=(tyro.conf.CascadeSubcommandArgs,),
    )
    return (config.debug(run) if launch.debug else run), launch


def summary(run: Run) -> str:
    """One line about a preset."""
    agent = run.agent
    return f"{type(agent).__name__}, actor {type(agent.actor).__name__}, critic {type(agent.critic).__name__} x {agent.critics}, on {run.task}"
