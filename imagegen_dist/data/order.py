"""Which sample comes when: a pure function of the seed, with no I/O and no history.

An epoch permutes the shards, puts all samples in one line, cuts the line into lanes of neighbours, and shuffles samples
within blocks of a few shards of a lane. Lanes are endless, one epoch after the other. Microbatch i of N owns L/N lanes
and takes their samples in turn, so that sample m of microbatch i is sample m·N + i of the whole run, and the run's
samples [E·n, (E+1)·n) are epoch E: each of the n samples exactly once, with nothing dropped, padded or repeated.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imagegen_dist.wording import counted

IntArray = NDArray[np.int64]

_SHUFFLED = 1 << 22
_AT_ONCE = 1 << 12  # samples whose places are found together

_SHARDS, _ROWS, _BLOCK, _SUBSTITUTE = range(4)
_SPREAD, _SPREAD_ORDER = 16, 17


def keyed_bits(count: int, seed: int, purpose: int, *coordinates: int) -> NDArray[np.uint64]:
    """`count` random 64-bit words that depend on the arguments alone: Philox-4x64-10 (Salmon et al., SC 2011).

    coordinates: at most three. Raw words, since the algorithms of numpy's Generator may change between its versions.
    """
    counter = np.zeros(4, dtype=np.uint64)
    counter[1 : 1 + len(coordinates)] = coordinates
    return np.random.Philox(key=np.array([seed, purpose], dtype=np.uint64), counter=counter).random_raw(count)


def keyed_permutation(count: int, seed: int, purpose: int, *coordinates: int) -> IntArray:
    """A permutation of range(count) that depends on the arguments alone."""
    return np.argsort(keyed_bits(count, seed, purpose, *coordinates), kind="stable")


def spread(count: int, every: int, seed: int) -> IntArray:
    """`count` distinct numbers below `every`, spread evenly and in random order; a pure function, int64 [count].

    The range is divided into `count` runs of neighbours, and one number is drawn from each. Raises ValueError.
    """
    if not 1 <= count <= every:
        raise ValueError(f"a subset of {count} samples; it must have 1 to {every}")
    edges = np.arange(count + 1, dtype=np.int64) * every // count
    drawn = keyed_bits(count, seed, _SPREAD) % np.diff(edges).astype(np.uint64)
    return (edges[:-1] + drawn.astype(np.int64))[keyed_permutation(count, seed, _SPREAD_ORDER)]


@dataclass(frozen=True)
class Plan:
    """All that the order depends on besides the dataset's shards. Raises ValueError where it cannot work."""

    seed: int  # of the order, 0 <= seed < 2^64
    microbatches: int  # N: microbatches that make a step's global batch
    microbatch_size: int  # b: samples of one microbatch
    draws: int  # batches that one step takes
    lanes: int  # L: lanes that an epoch is cut into, a multiple of N
    block: int  # K: shards of a lane within which samples are shuffled

    def __post_init__(self) -> None:
        for name in ("microbatches", "microbatch_size", "draws", "lanes", "block"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed is {self.seed}; it must lie in [0, 2^64)")
        if self.lanes % self.microbatches:
            raise ValueError(
                f"{counted(self.lanes, 'lane')} cannot be shared by {counted(self.microbatches, 'microbatch')}: "
                f"set --data.lanes to a multiple of {self.microbatches}"
            )


def default_block(counts: ArrayLike, lanes: int) -> int:
    """K for lanes whose blocks together hold some four million samples, or all there are where that is less.

    Four million is what mosaicml-streaming's py1e shuffles among on one node by default.
    """
    filled: IntArray = np.asarray(counts, dtype=np.int64)
    filled = filled[filled > 0]
    if filled.size == 0:
        return 1
    return max(1, min(-(-_SHUFFLED * filled.size // (lanes * int(filled.sum()))), -(-filled.size // lanes) + 1))


class Samples(NamedTuple):
    """Where samples come from; arrays of one length, int64."""

    lane: IntArray  # lane that the sample is on
    position: IntArray  # place on that lane, from the run's start
    epoch: IntArray
    shard: IntArray  # number of the shard in the index
    row: IntArray  # number of the sample in its shard
    id: IntArray  # number of the sample in the dataset


class Order:
    """The order of a run over a dataset.

    counts: samples in every shard, zero allowed. Raises ValueError where there are none at all.
    Any place is reached in the time of one epoch's permutation of the shards and of the blocks touched.
    """

    def __init__(self, counts: ArrayLike, plan: Plan) -> None:
        self.plan = plan
        self._counts: IntArray = np.asarray(counts, dtype=np.int64)
        self.samples = int(self._counts.sum())
        if self.samples == 0:
            raise ValueError("a dataset without samples has no order")
        self._offsets: IntArray = np.concatenate([[0], np.cumsum(self._counts)])
        self._filled: IntArray = np.flatnonzero(self._counts)
        self._lanes_each = plan.lanes // plan.microbatches
        owner, place = np.divmod(np.arange(plan.lanes, dtype=np.int64), self._lanes_each)
        self._turn: IntArray = place * plan.microbatches + owner
        self._line = lru_cache(maxsize=4)(self._lay_line)
        self._blocks: dict[int, _Block] = {}
        self._held = np.full((3, plan.lanes), -1, np.int64)  # epoch, first place and end of each lane's block

    def step(self, step: int, microbatches: range) -> Samples:
        """The samples of a step for M of its microbatches, [draws·M·b]: by turn, then microbatch, then sample."""
        return self.steps(range(step, step + 1), microbatches)

    def steps(self, steps: range, microbatches: range) -> Samples:
        """The samples of S steps for M of their microbatches, [S·draws·M·b], one step after the other."""
        draws = self.plan.draws
        turns = np.arange(steps.start, steps.stop, steps.step, dtype=np.int64)[:, None] * draws + np.arange(draws)
        owners = np.arange(microbatches.start, microbatches.stop, dtype=np.int64)
        return self._of_microbatches(turns.reshape(-1, 1, 1), owners[None, :, None])

    def draw(self, position: int, microbatch: int) -> Samples:
        """The b samples of one microbatch at `position` = step · draws + turn."""
        return self._of_microbatches(np.array(position), np.array(microbatch))

    def of_lane(self, lane: int, start: int, count: int) -> Samples:
        """Samples [start, start + count) of an endless lane."""
        return self._at(np.full(count, lane, dtype=np.int64), start + np.arange(count, dtype=np.int64))

    def lane_lengths(self, epochs: int) -> IntArray:
        """Samples that each lane holds after so many epochs, [L]; no two differ by more than one."""
        lanes = self.plan.lanes
        return (epochs * self.samples + lanes - 1 - self._turn) // lanes

    def block(self, lane: int, position: int) -> tuple[IntArray, int]:
        """(shards of the block around a lane's position, position at which the lane's next block begins)."""
        line, place = self._place(lane, position)
        _, low, high = self._block_bounds(line, lane, place)
        first, last = (np.searchsorted(line.starts, [low, high - 1], side="right") - 1).tolist()
        return line.shards[first : last + 1], position + high - place

    def substitutes(self, lane: int, position: int, count: int) -> Samples:
        """`count` samples of the block around a lane's position, each drawn by keyed hash, with replacement."""
        line, place = self._place(lane, position)
        block = self._block(line, lane, place)
        words = keyed_bits(count, self.plan.seed, _SUBSTITUTE, position, lane)
        places = block.low + (words % np.uint64(block.high - block.low)).astype(np.int64)
        shard, row = self._on_line(line, places)
        at = (np.full_like(row, lane), np.full_like(row, position), np.full_like(row, line.epoch))
        return Samples(*at, shard, row, self._offsets[shard] + row)

    def _place(self, lane: int, position: int) -> tuple["_Line", int]:
        """(line of the epoch, place on it) of a lane's position."""
        line = self._line((position * self.plan.lanes + int(self._turn[lane])) // self.samples)
        return line, int(line.lanes[lane] + position - line.passed[lane])

    def _of_microbatches(self, positions: IntArray, owners: IntArray) -> Samples:
        taken = positions * self.plan.microbatch_size + np.arange(self.plan.microbatch_size, dtype=np.int64)
        taken, owners = np.broadcast_arrays(taken, owners)
        place, lane = np.divmod(taken.ravel(), self._lanes_each)
        return self._at(owners.ravel() * self._lanes_each + lane, place)

    def _at(self, lanes: IntArray, positions: IntArray) -> Samples:
        epochs = (positions * self.plan.lanes + self._turn[lanes]) // self.samples
        shards, rows = np.empty_like(epochs), np.empty_like(epochs)
        for epoch in np.unique(epochs).tolist():
            chosen = np.flatnonzero(epochs == epoch)
            lane = lanes[chosen]
            line = self._line(epoch)
            places = line.lanes[lane] + positions[chosen] - line.passed[lane]
            shards[chosen], rows[chosen] = self._on_line(line, self._shuffled(line, lane, places))
        return Samples(lanes, positions, epochs, shards, rows, self._offsets[shards] + rows)

    def _lay_line(self, epoch: int) -> "_Line":
        seed, filled = self.plan.seed, self._filled
        shards = filled[keyed_permutation(filled.size, seed, _SHARDS, epoch)]
        counts = self._counts[shards]
        starts = np.concatenate([[0], np.cumsum(counts)])
        turns = keyed_bits(filled.size, seed, _ROWS, epoch) % counts.astype(np.uint64)
        passed = self.lane_lengths(epoch)
        lanes = np.concatenate([[0], np.cumsum(self.lane_lengths(epoch + 1) - passed)])
        return _Line(epoch, shards, starts, turns.astype(np.int64), lanes, passed)

    def _on_line(self, line: "_Line", places: IntArray) -> tuple[IntArray, IntArray]:
        """(shard, row) of places on an epoch's line."""
        piece = np.searchsorted(line.starts, places, side="right") - 1
        shard = line.shards[piece]
        return shard, (places - line.starts[piece] + line.turns[piece]) % self._counts[shard]

    def _shuffled(self, line: "_Line", lanes: IntArray, places: IntArray) -> IntArray:
        """The places on the line whose samples the lanes' shuffles bring to `places`."""
        found, left = np.empty_like(places), np.arange(places.size)
        while left.size:
            lane, place = lanes[left], places[left]
            epoch, low, high = self._held[:, lane]
            held = (epoch == line.epoch) & (low <= place) & (place < high)
            within = zip(lane[held].tolist(), (place - low)[held].tolist(), strict=True)
            found[left[held]] = low[held] + np.array([self._blocks[each].order[at] for each, at in within], np.int64)
            left = left[~held]
            for first in np.unique(lanes[left], return_index=True)[1].tolist():  # these lanes enter a block
                self._block(line, int(lanes[left[first]]), int(places[left[first]]))
        return found

    def _block(self, line: "_Line", lane: int, place: int) -> "_Block":
        """The block of a lane that holds `place`; the last one of each lane is kept."""
        block = self._blocks.get(lane)
        if block is None or block.epoch != line.epoch or not block.low <= place < block.high:
            block = self._blocks[lane] = self._shuffle_block(line, lane, place)
            self._held[:, lane] = block.epoch, block.low, block.high
        return block

    def _shuffle_block(self, line: "_Line", lane: int, place: int) -> "_Block":
        number, low, high = self._block_bounds(line, lane, place)
        order = keyed_permutation(high - low, self.plan.seed, _BLOCK, number, lane, line.epoch)
        return _Block(line.epoch, low, high, order.astype(np.uint32).data)

    def _block_bounds(self, line: "_Line", lane: int, place: int) -> tuple[int, int, int]:
        """(number on its lane, first place, end) of the block of a lane that holds `place`."""
        first, last = int(line.lanes[lane]), int(line.lanes[lane + 1])
        opening, piece = (np.searchsorted(line.starts, [first, place], side="right") - 1).tolist()
        number = (piece - opening) // self.plan.block
        edge = opening + number * self.plan.block
        low = max(first, int(line.starts[edge]))
        high = min(last, int(line.starts[min(edge + self.plan.block, line.shards.size)]))
        return number, low, high


class StepByStep:
    """The samples of one step after the other, found for many steps at once: NumPy takes as long for a single one.

    every: the distance of the steps that are asked for.
    """

    def __init__(self, order: Order, microbatches: range, every: int = 1) -> None:
        self._order, self._microbatches, self._every = order, microbatches, every
        plan = order.plan
        self._each = plan.draws * len(microbatches) * plan.microbatch_size
        self._steps = range(0)
        self._found = order.steps(self._steps, microbatches)

    def __getitem__(self, step: int) -> Samples:
        if step not in self._steps:
            count = max(1, _AT_ONCE // self._each)
            self._steps = range(step, step + count * self._every, self._every)
            self._found = self._order.steps(self._steps, self._microbatches)
        first = self._steps.index(step) * self._each
        return Samples(*[column[first : first + self._each] for column in self._found])


class _Line(NamedTuple):
    """One epoch's samples in a line."""

    epoch: int
    shards: IntArray  # [S] shard at each place of the permutation
    starts: IntArray  # [S + 1] place on the line where each shard begins
    turns: IntArray  # [S] rows by which each shard is rotated, so that lanes cut it elsewhere in every epoch
    lanes: IntArray  # [L + 1] place on the line where each lane begins
    passed: IntArray  # [L] samples of each lane in the epochs before


class _Block(NamedTuple):
    """Places [low, high) of an epoch's line, which are shuffled among themselves."""

    epoch: int
    low: int
    high: int
    order: memoryview  # of uint32, whose items are quick to read
