"""The next step's samples are copied during the present one: their order, their contents, and errors of the loader."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from imagegen_dist.data.stream import Item
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.training.prefetch import ahead, copied, one_ahead


def items(count: int, broken_at: int = -1) -> Iterator[Item]:
    for step in range(count):
        if step == broken_at:
            raise ShardError(f"step {step} is damaged")
        numbers = torch.full((1, 2, 3), step)
        held_out = Item(step, numbers.to(torch.uint8), None, numbers, {}, []) if step % 2 else None
        yield Item(step, numbers.to(torch.uint8), numbers, numbers, {"bytes": step}, [], held_out)


@dataclass
class Engine:
    """Copies late: an item that is used before it was finished is all zeros."""

    events: list[str] = field(default_factory=list)

    def begin(self, item: Item) -> tuple[Item, list[tuple[Tensor, Tensor]]]:
        self.events.append(f"begin {item.step}")
        sent: list[tuple[Tensor, Tensor]] = []

        def send(tensor: Tensor) -> Tensor:
            sent.append((torch.zeros_like(tensor), tensor))
            return sent[-1][0]

        return copied(item, send), sent

    def finish(self, begun: tuple[Item, list[tuple[Tensor, Tensor]]]) -> Item:
        item, sent = begun
        self.events.append(f"finish {item.step}")
        for target, source in sent:
            target.copy_(source)
        return item


def test_each_copy_begins_before_the_step_before_it_and_ends_before_its_own() -> None:
    engine = Engine()
    for step, item in enumerate(one_ahead(items(4), engine)):
        engine.events.append(f"train {step}")
        assert (item.step, item.counters) == (step, {"bytes": step})
        assert (item.sample == step).all()
        assert (item.label == step).all()
        assert (item.held_out is not None) == bool(step % 2)
        assert item.held_out is None or (item.held_out.sample == step).all()
    trained = [("begin 0", "begin 1", "finish 0", "train 0"), ("begin 2", "finish 1", "train 1")]
    trained += [("begin 3", "finish 2", "train 2"), ("finish 3", "train 3")]
    assert engine.events == [event for step in trained for event in step]


@pytest.mark.parametrize("count", [0, 1])
def test_short_streams_end(count: int) -> None:
    assert [item.step for item in one_ahead(items(count), Engine())] == list(range(count))


def test_steps_before_a_damaged_one_are_taken_first() -> None:
    stream = one_ahead(items(4, broken_at=2), Engine())
    assert [next(stream).step, next(stream).step] == [0, 1]
    with pytest.raises(ShardError, match="step 2"):
        next(stream)


def test_on_the_cpu_no_item_is_taken_before_it_is_asked_for() -> None:
    source = items(3)
    given = next(ahead(source, torch.device("cpu")))
    assert (given.step, next(source).step) == (0, 1)
