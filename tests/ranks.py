"""Processes that train together in tests, forked where torch is imported and no thread runs yet: that is quick."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing


def run_ranks(count: int, work: Callable[..., None], *arguments: Any) -> None:
    """Run `work(rank, *arguments)` in so many processes of one thread each; raises what the first to fail raised."""
    multiprocessing.set_forkserver_preload(["tests.runs"])
    torch.multiprocessing.start_processes(_one_thread, (work, *arguments), count, start_method="forkserver")


def _one_thread(rank: int, work: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    work(rank, *arguments)
