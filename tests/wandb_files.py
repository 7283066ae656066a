"""What an offline run of W&B holds, read back from its file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

_BLOCK = 32768
_FILE_HEADER, _HEADER = 7, 7
_FULL, _LAST = 1, 4
_WRITTEN_S = 10.0


def offline_records(run: Path) -> list[Record]:
    """The records of the one run in W&B's directory of it: LevelDB's log format behind a header of its own.

    A file that W&B's process is still writing may end anywhere: the records that it holds as a whole are returned.
    """
    [path] = run.glob("*.wandb")
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    found, parts, at = [], [], _FILE_HEADER
    while at + _HEADER <= len(data):
        if _BLOCK - at % _BLOCK < _HEADER:  # what is left of a block is padding
            at += _BLOCK - at % _BLOCK
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if at + _HEADER + size > len(data):
            break
        parts.append(data[at + _HEADER : at + _HEADER + size])
        at += _HEADER + size
        if kind in (_FULL, _LAST):
            record = Record()
            record.ParseFromString(b"".join(parts))
            found.append(record)
            parts = []
    return found


def offline_run(run: Path) -> dict[str, Any]:
    """Its id, name, group, job_type, tags, config, rows as they were logged, summary, and whether it was ended.

    "aggregates" says of names (or patterns of names) which values W&B keeps beside the last: "min", "max", "min max".

    W&B's own process may write the last of a run that is finished a moment later: it is waited for.
    """
    deadline = time.monotonic() + _WRITTEN_S
    while not (read := _read(run))["ended"] and time.monotonic() < deadline:
        time.sleep(0.05)
    return read


def _read(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = {"rows": [], "summary": {}, "aggregates": {}, "ended": False}
    for record in offline_records(run):
        match record.WhichOneof("record_type"):
            case "run":
                read |= {"id": record.run.run_id, "name": record.run.display_name, "group": record.run.run_group}
                read |= {"job_type": record.run.job_type, "config": _values(record.run.config.update)}
                read["tags"] = list(record.run.tags)
            case "metric":
                kept = " ".join(name for name in ("min", "max") if getattr(record.metric.summary, name))
                read["aggregates"][record.metric.glob_name or record.metric.name] = kept
            case "history":
                read["rows"].append(_values(record.history.item))
            case "summary":
                read["summary"] |= _values(record.summary.update)
            case "exit":
                read["ended"] = True
    return read


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
