"""Hyper-parameter searches: spaces, plans, trials, results and reports, without Ray."""
