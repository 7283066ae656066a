"""What jobs end with: a user's mistake, a task that failed, and the exit codes of all jobs."""

DONE, FAILED, MISUSED, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
"""Exit codes: finished; failed; a user's mistake; stopped by SIGINT or SIGTERM, training after a checkpoint."""


class UsageError(ValueError):
    """A user's mistake: one line that names the value, what is allowed, and what to change."""


class TaskError(Exception):
    """A task that could not be finished, in one line."""
