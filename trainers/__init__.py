"""When things happen: replay, the training loop, evaluation, checkpoints and logs."""
