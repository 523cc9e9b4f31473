"""One run in one process: the training loop, evaluation, checkpoints and what is recorded of it."""
