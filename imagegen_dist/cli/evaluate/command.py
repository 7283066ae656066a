"""`python jobs/evaluate.py`: check what was asked for, measure it, print and store the figures."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from imagegen_dist.cli.evaluate.measuring import evaluate
from imagegen_dist.cli.evaluate.options import JOB, parse
from imagegen_dist.cli.evaluate.outcome import show, write
from imagegen_dist.cli.evaluate.request import prepare
from imagegen_dist.cli.progress import ProgressBar
from imagegen_dist.errors import DONE, FAILED, INTERRUPTED, MISUSED, TaskError
from imagegen_dist.wording import one_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job from its command line; the exit code, as named in errors.py."""
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        with ProgressBar("measuring") as bar:
            bar.phase("opening the model and the data")
            request = prepare(options, bar.phase)
            results = evaluate(request, bar)
        written = write(request, results)
        show(request, results, written, Console(highlight=False, markup=False, emoji=False))
        return DONE
    except ValueError as error:
        return _complain(str(error), MISUSED)
    except TaskError as error:
        return _complain(str(error), FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted: no figure was stored", INTERRUPTED)


def _complain(line: str, code: int) -> int:
    print(f"{JOB}.py: {one_line(line)}", file=sys.stderr)
    return code
