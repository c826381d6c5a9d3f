"""Train from data, offline and then online: `python scripts/train_d4rl.py iql-locomotion --dataset hopper-medium-v2`."""

from typing import cast

from steelyard.trainers import command_line
from steelyard.trainers.config import Transfer
from steelyard.trainers.d4rl_presets import D4RL, resolve
from steelyard.trainers.errors import run_script
from steelyard.trainers.online import train
from steelyard.trainers.pipeline import Pipeline


def main() -> None:
    """Read the command line, train, and print where the results are."""
    run, launch = command_line.read(D4RL, "Train from D4RL, Minari or own data: offline, online, or one after the other.")
    print(train(resolve(cast(Transfer, run)), launch.root, launch.fresh, Pipeline))


if __name__ == "__main__":
    run_script(main)
