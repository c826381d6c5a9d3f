"""Train on the dm-control suite: `python scripts/train_dmc.py simba-v2 --task walker-run --seed 0`."""

from steelyard.trainers import command_line, presets
from steelyard.trainers.errors import run_script
from steelyard.trainers.online import train


def main() -> None:
    """Read the command line, train, and print where the results are."""
    run, launch = command_line.read({**presets.DMC, "demo": presets.DEMO}, "Train on dm-control suite tasks, named domain-task.")
    print(train(run, launch.root, launch.fresh))


if __name__ == "__main__":
    run_script(main)
