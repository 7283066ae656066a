"""What a run measured and where it is shown: sums on the device, distances, sinks, console, report."""
