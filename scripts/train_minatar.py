"""Train on tasks with a few choices of action: `python scripts/train_minatar.py dvw-m-dqn --task minatar-breakout --seed 0`."""

from steelyard.trainers import command_line, presets
from steelyard.trainers.errors import run_script
from steelyard.trainers.online import train


def main() -> None:
    """Read the command line, train, and print where the results are."""
    description = (
        "Train on MinAtar's games, or on any registered Gymnasium id whose actions are choices (the presets `*-classic`)."
    )
    run, launch = command_line.read(presets.MINATAR, description)
    print(train(run, launch.root, launch.fresh))


if __name__ == "__main__":
    run_script(main)
