"""Samples travel to a GPU while it computes: the next step's are copied during the present one.

An item is taken from the loader one step ahead of its use. The clock of a run, and with it where it resumes, counts
steps that were taken, so that an item that was copied and never used costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from imagegen_dist.data.stream import Item


class CopyEngine(Protocol):
    """Copies items to a device beside its computations."""

    def begin(self, item: Item) -> Any:
        """Start the copy of an item; returns what `finish` takes. Does not wait."""
        ...

    def finish(self, begun: Any) -> Item:
        """The copied item, which the computations asked for from now on may use. Does not wait on the host."""
        ...


def ahead(items: Iterable[Item], device: torch.device) -> Iterator[Item]:
    """The items with their samples and labels on the device, each copied during the step before its own.

    On the CPU, the items as they are, none of them taken before it is asked for.
    """
    return one_ahead(items, SideStream(device)) if device.type == "cuda" else iter(items)


def one_ahead(items: Iterable[Item], engine: CopyEngine) -> Iterator[Item]:
    """The items in their order, the copy of each begun before the one before it is used.

    An error of the loader is raised once the items before it have been used.
    """
    source = iter(items)
    item = next(source, None)
    begun = None if item is None else engine.begin(item)
    while begun is not None:
        following, failure = None, None
        try:
            item = next(source, None)
            following = None if item is None else engine.begin(item)
        except Exception as error:
            failure = error
        yield engine.finish(begun)
        if failure is not None:
            raise failure
        begun = following


def copied(item: Item, send: Callable[[Tensor], Tensor]) -> Item:
    """The item with copies of its samples and labels, those of its held-out samples too."""
    label = None if item.label is None else send(item.label)
    held_out = None if item.held_out is None else copied(item.held_out, send)
    return replace(item, sample=send(item.sample), label=label, held_out=held_out)


def _on_device(item: Item) -> Iterator[Tensor]:
    """What `copied` has copied."""
    yield item.sample
    if item.label is not None:
        yield item.label
    if item.held_out is not None:
        yield from _on_device(item.held_out)


@dataclass(frozen=True)
class _Copy:
    item: Item
    done: torch.cuda.Event


class SideStream:
    """Copies through page-locked memory on a CUDA stream of its own.

    The allocators keep each block until the stream that uses it has passed: page-locked ones by the copy that reads
    them, those of the GPU by `record_stream`, since they are made on this stream and used on another.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def begin(self, item: Item) -> _Copy:
        """Start the copy of an item."""
        with torch.cuda.stream(self._stream):
            return _Copy(copied(item, self._sent), self._stream.record_event())

    def finish(self, begun: _Copy) -> Item:
        """The copied item, for which the current stream waits."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(begun.done)
        for tensor in _on_device(begun.item):
            tensor.record_stream(current)
        return begun.item

    def _sent(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(self._device, non_blocking=True)
