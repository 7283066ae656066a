"""The job that removes what killed jobs left on this machine: Ray's sessions and processes, temporary folders, caches.

Nothing is removed without --remove. A Ray that lives, what belongs to another user and every run stay as they are.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from imagegen_dist.cli.command import Switch, flags_help, parse_flags, run_command
from imagegen_dist.commands import name_of
from imagegen_dist.errors import DONE, FAILED
from imagegen_dist.metrics.formatting import count
from imagegen_dist.resources import ray_folder
from imagegen_dist.wording import counted

_JOB = "clean"
_SUMMARY = (
    "List what killed jobs left on this machine, and remove it with --remove: folders and processes of dead Ray "
    "sessions, temporary folders, and with --caches the shards cached from object storage. Running Ray sessions, files "
    "of other users, runs and their W&B folders are never touched."
)

_SETTLED_S = 300.0
"""Seconds for which a Ray's folder must not have changed: one that is being started has no process yet."""

ABANDONED_S = 86_400.0
"""Seconds after which a temporary folder of a job belongs to no job any more."""

_END_S = 5.0
"""Seconds that a process has to end before it is killed."""

_SESSION = re.compile(r"session_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_\d+_\d+")
_RAY_PROGRAM = re.compile(r"^ray(::|-dashboard-)|/ray/(_private|autoscaler|core|dashboard)/")
_TEMPORARY = (
    "imagegen-pack-*",
    "imagegen-film-*",
    "imagegen-ray-*",
    "imagegen-tune-*",
    "imagegen-builtin-*",
    "imagegen-report-*",
)
_SERVERS = ("raylet", "gcs_server")


@dataclass(frozen=True)
class Options:
    """Flags of the job."""

    remove: Switch = False
    """Remove what is listed. Default: list only."""
    caches: Switch = False
    """Include cached shards, which the next training fetches again."""


@dataclass(frozen=True)
class Leftover:
    """Something that a job left behind."""

    # What it is, in words.
    kind: str
    # Its path, or the number and name of the process.
    name: str
    # Bytes that it takes on disk.
    size: int
    # Removes it; raises OSError where that cannot be done.
    remove: Callable[[], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """`imagegen clean`: returns the exit code, as named in errors.py."""
    return run_command(_JOB, arguments, lambda _: flags_help(Options, _JOB, _SUMMARY), _run)


def _run(words: Sequence[str]) -> int:
    options = parse_flags(Options, _JOB, words)
    failed = 0
    found = list(_leftovers(options.caches))
    for each in found:
        print(f"{each.kind:<16}{f'{count(each.size)}B':>8}  {each.name}", flush=True)
        if options.remove:
            try:
                each.remove()
            except OSError as error:
                failed += 1
                print(f"{name_of(_JOB)}: {each.name} was not removed ({error.strerror or error})", file=sys.stderr)
    if not found:
        print("nothing is left behind")
        return DONE
    total = f"{counted(len(found), 'leftover')}, {count(sum(each.size for each in found))}B"
    if options.remove:
        print(f"{total}: {f'{failed} could not be removed' if failed else 'removed'}")
    else:
        print(f"{total}: --remove removes {'it' if len(found) == 1 else 'them'}")
    return FAILED if failed else DONE


def _leftovers(caches: bool = False) -> Iterator[Leftover]:
    """What is left behind, processes first. caches: the cached shards as well."""
    using = _processes_by_session(ray_folder())
    dead = [session for session, processes in using.items() if not any(map(_is_server, processes))]
    for session in dead:
        if not _answers(session):
            for process in filter(_is_own_ray_process, using[session]):
                yield Leftover("Ray process", f"{process.pid} {_title(process)}", 0, _ending(process))
    yield from _sessions(ray_folder(), using)
    for pattern in _TEMPORARY:
        for folder in sorted(Path(tempfile.gettempdir()).glob(pattern)):
            if _is_own_folder(folder) and time.time() - _last_change(folder) > ABANDONED_S:
                yield _folder("temporary folder", folder)
    if not caches:
        return
    from imagegen_dist.data.cache import cached_files, node_path  # it imports torch

    if files := cached_files(node_path("")):
        yield Leftover("cached shards", str(node_path("")), sum(size for size, _ in files), _unlinking(files))


def _sessions(folder: Path, using: Mapping[Path, Sequence[psutil.Process]]) -> Iterator[Leftover]:
    """The folders of this user's sessions that no Ray uses. using: the processes of each session."""
    for session in sorted(folder.glob("session_*")):
        if not _SESSION.fullmatch(session.name) or not _is_own_folder(session):
            continue
        is_used = any(map(_is_server, using.get(session, ()))) or _answers(session)
        if not is_used and time.time() - _last_change(session) > _SETTLED_S:
            yield _folder("Ray session", session)


def _processes_by_session(folder: Path) -> dict[Path, list[psutil.Process]]:
    """The processes of this machine that belong to a session of Ray's in that folder, by the session's own."""
    found: dict[Path, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            for session in _sessions_of(process):
                if session.parent != folder:
                    continue
                found.setdefault(session, []).append(process)
    return found


def _sessions_of(process: psutil.Process) -> set[Path]:
    """The sessions that a process names on its command line, or whose logs it writes."""
    command = process.cmdline()
    places = list(command)
    if command and command[0].startswith(("ray::", "ray-dashboard-")):  # which says nothing else
        descriptors = Path(f"/proc/{process.pid}/fd")
        places += [os.readlink(descriptor) for descriptor in descriptors.iterdir()]
    matches = [(place, match) for place in places if (match := _SESSION.search(place))]
    return {Path(place[: match.end()].rpartition("=")[2]) for place, match in matches}


def _is_server(process: psutil.Process) -> bool:
    """True if a session lives by this process."""
    with suppress(psutil.Error):
        return any(name in process.name() for name in _SERVERS) and process.status() != psutil.STATUS_ZOMBIE
    return False


def _is_own_ray_process(process: psutil.Process) -> bool:
    """True for a process that Ray has started for this user, and not for one that reads a log of a session, say."""
    with suppress(psutil.Error):
        return process.uids().real == os.getuid() and any(map(_RAY_PROGRAM.search, process.cmdline()))
    return False


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())[:100]
    return "?"


def _ending(process: psutil.Process) -> Callable[[], None]:
    def end() -> None:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
            try:
                process.wait(_END_S)
            except psutil.TimeoutExpired:
                process.kill()

    return end


def _answers(session: Path) -> bool:
    """True if a raylet or its store listens at a socket of the session: in a container that shares this folder, say."""
    for path in (path for name in ("raylet*", "plasma_store*") for path in (session / "sockets").glob(name)):
        with socket.socket(socket.AF_UNIX) as asked, suppress(OSError):
            asked.settimeout(1)
            asked.connect(str(path))
            return True
    return False


def _is_own_folder(path: Path) -> bool:
    """True if this is a folder of this user's, and no link to one."""
    with suppress(OSError):
        return path.is_dir() and not path.is_symlink() and path.lstat().st_uid == os.getuid()
    return False


def _last_change(folder: Path) -> float:
    """When something in the folder, or it itself, was written last."""
    return max((status.st_mtime for status in _statuses(folder)), default=time.time())


def _folder(kind: str, path: Path) -> Leftover:
    def remove() -> None:
        shutil.rmtree(path)
        latest = path.with_name("session_latest")
        if latest.is_symlink() and not latest.exists():
            latest.unlink()

    return Leftover(kind, str(path), sum(status.st_size for status in _statuses(path)), remove)


def _statuses(folder: Path) -> Iterator[os.stat_result]:
    for path in (folder, *folder.rglob("*")):
        with suppress(OSError):
            yield path.lstat()


def _unlinking(files: Iterable[tuple[int, Path]]) -> Callable[[], None]:
    def remove() -> None:
        for _, path in files:
            path.unlink(missing_ok=True)

    return remove
