"""Samples: what they are, where they lie, in which order they come, and how they reach the training loop."""
