"""What one rank meets in work of its own, as all ranks hear of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from imagegen_dist.distributed import RankError, Stopped, World, process_group, said, together
from tests.ranks import run_ranks

CPU = torch.device("cpu")


def test_what_is_raised_on_one_rank_is_raised_on_all_and_a_stop_before_an_error(tmp_path: Path) -> None:
    run_ranks(2, _meet, str(tmp_path / "meeting"))


def _meet(rank: int, meeting: str) -> None:
    def asked() -> None:
        if rank == 1:
            raise Stopped

    def fails() -> None:
        if rank == 0:
            raise ValueError("odd")

    world = World(rank, 2, heed=asked)
    with process_group(world, meeting):
        assert together(lambda: rank * 10, world, CPU) == rank * 10
        with pytest.raises(RankError, match="ValueError: odd"):
            together(fails, world, CPU)
        with pytest.raises(Stopped):
            together(lambda: list(world.heeding(range(3))), world, CPU)
        with pytest.raises(Stopped):
            together(lambda: fails() if rank == 0 else asked(), world, CPU)


def test_an_error_is_told_without_the_systems_number() -> None:
    missing = FileNotFoundError(2, "No such file or directory", "/nowhere")
    assert said(missing) == "FileNotFoundError: No such file or directory: '/nowhere'"
    assert said(RankError("ValueError: of another\n rank")) == "ValueError: of another rank"
    assert said(ValueError()) == "ValueError: no message"
