"""A search over an experiment's values, by Ray Tune: every trial is an ordinary run."""
