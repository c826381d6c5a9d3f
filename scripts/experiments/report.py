"""What an experiment leaves behind: claims as JSON, curves as CSV, a figure, and a page that shows them."""

import csv
import dataclasses
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.claim import Claim
from steelyard.trainers.curves import Curves
from steelyard.trainers.figures import draw
from steelyard.trainers.provenance import describe


def show(claims: list[Claim], console: Console) -> None:
    """The claims as a table."""
    table = Table(show_lines=True)
    for heading in ("the source says", "expected", "measured (95 % interval)", "seeds", "holds"):
        table.add_column(heading)
    for claim in claims:
        said = f"{claim.sentence}\n[dim]{claim.source}[/dim]" + f"\n[bold]{claim.note}[/bold]" * bool(claim.note)
        table.add_row(said, claim.expected, claim.measured, str(claim.seeds), "yes" if claim.holds else "no")
    console.print(table)


def plain(name: str, command: str, claims: list[Claim]) -> dict[str, object]:
    """The claims as plain data."""
    return {
        "experiment": name,
        "command": command,
        "all_hold": all(claim.holds for claim in claims),
        "claims": [dataclasses.asdict(claim) for claim in claims],
        "machine": describe(),
    }


def write(folder: Path, name: str, summary: str, command: str, claims: list[Claim], curves: Curves) -> list[Path]:
    """Write `claims.json`, `curves.csv`, `figure.png` and `README.md` into the folder, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / file for file in ("claims.json", "curves.csv", "figure.png", "README.md")]
    paths[0].write_text(json.dumps(plain(name, command, claims), indent=2) + "\n")
    with paths[1].open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("task", "label", "seed", "env_steps", "return"))
        for task, labels in sorted(curves.items()):
            for label, seeds in sorted(labels.items()):
                for seed, curve in sorted(seeds.items()):
                    rows.writerows(
                        (task, label, seed, int(step), float(value))
                        for step, value in zip(curve.env_steps, curve.values, strict=True)
                    )
    draw(curves, paths[2])
    lines = [f"# {name}", "", summary, "", "```sh", command, "```", ""]
    lines += ["| the source says | expected | measured (95 % interval) | seeds | holds |", "|---|---|---|---|---|"]
    for claim in claims:
        said = " ".join(filter(None, (claim.sentence, f"({claim.source})", claim.note)))
        lines.append(f"| {said} | {claim.expected} | {claim.measured} | {claim.seeds} | {'yes' if claim.holds else 'no'} |")
    paths[3].write_text("\n".join([*lines, "", "![learning curves](figure.png)", ""]))
    return paths
