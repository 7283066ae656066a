"""Metrics and their presentation: sums on the device, distances, sinks, console, report."""
