"""Losses: what each phase of a step minimises. Independent of devices, ranks and files."""
