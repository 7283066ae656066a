"""The training loop and what it needs: optimizers, weight averages, checkpoints."""
