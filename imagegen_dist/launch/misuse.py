"""What a user's mistake is raised as."""


class UsageError(ValueError):
    """A user's mistake: one line that names the value, what is allowed, and what to change."""
