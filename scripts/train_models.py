"""Train with a learned model: `python scripts/train_models.py mbpo-hopper --seed 0`."""

from steelyard.trainers import command_line, model_presets
from steelyard.trainers.errors import run_script
from steelyard.trainers.online import train


def main() -> None:
    """Read the command line, train, and print where the results are."""
    run, launch = command_line.read(model_presets.MODELS, "Train with a learned model of the world (MBPO, VaGraM, fresh rows).")
    print(train(run, launch.root, launch.fresh))


if __name__ == "__main__":
    run_script(main)
