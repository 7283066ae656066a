"""Run what the pages show: `python -m tests.documented [--page docs/data.md] [--only TEXT] [--out FOLDER] [--list]`

Every page gets a copy of a folder with what it presumes (`folder.py`) and an S3 server of its own. Its commands run
there in the page's order, with the changes that `plan.py` makes, and then its Python, section after section. The script
prints a Markdown table: page, command, what was changed to run it, exit code, seconds, last line of output. The whole
output of each is in --out. It exits with 1 where a command ended with another exit code than `plan.py` expects.

It trains some 70 small models: an hour on two cores. It is not part of `pytest`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tests import hub_of_datasets
from tests.documented import folder
from tests.documented.plan import Step, begun_anew, folder_of, plan
from tests.documented.python import python_steps
from tests.pages import ROOT
from tests.s3.server import aws_environment, serving

TIMEOUT_S = 600
HEAD = "| page | command | changed | exit | s | last line |\n|---|---|---|---|---|---|"


class Outcome(NamedTuple):
    """How a command ended. code: None where it did not within TIMEOUT_S."""

    code: int | None
    seconds: float
    output: str

    @property
    def last_line(self) -> str:
        """The last line that is not empty."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return lines[-1] if lines else ""


class Place(NamedTuple):
    """Folders of a page: the reader's own, that of the server's buckets, the home and the temporary files."""

    work: Path
    buckets: Path
    home: Path
    temporary: Path

    def environment(self) -> dict[str, str]:
        """What commands see."""
        paths = os.pathsep.join([str(ROOT), str(self.work)])
        return {
            **os.environ,
            **{"HOME": str(self.home), "TMPDIR": str(self.temporary), "PYTHONPATH": paths, "COLUMNS": "120"},
            **{"WANDB_MODE": "offline", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"},
        }


def run_page(steps: Sequence[Step], place: Place, out: Path) -> int:
    """Run the steps of a page in their order, print a row for each, and return how many failed."""
    failed = 0
    with hub_of_datasets.serving(_repositories(place.work)) as hub:
        environment = {**place.environment(), "HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0"}
        for step in steps:
            if step.by_hand:
                print(row(step, None), flush=True)
                continue
            outcome = run_step(step, place, environment)
            name = f"{step.page.replace('/', '-')}-{len(list(out.iterdir())):03}.txt"
            (out / name).write_text(f"$ {step.run}\n{outcome.output}\n[exit code {outcome.code}]\n")
            failed += outcome.code != step.expected
            print(row(step, outcome), flush=True)
    return failed


def run_step(step: Step, place: Place, environment: dict[str, str]) -> Outcome:
    """Run a step in its page's folder."""
    for made in begun_anew(step.run):
        shutil.rmtree(folder_of(made, place.work, place.buckets), ignore_errors=True)
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        command = _with_more_images(step.run, place)
        script = f"{step.before} >/dev/null && {command}" if step.before else command
        process = subprocess.Popen(
            ["bash", "-c", script],
            **{"cwd": ROOT if step.in_checkout else place.work, "env": environment},
            **{"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, "start_new_session": True},
        )
        code = _wait(process)
        output.seek(0)
        return Outcome(code, time.monotonic() - began, output.read())


def _with_more_images(command: str, place: Place) -> str:
    """With the images that a run is to have in all, where the command is to train it for so many more."""
    if not (more := re.search(r"--training.total-images \+(\d+)", command)):
        return command
    run, storage = re.search(r"--run (\S+)", command), re.search(r"--storage (\S+)", command)
    assert run is not None
    where = folder_of(storage[1] if storage else "runs", place.work, place.buckets) / run[1]
    images = json.loads((where / "result.json").read_text())["images"]
    return command.replace(more[0], f"--training.total-images {images + int(more[1])}")


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _repositories(work: Path) -> hub_of_datasets.Repositories:
    """datasets/OWNER/NAME on a Hub: pictures in folders, their parquet files, and a tar of them."""
    pictures = sorted((work / "pictures").rglob("*.png"))[::5]
    tables = {path.name: path.read_bytes() for path in sorted(work.glob("photos/train-*.parquet"))}
    shard = next((work / "data" / "faces").glob("*.tar"))
    return {
        "datasets/OWNER/NAME": {
            "main": {path.relative_to(work / "pictures").as_posix(): path.read_bytes() for path in pictures},
            "refs/convert/parquet": {f"default/train/{name}": content for name, content in tables.items()},
            "v1.0": {"train/a.tar": shard.read_bytes()},
        }
    }


def row(step: Step, outcome: Outcome | None) -> str:
    """One line of the table."""
    cells = [step.page, f"`{step.printed}`", "; ".join(step.changes)]
    if outcome is None:
        cells += ["–", "", f"not run: {step.by_hand}"]
    else:
        cells += ["none" if outcome.code is None else str(outcome.code), f"{outcome.seconds:.0f}", outcome.last_line]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def copy_place(base: Path, root: Path) -> Place:
    """A page's own copy of the folders; the buckets are those that a server serves."""
    place = Place(root / "work", root / "s3" / "buckets", root / "home", root / "t")
    shutil.copytree(base / "work", place.work, symlinks=True)
    for bucket in (base / "buckets").iterdir():
        shutil.copytree(bucket, place.buckets / bucket.name)
    place.home.mkdir()
    place.temporary.mkdir()
    return place


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="append", default=[], help="only this page; several times for several")
    parser.add_argument("--only", default="", help="only commands that contain this text")
    parser.add_argument("--base", type=Path, help="a folder to keep what the pages presume in, made if it is missing")
    parser.add_argument("--out", type=Path, help="a folder for what each command printed; default: a new one")
    parser.add_argument("--list", action="store_true", help="show what would be run, and run nothing")
    given = parser.parse_args()
    steps = [*plan(), *python_steps()]
    steps = [step for step in steps if given.only in step.printed and step.page in (given.page or [step.page])]
    if given.list:
        print("\n".join(f"{step.page}: {step.by_hand or step.run}" for step in steps))
        return 0
    out = given.out or Path(tempfile.mkdtemp(prefix="documented-out-"))
    out.mkdir(parents=True, exist_ok=True)
    print(f"{HEAD}", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="d-") as made:
        base = given.base or Path(made, "base")
        if not base.exists():
            folder.write_all(base / "work", base / "buckets")
        for page in dict.fromkeys(step.page for step in steps):
            here = [step for step in steps if step.page == page]
            root = Path(tempfile.mkdtemp(dir=made))
            (root / "s3").mkdir()
            if all(step.by_hand for step in here):
                print("\n".join(row(step, None) for step in here), flush=True)
                continue
            with serving(root / "s3") as server, aws_environment(server.endpoint):
                place = copy_place(base, root)
                failed += run_page([replace(step) for step in here], place, out)
            shutil.rmtree(root, ignore_errors=True)
    print(f"\n{failed} commands failed. Outputs: {out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
