"""Train from pixels: `python scripts/train_pixels.py drq-v2-easy --task finger-spin --pictures.rendering fast`."""

from steelyard.trainers import command_line, pixel_presets
from steelyard.trainers.errors import run_script
from steelyard.trainers.online import train


def main() -> None:
    """Read the command line, train, and print where the results are."""
    description = "Train from pixels: dm-control tasks, and Gymnasium's worlds that draw themselves."
    run, launch = command_line.read(pixel_presets.PIXELS, description, for_task=pixel_presets.for_task)
    print(train(run, launch.root, launch.fresh))


if __name__ == "__main__":
    run_script(main)
