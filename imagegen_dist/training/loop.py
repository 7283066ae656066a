"""The training loop: phases alternate over microbatches, and the clock is images seen.

A step's global batch is N microbatches of b samples, both fixed by the config. Rank r of W takes a contiguous range of
them; its losses are scaled by W / N, so that the mean over ranks is the mean over all N even if W does not divide N.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from imagegen_dist.data.modality import to_float
from imagegen_dist.data.stream import Item
from imagegen_dist.distributed import World, accumulate, data_parallel, sum_over_ranks
from imagegen_dist.metrics.meter import Meter
from imagegen_dist.nn.casting import constant_weights
from imagegen_dist.noise import keyed_generator
from imagegen_dist.objectives.base import Batch, Draw, Follows, Objective, Phase, Terms
from imagegen_dist.training.ema import EMA
from imagegen_dist.training.memory import PassTooLarge, give_back, half_of
from imagegen_dist.training.optim import ScheduledAdam, nan_if_nonfinite, set_requires_grad
from imagegen_dist.wording import counted

Augment = Callable[[Tensor, Draw], Tensor]
"""A transformation of real samples [B, C, *S] before the objective sees them."""


@dataclass(frozen=True)
class Batching:
    """A step's global batch as N microbatches of b samples. Raises ValueError if b does not divide it."""

    # Images per step, over all ranks.
    batch_size: int
    # Images per microbatch, b.
    microbatch_size: int

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.microbatch_size < 1 or self.batch_size % self.microbatch_size:
            raise ValueError(
                f"a batch of {self.batch_size} is not a multiple of microbatches of {self.microbatch_size}; "
                "set --training.batch-size or --training.microbatch-size"
            )

    @property
    def microbatches(self) -> int:
        """N, the number of microbatches per step and the maximum number of workers."""
        return self.batch_size // self.microbatch_size

    def check_workers(self, workers: int) -> None:
        """Raise ValueError, with the fix, if `workers` cannot share a batch."""
        if workers > self.microbatches:
            raise ValueError(
                f"{counted(workers, 'worker')} cannot share a batch of "
                f"{counted(self.microbatches, 'microbatch')}; set --workers to at most "
                f"{self.microbatches}, or --training.microbatch-size to at most {self.batch_size // workers}"
                if self.batch_size >= workers
                else f"{counted(workers, 'worker')} cannot share a batch of {self.batch_size} images; set "
                "--workers to at most "
                f"{self.batch_size}"
            )


class PhaseModule(nn.Module):
    """A phase as DDP requires it: the trained network as its only child, the whole loss as its forward."""

    def __init__(self, phase: Phase, bf16: bool) -> None:
        super().__init__()
        self.trains = phase.trains
        self._loss = phase.loss
        self._bf16 = bf16

    def forward(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        """The phase's mean loss over one pass, and what to log."""
        with torch.autocast(draw.device.type, torch.bfloat16) if self._bf16 else nullcontext():
            return self._loss(batch, draw)


class Trainer:
    """An objective with its optimizers and weight averages, advanced one step at a time.

    pass_microbatches: how many microbatches go through the networks together, which changes results by rounding alone.
    It is halved where a pass does not fit into memory, and `smaller_pass` is called with a line that says so.
    layout: of the samples; the networks already have theirs. compress_gradients: average them over ranks in bfloat16.
    After each step, `images` has increased by the batch size, and every rank holds the same weights.
    """

    def __init__(
        self,
        objective: Objective,
        optimizers: dict[str, ScheduledAdam],
        averages: EMA,
        batching: Batching,
        world: World,
        device: torch.device,
        seed: int,
        augment: Augment | None = None,
        bf16: bool = False,
        pass_microbatches: int = 1,
        layout: torch.memory_format = torch.contiguous_format,
        compress_gradients: bool = False,
    ) -> None:
        batching.check_workers(world.size)
        self.objective = objective
        self.optimizers = optimizers
        self.averages = averages
        self.batching = batching
        self.world = world
        self.device = device
        self.images = 0
        self.meter = Meter()
        self.skipped_steps = torch.zeros((), device=device)
        self.longest_bad_run = torch.zeros((), device=device)
        self.pass_microbatches = pass_microbatches
        self.smaller_pass: Callable[[str], None] = lambda line: None
        self._exchanging = False
        self._rehearsing = False
        self._bad_run = torch.zeros((), device=device)
        self._seed = seed
        self._bf16 = bf16
        self._augment = augment
        self._layout = layout
        self._compress_gradients = compress_gradients
        self._share = world.share(batching.microbatches)
        self._phases: Sequence[Phase] = objective.phases()
        # Listed once: traversing the modules in every phase took a sixth of a small step.
        self._parameters = [weight for module in objective.modules().values() for weight in module.parameters()]
        self._trained = {phase.name: frozenset(optimizers[phase.name].parameters) for phase in self._phases}
        named = {phase.name: phase for phase in self._phases}
        self.runners = {name: self._wrap(phase, bf16) for name, phase in named.items()}
        self._buckets_settled = world.size == 1

    @property
    def step_index(self) -> int:
        """Steps taken since the run began."""
        return self.images // self.batching.batch_size

    def step(self, item: Item) -> None:
        """One pass through all phases over this rank's microbatches of the step.

        Raises torch.OutOfMemoryError if one microbatch does not fit into memory, and PassTooLarge if a pass does not
        fit while gradients are averaged over ranks.
        """
        reals = self._reals(item)
        if not self._buckets_settled:
            self._settle_buckets(reals)
        bad = torch.zeros((), device=self.device)
        for turn, phase in enumerate(self._phases):
            for terms in self._fitting_gradients(turn, phase, *reals[turn]):
                self.meter.add(terms)
            optimizer = self.optimizers[phase.name]
            skip = optimizer.non_finite()
            optimizer.step(self.images, skip)
            bad = bad.maximum(skip)
        self._bad_run = (self._bad_run + 1) * bad
        self.longest_bad_run = self.longest_bad_run.maximum(self._bad_run)
        self.skipped_steps = self.skipped_steps + bad
        self.images += self.batching.batch_size
        self.averages.update(self.images, self.batching.batch_size)
        if item.held_out is not None:
            self._follow(item, item.held_out)

    def rehearse(self, item: Item) -> None:
        """One pass of every phase, forward and backward, without other ranks and without an update."""
        with self._rehearsal():
            for turn, (phase, (samples, labels)) in enumerate(zip(self._phases, self._reals(item), strict=True)):
                runner = self._prepared(phase)
                with accumulate(runner):
                    together = slice(0, self.pass_microbatches)
                    loss, _ = runner(*self._pass(f"{turn}/{phase.name}", together, samples, labels))
                    loss.backward()
                self.optimizers[phase.name].clear_gradients()

    def means(self) -> dict[str, float]:
        """Terms logged by the losses since the last call, averaged over all ranks. Called by every rank."""
        return self.meter.reduce(lambda values: sum_over_ranks(values, self.world))

    def _fitting_gradients(self, turn: int, phase: Phase, samples: Tensor, labels: Tensor | None) -> list[Terms]:
        """As `_accumulate_gradients`, again from the beginning and in smaller passes if one does not fit into memory.

        Every rank chooses the size of its own passes: only the last backward pass meets the other ranks.
        """
        while True:
            try:
                return self._accumulate_gradients(turn, phase, samples, labels)
            except torch.OutOfMemoryError as error:
                reason = str(error)  # its frames keep the tensors of the pass alive
            self._halve_pass(reason, first=turn == 0)

    def _halve_pass(self, reason: str, first: bool) -> None:
        """Halve the pass after it ran out of memory. first: in the first turn of a step."""
        size, before = self.batching.microbatch_size, min(self.pass_microbatches, len(self._share))
        if before == 1:
            raise torch.OutOfMemoryError(reason)
        line = f"a pass of {counted(before * size, 'image')} does not fit into memory any more"
        self.pass_microbatches = half_of(before)
        if self._exchanging:
            raise PassTooLarge(line, first)
        self.smaller_pass(f"{line}: passes are of {self.pass_microbatches * size}")
        give_back(self.device)

    @torch.no_grad()
    def _follow(self, item: Item, held_out: Item) -> None:
        """Let the objective follow its measurements on held-out samples. Called by every rank.

        Each microbatch's sum has a place of its own, so that adding over ranks and over microbatches rounds in the same
        way on any number of ranks. The training samples are those of the last turn.
        """
        objective = cast(Follows, self.objective)
        (samples, labels), (others, their_labels) = self._reals(item)[-1], self._reals(held_out)[-1]
        found: list[Tensor] = []
        for first in range(0, len(self._share), self.pass_microbatches):
            together = slice(first, min(first + self.pass_microbatches, len(self._share)))
            batch, draw = self._pass("measured", together, samples, labels)
            with torch.autocast(self.device.type, torch.bfloat16) if self._bf16 else nullcontext():
                measured = objective.measure(batch, self._pass("held-out", together, others, their_labels)[0], draw)
            found.append(measured.unflatten(1, (together.stop - first, -1)).sum(2, dtype=torch.float64))
        places = torch.cat(found, 1).new_zeros(len(found[0]), self.batching.microbatches)
        places[:, self._share.start : self._share.stop] = torch.cat(found, 1)
        means = sum_over_ranks(places, self.world).sum(1) / self.batching.batch_size
        self.meter.add(objective.follow(means, self.batching.batch_size))

    def _accumulate_gradients(self, turn: int, phase: Phase, samples: Tensor, labels: Tensor | None) -> list[Terms]:
        """Compute the mean gradient over the global batch on every rank; returns each pass's terms.

        samples: uint8 [M, b, C, *S]; labels: int64 [M, b] or None, for the M microbatches of this rank.
        """
        runner = self._prepared(phase)
        scale = self.world.size / self.batching.microbatches
        logged = []
        with constant_weights():
            for first in range(0, len(self._share), self.pass_microbatches):
                together = slice(first, min(first + self.pass_microbatches, len(self._share)))
                is_last = together.stop == len(self._share)
                with nullcontext() if is_last else accumulate(runner):
                    loss, terms = runner(*self._pass(f"{turn}/{phase.name}", together, samples, labels))
                    self._exchanging = is_last and self.world.size > 1
                    (nan_if_nonfinite(loss) * (scale * (together.stop - first))).backward()
                self._exchanging = False
                logged.append(terms)
        return logged

    def _prepared(self, phase: Phase) -> nn.Module:
        """A phase's module, with gradients enabled for what it trains alone, and cleared."""
        set_requires_grad(self._parameters, self._trained[phase.name])
        self.optimizers[phase.name].clear_gradients()
        return self.runners[phase.name]

    def _reals(self, item: Item) -> list[tuple[Tensor, Tensor | None]]:
        """The samples, uint8 [M, b, C, *S], and labels, int64 [M, b] or None, of each turn, on the device."""
        samples = item.sample.to(self.device, non_blocking=True)
        if self._layout is torch.contiguous_format:
            samples = samples.contiguous()
        labels = None if item.label is None else item.label.to(self.device, non_blocking=True)
        return [(samples[turn], None if labels is None else labels[turn]) for turn in range(len(samples))]

    def _pass(self, turn: str, together: slice, samples: Tensor, labels: Tensor | None) -> tuple[Batch, Draw]:
        """The samples and the randomness of some of this rank's microbatches in one turn."""
        draw = self.draw(turn, *self._share[together])
        x = to_float(samples[together].flatten(0, 1))
        x = self._augment(x, draw) if self._augment else x
        if self._layout is not torch.contiguous_format:
            x = x.contiguous(memory_format=self._layout)
        return Batch(x, None if labels is None else labels[together].flatten(0, 1)), draw

    def _settle_buckets(self, reals: Sequence[tuple[Tensor, Tensor | None]]) -> None:
        """One backward of every phase without an update.

        DDP reorders its gradient buckets after its first backward, and the rounding of an all-reduce over three or more
        ranks depends on a value's position in its bucket. With this pass before the first step, the first step of a
        resumed run rounds as the same step of an uninterrupted run.
        """
        with self._rehearsal():
            for turn, phase in enumerate(self._phases):
                self._fitting_gradients(turn, phase, *reals[turn])
        self._buckets_settled = True

    @contextmanager
    def _rehearsal(self) -> Iterator[None]:
        """Passes as those of the first step, which leaves out nothing that later ones compute."""
        self._rehearsing = True
        try:
            yield
        finally:
            self._rehearsing = False

    def draw(self, turn: str, *microbatches: int) -> Draw:
        """The random numbers of these microbatches in one phase, at the current clock."""
        draws = [keyed_draw(self._seed, self.images, turn, number, self.device) for number in microbatches]
        step = 0 if self._rehearsing else self.step_index
        return Draw(self.images, *(generator for draw in draws for generator in draw.generators), step=step)

    def _wrap(self, phase: Phase, bf16: bool) -> nn.Module:
        set_requires_grad(self._parameters, self._trained[phase.name])
        return data_parallel(PhaseModule(phase, bf16), self.world, self._compress_gradients)


def keyed_draw(seed: int, images: int, purpose: str, index: int, device: torch.device) -> Draw:
    """A Draw whose random numbers are a function of the arguments (a 64-bit hash of them seeds its generator)."""
    key = hashlib.blake2b(f"{seed}/{images}/{purpose}/{index}".encode(), digest_size=8).digest()
    return Draw(images, keyed_generator(int.from_bytes(key, "little"), device))


def crossed(every: int, before: int, after: int) -> bool:
    """True if the clock passed a multiple of `every` images between two readings; never if `every` is 0."""
    return every > 0 and before // every != after // every


@dataclass(frozen=True)
class Hook:
    """An action of all ranks together each time the clock passes a multiple of `every` images, and at the end."""

    every: int
    run: Callable[[], None]


def train(trainer: Trainer, items: Iterable[Item], hooks: Sequence[Hook]) -> None:
    """Take one step per item, and run the hooks that are due, in order.

    A hook ends training early by raising Stopped on all ranks together.
    """
    for item in items:
        before = trainer.images
        trainer.step(item)
        for hook in hooks:
            if crossed(hook.every, before, trainer.images):
                hook.run()
