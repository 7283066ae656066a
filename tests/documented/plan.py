"""How each documented command is run here: as printed, but for a small budget and for places that do not exist here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.pages import PAGES, ROOT, sections, shell_lines

BY_HAND = (
    (r"(aws|gcloud) ", "needs an account of that cloud; tests/cluster has stand-ins"),
    (r"kubectl ", "needs Kubernetes"),
    (r"(docker|nano) ", "needs Docker or an editor"),
    (r"export RAY_AUTH_MODE=token RAY_AUTH_TOKEN", "needs Kubernetes"),
    (r"(sbatch|scancel|tail -F) ", "needs Slurm; tests/cluster/test_slurm.py runs it"),
    (r"ray (up|down|exec|attach|dashboard) ", "needs a cluster; tests/cluster/test_local_up.py"),
    (r"ray (start|job stop) ", "a Ray by hand; tests/cluster/test_job_submit.py runs it"),
    (r"(sudo|ln|cat|uv) ", "changes the machine, or needs an index of packages"),
    (r"(python[\d.]* -m venv|\S*pip install) (?!.*&& (imagegen|python))", "installs; .ci/run does it"),
    (r"pip install .*&& pytest", "the whole test suite"),
    (r"(make|pre-commit) ", "minutes; CI"),
    (r"git switch ", "two states of the code"),
    (r"python benchmarks/(structure|data\.py --against)", "two states of the code"),
    (
        r"python (-m )?benchmarks[/.](?!shuffle|little_data --report|operators|prediction$|scaling --order)",
        "minutes or hours",
    ),
    (r"PYTHONPATH=. python benchmarks/gpu|pytest .*tests/gpu", "needs a GPU; tests/test_gpu_script.py runs the script"),
    (r"python tests/mutants.py *(--no-ray|$)", "an hour"),
    (r"source .*zsh", "needs zsh"),
    (r"imagegen-spot-watch", "watches until it is stopped; tests/cli/test_spot.py"),
    (r"imagegen serve ", "serves until it is stopped; tests/serving"),
    (r"imagegen .*(clips|moving-digits-1|scans)", "no clips or scans are here; tests/data has them"),
    (r"imagegen evaluate .*dinov2", "needs weights of DINOv2"),
    (r".*r3gan-ffhq64.safetensors", "needs a published file; tests/lineage/test_published_r3gan.py has a stand-in"),
    (r"python$", "no command"),
)  # fmt: skip
"""Commands that this script does not run, and why."""

_PROGRAMS = (
    *("imagegen", "imagegen-spot-watch", "python", "python3.12", "pip", "pytest", "make", "git", "pre-commit", "uv"),
    *("ray", "aws", "gcloud", "kubectl", "docker", "sbatch", "scancel", "sudo", "tail", "nano", "cat", "ln"),
    *("source", "export", "(umask", "PYTHONPATH=.", "~/venv/bin/pip"),
)
"""First words of the lines that are commands."""

REPLACED = (
    (r"pip install .*?&& ", "", "installed before"),
    (r"^ray job submit .*?-- +", "", "the job's own command, without a cluster"),
    (r"--workers 2:8 --gpus 1 --cpus 4", "--workers 1:2", "without GPUs"),
    (r"^(?!.*--dry-run)(.*)--workers 2:8", r"\1--workers 1:2", "fewer workers"),
    (r"CHECKPOINT DEST", "runs/digits-1 DEST", "a run"),
    (r"r3gan-ffhq256(.*)--data /data/faces", r"r3gan-ffhq256\1--data data/faces256", "pictures of 256×256"),
    (r"/data/faces", "data/faces", "a folder here"),
    (r"/shared/runs", "shared/runs", "a folder here"),
    (r"gs://", "s3://", "S3 in place of Google's storage"),
    (r"--at 128000", "--at 240", "a checkpoint that exists"),
    (r"s3://bucket/inception.safetensors", "inception.safetensors", "a file here"),
    (r"(lpips.*) HASH", r"\1 $(sha256sum lpips.safetensors | cut -c-64)", "random weights"),
    (r" HASH", " $(sha256sum inception.safetensors | cut -c-64)", "random weights"),
    (r"(runs/vae-1 --data) s3://bucket/faces/val", r"\1 digits-val/digits-v1/val", "a VAE of digits"),
    (r"(stable-diffusion/vae|r3gan-latent256 --data.url) latents", r"\1 latents256", "beside other latents"),
    (r"PRESET", "vae-gan", "a preset"),
    (r" &$", "", ""),
    (r"\[SCENARIO \.\.\.\]", "", ""),
)
"""(pattern, what stands there instead, why)."""

_PREPARED = (
    (r"data pack shards shards-of-two", "imagegen data pack glyphs shards --folders style/digit --workers 0"),
    (r"data index shards", "rm shards/index.json shards/made_by.json"),
    (r"runs/digits-2$", "cp -r other/digits-2 runs/digits-2"),
    (r"config.fish", "mkdir -p ~/.config/fish/completions"),
    (r"--lpips|--objective.lpips", "python -m tests.documented.lpips_weights lpips.safetensors"),
)
"""(pattern, what is run before such a command)."""

_FOUR = "32,32,32,32"
_WIDTHS = {
    "r3gan-ffhq64": f"{_FOUR},16",
    "r3gan-ffhq256": f"{_FOUR},16,16,16",
    "r3gan-latent256": _FOUR,
    "dcgan": "32,32,16,16",
}
_STEPS = "--training.batch-size 8 --training.microbatch-size 4 --training.total-images 32 --training.compile false"
_FIGURES = "--evaluation.samples 64 --evaluation.classifier-images 1000 --evaluation.searched 200"
_TRIALS = (
    "--trials 2 --training.batch-size 24 --training.microbatch-size 24 --training.total-images 96 "
    "--training.report-every 48 --evaluation.every 48"
)


@dataclass(frozen=True)
class Step:
    """A line of a page: where it is, what is run in its place, and what that changes.

    by_hand: why it is not run; "" for one that is. before: a command that is run first. expected: its exit code.
    """

    page: str
    section: str
    printed: str
    run: str = ""
    changes: tuple[str, ...] = ()
    before: str = ""
    by_hand: str = ""
    expected: int = 0

    @property
    def in_checkout(self) -> bool:
        """True if it is run at the root of the repository."""
        return "benchmarks" in self.run or "tests/" in self.run


def plan() -> list[Step]:
    """A step for each command of each page, in their order. Raises ValueError for a line that is no known command."""
    return [
        step_of(page.relative_to(ROOT).as_posix(), section, line)
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for section, text in sections(page.read_text())
        for line in command_lines(text)
    ]


def command_lines(text: str) -> Iterator[str]:
    """The lines of a page's text that are commands."""
    for line in shell_lines(text):
        if (found := re.match(r" *(\S+)( \S|$)", line)) and found[1] in _PROGRAMS:
            yield re.sub(r"\s+#.*", "", line.strip())


def step_of(page: str, section: str, line: str) -> Step:
    """How a command is run."""
    for pattern, why in BY_HAND:
        if re.match(pattern, line):
            return Step(page, section, line, by_hand=why)
    command, changes = line, list[str]()
    for pattern, instead, why in REPLACED:
        changed = re.sub(pattern, instead, command)
        if changed != command and why:
            changes.append(why)
        command = changed
    if budget := budget_of(command):
        changes.append(f"`{budget}`")
    expected = 0
    if re.search(r"imagegen sweep .*--address", command):
        expected = 2
        changes.append("nothing answers there: one line, exit code 2")
    before = " && ".join(first for pattern, first in _PREPARED if re.search(pattern, command))
    return Step(page, section, line, f"{command} {budget}".strip(), tuple(changes), before, expected=expected)


def budget_of(command: str) -> str:
    """The flags that make a command small; "" for one that is."""
    words = shlex.split(command, comments=True)
    if "--dry-run" in words or "--help" in words or "--print-completion" in words or "--address" in words:
        return ""
    if re.search(r"imagegen train |python jobs/train_", command):
        return _of_a_training(words)
    if "sweep" in words:
        return "" if "--resume" in words else _TRIALS
    if "evaluate" in words:
        return "--samples 64"
    return ""


def _of_a_training(words: list[str]) -> str:
    if "--fork-from" in words:
        return "--training.total-images 576"
    begins = words[2] if len(words) > 2 and not words[2].startswith("-") else ""
    if "--config" in words:
        return "--training.total-images 144"
    if not begins and "--run" in words and "--init-from" not in words and "jobs" not in words[1]:
        return "--training.total-images +48"
    budget = f"{_STEPS} {_FIGURES}"
    if begins.startswith("my_package"):
        return ""
    if "--init-from" in words and begins in ("r3gan-ffhq256", "kl-f8"):  # too many pixels for two cores
        return f"--dry-run --model.widths {_WIDTHS[begins]}" if begins in _WIDTHS else "--dry-run"
    if begins.startswith("kl-"):  # VGG judges 256 × 256 pixels
        few = "--training.batch-size 2 --training.microbatch-size 2 --training.total-images 2"
        return f"{few} --training.compile false --evaluation.samples 0 --model.channels 32 --model.multipliers 1,1,1,1"
    if begins.endswith("-dsprites"):  # every value of a factor has to occur twice among the held-out samples
        return f"{budget.replace('samples 64', 'samples 200')} --data dsprites:2000"
    return f"{budget} --model.widths {_WIDTHS[begins]}" if begins in _WIDTHS else budget


def begun_anew(command: str) -> list[str]:
    """Places that a command writes anew, which must not exist: the run of a training, what is packed or exported."""
    words = shlex.split(command, comments=True)
    if "--dry-run" in words or "--address" in words:
        return []
    if re.search(r"imagegen (data pack|encode)|make_shards.py|imagegen export", command):
        source = words.index("pack") + 1 if "pack" in words else 2
        return [words[source + 1].rstrip("/")]
    new_run = "--run" in words and re.search(r"train (?!--run)|train_gan.py", command)
    if new_run:
        at = words.index("--storage") + 1 if "--storage" in words else 0
        return [f"{words[at] if at else 'runs'}/{words[words.index('--run') + 1]}"]
    return []


def folder_of(place: str, work: Path, buckets: Path) -> Path:
    """The folder on this machine of a path or of a URL of the server."""
    return buckets / place.removeprefix("s3://") if place.startswith("s3://") else work / place
