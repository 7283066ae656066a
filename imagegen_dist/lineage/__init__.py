"""Where a run begins if it does not begin from new weights: from other weights, or from another run's checkpoint."""
