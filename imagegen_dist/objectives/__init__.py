"""Losses: what each phase of a step minimises. Nothing here knows devices, ranks or files."""
