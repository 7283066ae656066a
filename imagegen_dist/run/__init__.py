"""One run in its directory: resume, train, evaluate, publish. Called by every rank; independent of Ray."""

from imagegen_dist.run.context import Events, Outcome, RunError, SilentEvents
from imagegen_dist.run.session import execute

__all__ = ["Events", "Outcome", "RunError", "SilentEvents", "execute"]
