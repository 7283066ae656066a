"""Networks, one file a family, each beside its config."""
