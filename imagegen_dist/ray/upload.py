"""What is sent of a checkout to a cluster, and what never is: secrets, and folders of data.

    python -m imagegen_dist.ray.upload .

says how much `ray job submit --working-dir .`, `ray up` or `docker build` would send, and refuses more than 100 MB.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

from imagegen_dist.errors import DONE, MISUSED, UsageError
from imagegen_dist.wording import counted

_SECRETS = (
    ".env",
    ".env.*",
    ".netrc",
    "_netrc",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    ".ssh",
    ".aws",
    ".azure",
    ".gcloud",
    ".kube",
    ".git-credentials",
    ".pypirc",
    ".s3cfg",
    ".boto",
    "credentials.json",
    "service-account*.json",
    "kaggle.json",
)
"""Names of files and folders that hold passwords, tokens and private keys."""

_LARGE = (
    ".git",
    ".venv*",
    "venv",
    "node_modules",
    "runs",
    "shards",
    "wandb",
    "exported",
    "latents",
    "build",
    "dist",
    "*.egg-info",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    ".coverage",
)
"""Names of files and folders that a job makes, downloads or reads from storage."""

NOT_SENT = (*_SECRETS, *_LARGE)
"""Patterns of gitignore's syntax, each for a name in any folder.

The same list is in .gitignore, .rayignore, cluster/runtime_env.yaml, cluster/aws.yaml, cluster/local.yaml and
cluster/Dockerfile.dockerignore, each of which is read by another program.
"""

MOST_BYTES = 100_000_000
"""What a checkout may have; more is a dataset or a run that was left in it."""

_NAMED = 5
_SMALL_BYTES = 1_000_000


def _sent(root: Path, excludes: Sequence[str] = NOT_SENT) -> Iterator[Path]:
    """The files below `root` that a job's working directory would have.

    excludes: patterns beside those of .gitignore and .rayignore.
    """
    found: list[Path] = []
    _dir_travel(root, [_get_excludes(root, list(excludes))], found.append, include_gitignore=True, logger=_SILENT)
    return (path for path in found if path.is_file())


def check_size(root: Path, excludes: Sequence[str] = NOT_SENT, most: int = MOST_BYTES) -> tuple[int, int]:
    """(files, bytes) that would be sent. Raises UsageError above `most` bytes, which names the largest folders."""
    sizes: Counter[str] = Counter()
    count = 0
    for path in _sent(root, excludes):
        place = path.relative_to(root)
        folder = place.parts[0] + "/" * (len(place.parts) > 1)
        sizes[folder] += path.stat().st_size
        count += 1
    total = sum(sizes.values())
    if total > most:
        largest = [f"{name} ({size / 1e6:,.0f} MB)" for name, size in sizes.most_common(_NAMED) if size > _SMALL_BYTES]
        raise UsageError(
            f"{root} would send {total / 1e6:,.0f} MB to every machine, and {most / 1e6:,.0f} MB are allowed: move "
            f"{', '.join(largest)} out of the checkout, or name it in .rayignore"
        )
    return count, total


class _Silent:
    """Ray's notes about which files it leaves out."""

    def info(self, *_: object) -> None: ...

    def warning(self, *_: object) -> None: ...

    def error(self, *_: object) -> None: ...


_SILENT = _Silent()


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m imagegen_dist.ray.upload [FOLDER]`: returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    root = Path(words[0] if words else ".")
    try:
        if len(words) > 1 or not root.is_dir():
            raise UsageError(f"{' '.join(words)}: give one folder, e.g. `python -m imagegen_dist.ray.upload .`")
        count, total = check_size(root)
    except UsageError as error:
        print(f"upload: {error}", file=sys.stderr)
        return MISUSED
    print(f"{counted(count, 'file')} of {total / 1e6:,.1f} MB would be sent")
    return DONE


if __name__ == "__main__":
    raise SystemExit(main())
