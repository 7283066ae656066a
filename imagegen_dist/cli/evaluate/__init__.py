"""The job that evaluates a trained model: figures of its samples beside real ones, over the tasks of a cluster."""
