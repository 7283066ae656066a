"""The processes of a run, and the few collective operations that they need.

The only file that uses torch.distributed. A single process does not communicate and needs no process group.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from imagegen_dist.wording import described

Result = TypeVar("Result")


Item = TypeVar("Item")


class Stopped(Exception):
    """The run is to stop early, without a failure; raised on all ranks together, or on some within `together`."""


class RankError(RuntimeError):
    """A failure on one rank, as reported to every rank: one line."""


def _go_on() -> None:
    """The default of `World.heed`, for a rank that cannot be asked to stop."""


@dataclass(frozen=True)
class World:
    """The processes of a run, and this one's rank among them.

    rank: 0 <= rank < size. size: number of processes W. local_rank, local_size: the same among the processes of this
    node, whose ranks are contiguous. heed: called between two parts of long work, on this rank only; it raises Stopped
    if the run was asked to stop. Raises ValueError if these are inconsistent.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    heed: Callable[[], None] = field(default=_go_on, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank {self.rank} is not one of {self.size} processes")
        if not (
            0 <= self.local_rank < self.local_size and 0 <= self.rank - self.local_rank <= self.size - self.local_size
        ):
            raise ValueError(
                f"local rank {self.local_rank} of {self.local_size} does not fit rank {self.rank} of {self.size}"
            )

    @property
    def is_main(self) -> bool:
        """True if this process writes the run's records."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """This rank's contiguous share of `count` items; shares differ in size by at most one."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def heeding(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items; raises Stopped before the next one if the run was asked to stop."""
        for item in items:
            self.heed()
            yield item

    def share_of_node(self, count: int) -> range:
        """The contiguous share of `count` items that belongs to this node's ranks."""
        first = self.rank - self.local_rank
        return range(first * count // self.size, (first + self.local_size) * count // self.size)


ALONE = World()
"""A single process that cannot be asked to stop."""


@contextmanager
def process_group(world: World, store_path: str, backend: str = "gloo", timeout_s: float = 120) -> Iterator[None]:
    """A process group for the block; rendezvous through a file at `store_path` that all processes can access."""
    dist.init_process_group(
        backend,
        store=dist.FileStore(store_path, world.size),  # type: ignore[attr-defined]  # public, though not exported by name
        rank=world.rank,
        world_size=world.size,
        timeout=timedelta(seconds=timeout_s),
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def data_parallel(module: nn.Module, world: World, compressed: bool = False) -> nn.Module:
    """Wrap `module` so that its gradients are averaged over the ranks after each backward outside `accumulate`.

    The module's forward must return the loss. Only parameters that require grad at this point are averaged; their
    gradients are then views of the buckets that were averaged. compressed: each rank's gradients are rounded to
    bfloat16 and averaged in it, which halves what the ranks exchange; alone, a rank averages nothing. Do not use
    static_graph: it gives wrong gradients, without an error, for a loss with double backward.
    """
    if world.size == 1:
        return module
    with warnings.catch_warnings():
        # torch 2.13 warns that the default will change; earlier versions do not know the new name.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        wrapped = DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)
    if compressed:
        wrapped.register_comm_hook(None, _average_in_bf16)
    return wrapped


def _average_in_bf16(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """The mean over all ranks of a GradBucket of gradients, exchanged in bfloat16; PyTorch's own refuses the CPU."""
    gradients = bucket.buffer()
    sent = gradients.div(dist.get_world_size()).to(torch.bfloat16)

    def received(reduced: torch.futures.Future[list[Tensor]]) -> Tensor:
        return gradients.copy_(reduced.value()[0])

    return dist.all_reduce(sent, async_op=True).get_future().then(received)


def accumulate(module: nn.Module) -> AbstractContextManager[None]:
    """Gradients accumulate locally in this context; the next backward outside it averages the sum."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def sum_over_ranks(values: Tensor, world: World) -> Tensor:
    """The elementwise sum of every rank's `values`, on every rank."""
    if world.size > 1:
        values = values.clone()
        dist.all_reduce(values, dist.ReduceOp.SUM)
    return values


def same_on_all_ranks(values: Tensor, world: World) -> bool:
    """True if every rank holds the same integers (int64)."""
    if world.size == 1:
        return True
    extremes = torch.cat([values, -values])
    dist.all_reduce(extremes, dist.ReduceOp.MAX)
    highest, negated_lowest = extremes.chunk(2)
    return bool((highest == -negated_lowest).all())


def text_from_main(text: str, world: World, device: torch.device) -> str:
    """Rank 0's `text`, on every rank."""
    return _text_from(0, text, world, device)


def _text_from(source: int, text: str, world: World, device: torch.device) -> str:
    if world.size == 1:
        return text
    data = torch.frombuffer(bytearray(text.encode() or b"\0"), dtype=torch.uint8).to(device)
    length = torch.tensor([len(text.encode())], device=device)
    dist.broadcast(length, source)
    if world.rank != source:
        data = torch.empty(max(int(length), 1), dtype=torch.uint8, device=device)
    dist.broadcast(data, source)
    return bytes(data.tolist()[: int(length)]).decode()


def broadcast_(tensors: Iterable[Tensor], world: World) -> None:
    """Overwrite every rank's tensors with rank 0's, one at a time. Shapes and dtypes must agree between ranks."""
    if world.size > 1:
        for tensor in tensors:
            sent = tensor.detach().contiguous()
            dist.broadcast(sent, 0)
            if sent.data_ptr() != tensor.data_ptr():
                tensor.detach().copy_(sent)


def together(action: Callable[[], Result], world: World, device: torch.device) -> Result:
    """The result of `action` on this rank, once it has returned on every rank. Called by every rank.

    The action must not communicate. If it raises an exception on any rank, every rank raises RankError, so that none
    waits for another; in a world of size 1, the exception itself is raised. If it raises Stopped on any rank, every
    rank raises Stopped.
    """
    if world.size == 1:
        return action()
    failure: Exception | None = None
    try:
        result = action()
    except Exception as error:
        failure = error
    rank = world.size if failure is None else world.rank
    first = torch.tensor([-1 if isinstance(failure, Stopped) else rank], device=device)
    dist.all_reduce(first, dist.ReduceOp.MIN)
    if int(first) < 0:
        raise Stopped from failure
    if int(first) < world.size:
        raise RankError(_text_from(int(first), said(failure), world, device)) from failure
    return result


def said(error: BaseException | None) -> str:
    """An exception as one line: its type and message. A RankError gives those of the original exception."""
    if error is None or isinstance(error, RankError):
        return " ".join(str(error or "").split())
    return described(error)[:500]
