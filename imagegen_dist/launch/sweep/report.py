"""The sweep's report.html, from its ledger and the runs of its trials."""

from __future__ import annotations

from collections.abc import Sequence

from imagegen_dist.launch.sweep.ledger import Trial
from imagegen_dist.launch.sweep.plan import SweepPlan


def write_report(plan: SweepPlan, trials: Sequence[Trial], chosen: Trial | None, front: Sequence[Trial]) -> None:
    pass
