"""Train in thousands of worlds on the learner's device: `python scripts/train_gpu.py fast-td3 --task walker-walk --seed 0`."""

from steelyard.trainers import command_line
from steelyard.trainers.errors import run_script
from steelyard.trainers.gpu_presets import GPU
from steelyard.trainers.online import train


def main() -> None:
    """Read the command line, train, and print where the results are."""
    description = "Train in worlds that mujoco-warp steps on the learner's device: thousands on a GPU, or a few on a CPU (the presets `*-small`)."
    run, launch = command_line.read(GPU, description)
    print(train(run, launch.root, launch.fresh))


if __name__ == "__main__":
    run_script(main)
