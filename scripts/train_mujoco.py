"""Train on Gymnasium tasks: `python scripts/train_mujoco.py sac --task HalfCheetah-v5 --seed 0`."""

from steelyard.trainers import command_line, presets
from steelyard.trainers.errors import run_script
from steelyard.trainers.online import train


def main() -> None:
    """Read the command line, train, and print where the results are."""
    run, launch = command_line.read(presets.MUJOCO, "Train on Gymnasium MuJoCo tasks, or any registered continuous-control id.")
    print(train(run, launch.root, launch.fresh))


if __name__ == "__main__":
    run_script(main)
