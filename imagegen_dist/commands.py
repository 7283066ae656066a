"""Commands for a user to copy: named as the user called them, every word quoted for the shell."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

PYTHON = "imagegen_dist.{}"
"""How jobs are called in Python, beside what `programs` gives."""

_CHECKOUT = Path(__file__).resolve().parents[1]

_SUBCOMMANDS = {
    "train_gan": "train",
    "train_vae": "train",
    "make_shards": "data pack",
    "index_shards": "data index",
    "check_shards": "data check",
    "spot_watch": "spot-watch",
}
"""Sub-commands of `imagegen` that are not called as the job is."""

_SCRIPTS = {"index_shards": ("make_shards", "--index-only"), "check_shards": ("make_shards", "--check")}
"""Jobs that are another script with a flag."""


_WITHOUT_SCRIPT = ("runs", "spot_watch", "reproduce")
"""Commands that are no script in jobs/."""


def programs() -> str:
    """How jobs are called here, with {} for a job's name: as the user called this one.

    That is `imagegen {}`, `python -m imagegen_dist {}`, `imagegen-{}`, or a script of a checkout, which is named from
    the working directory where that is the checkout, else by its whole path. A process that no command started names
    the scripts of the checkout, or where there is none `imagegen {}`.
    """
    called = Path(sys.argv[0])
    if called.stem == "imagegen":
        return "imagegen {}"
    if called.name == "__main__.py" and called.parent.name == "imagegen_dist":
        return "python -m imagegen_dist {}"
    if called.name.startswith("imagegen-"):
        return "imagegen-{}"
    if not (_CHECKOUT / "jobs").is_dir():
        return "imagegen {}"
    return "python jobs/{}.py" if Path.cwd() == _CHECKOUT else f"python {shlex.quote(str(_CHECKOUT))}/jobs/{{}}.py"


def command(job: str, *words: object, called: str = "") -> str:
    """The command line of a job. called: as `programs` gives it, of another place. Placeholders are in capitals."""
    program, *flags = _program(job, called or programs())
    return " ".join([program, *flags, *(shlex.quote(str(word)) for word in words)])


def name_of(job: str) -> str:
    """What a job is called in a sentence, e.g. "imagegen train", "train_gan.py" or "imagegen-train-gan"."""
    program, *_ = _program(job, programs())
    return program.rpartition("/")[2] if program.endswith(".py") else program


def _program(job: str, called: str) -> tuple[str, ...]:
    """The program of a job as it is called, and the flags that make it that job."""
    if called.endswith(".py") and job.split()[0] in _WITHOUT_SCRIPT:
        called = "python -m imagegen_dist {}"
    if called.endswith(" {}"):
        return (called.replace("{}", _SUBCOMMANDS.get(job, job)),)
    script, *flags = _SCRIPTS.get(job, (job,))
    return (called.replace("{}", script if called.startswith("python") else script.replace("_", "-")), *flags)
