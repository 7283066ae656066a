"""Commands for a user to copy: the job as it is installed here, every word quoted for the shell."""

from __future__ import annotations

import shlex
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]


def programs() -> str:
    """How jobs are called from here, with {} for a job's name: scripts of a checkout, else the installed commands.

    A script is named from the working directory where that is the checkout, else by its whole path.
    """
    if not (_CHECKOUT / "jobs").is_dir():
        return "imagegen-{}"
    return "python jobs/{}.py" if Path.cwd() == _CHECKOUT else f"python {shlex.quote(str(_CHECKOUT))}/jobs/{{}}.py"


def command(job: str, *words: object, called: str = "") -> str:
    """The command line of a job. called: as `programs` gives it, of another place. Placeholders are in capitals."""
    return " ".join([_program(job, called or programs()), *(shlex.quote(str(word)) for word in words)])


def name_of(job: str) -> str:
    """What a job is called in a sentence, e.g. "train_gan.py" or "imagegen-train-gan"."""
    return _program(job, programs()).rpartition("/")[2]


def _program(job: str, called: str) -> str:
    return called.replace("{}", job if called.startswith("python") else job.replace("_", "-"))
