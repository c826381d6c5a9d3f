"""What an experiment leaves behind: claims as JSON, curves as CSV, a figure, and a page that shows them."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.claim import Claim, Outcome
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


def write(folder: Path, name: str, summary: str, command: str, outcome: Outcome) -> list[Path]:
    """Write `claims.json`, `README.md`, and what there is of curves and tables into the folder, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    claims, curves = outcome.claims, outcome.curves
    paths = [folder / "claims.json", folder / "README.md"]
    paths[0].write_text(json.dumps(plain(name, command, claims), indent=2) + "\n")
    if curves:
        paths += [folder / "curves.csv", folder / "figure.png"]
        with paths[2].open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(("task", "label", "seed", "env_steps", "return"))
            for task, labels in sorted(curves.items()):
                for label, seeds in sorted(labels.items()):
                    for seed, curve in sorted(seeds.items()):
                        points = zip(curve.env_steps, curve.values, strict=True)
                        rows.writerows((task, label, seed, int(step), float(value)) for step, value in points)
        draw(curves, paths[3])
    for title, table in outcome.tables.items():
        paths.append(folder / f"{title}.csv")
        with paths[-1].open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
    lines = [f"# {name}", "", summary, "", "```sh", command, "```", ""]
    lines += ["| the source says | expected | measured (95 % interval) | seeds | holds |", "|---|---|---|---|---|"]
    for claim in claims:
        said = " ".join(filter(None, (claim.sentence, f"({claim.source})", claim.note)))
        lines.append(f"| {said} | {claim.expected} | {claim.measured} | {claim.seeds} | {'yes' if claim.holds else 'no'} |")
    for title, table in outcome.tables.items():
        lines += ["", f"{title}:", "", f"| {' | '.join(table[0])} |", f"|{'---|' * len(table[0])}"]
        lines += [f"| {' | '.join(str(value) for value in row.values())} |" for row in table]
    lines += ["", "![learning curves](figure.png)"] if curves else []
    for title, picture in outcome.pictures.items():
        paths.append(folder / f"{title}.png")
        shutil.copyfile(picture, paths[-1])
        lines += ["", f"![{title}]({title}.png)"]
    paths[1].write_text("\n".join([*lines, ""]))
    return paths
