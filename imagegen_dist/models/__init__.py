"""Networks: one file per family, each with its config."""
