"""How many samples a model generates at once on a GPU: as many as a part of its memory is predicted to take."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from imagegen_dist.noise import SampleNoise
from imagegen_dist.objectives.interface import Sampler
from imagegen_dist.prediction.counting import OperatorCounter
from imagegen_dist.prediction.predict import usable_bytes

SHARE = 0.25
"""Part of a GPU's memory for the samples of one batch: a training, or the features of an evaluation, need the rest."""

_MOST_CHUNKS = 8
_COUNTED = 2, 4


def chunks_at_once(sampler: Sampler, classes: int, device: torch.device, size: int, vectors: bool = False) -> int:
    """Chunks of `size` samples that an evaluation generates at once: 1 on the CPU, up to 8 on a GPU.

    classes, vectors: as for `fitting_samples`.
    """
    return samples_at_once(sampler, classes, device, size, _MOST_CHUNKS * size, vectors) // size


def samples_at_once(
    sampler: Sampler, classes: int, device: torch.device, least: int, most: int, vectors: bool = False
) -> int:
    """Samples of a batch: least on the CPU; on a GPU, doubled up to `most` while a quarter of its memory takes them.

    It depends on the model and on the GPU's type alone, since samples of other batches can round differently. classes,
    vectors: as for `fitting_samples`.
    """
    if device.type != "cuda":
        return least
    memory = SHARE * usable_bytes(torch.cuda.get_device_properties(device).total_memory)
    return fitting_samples(sampler, classes, memory, device, least, most, vectors)


def fitting_samples(
    sampler: Sampler,
    classes: int,
    memory_bytes: float,
    device: torch.device,
    least: int,
    most: int,
    vectors: bool = False,
) -> int:
    """The most samples, least · 2^n up to `most`, whose tensors fit into memory_bytes; `least` if none can be counted.

    sampler: with its networks on `device`. classes: those of its labels, 0 for none. vectors: labels are vectors of
    that length in place of numbers.
    """
    try:
        few, more = (_peak_bytes(sampler, classes, device, count, vectors) for count in _COUNTED)
    except RuntimeError:  # networks that read a value have none to read while they are counted
        return least
    each = (more - few) / (_COUNTED[1] - _COUNTED[0])
    fixed, found = few - _COUNTED[0] * each, least
    while 2 * found <= most and fixed + 2 * found * each <= memory_bytes:
        found *= 2
    return found


def _peak_bytes(sampler: Sampler, classes: int, device: torch.device, count: int, vectors: bool) -> int:
    """Bytes of all tensors at the peak of generating so many samples, without the weights."""
    drawn = sampler.prior(count, SampleNoise.of(0, range(count)))
    counter = OperatorCounter()
    eager = torch.compiler.set_stance("force_eager")
    with torch.no_grad(), eager, FakeTensorMode(allow_non_fake_inputs=True), counter:
        fake = torch.empty(drawn.shape, dtype=drawn.dtype, device=device)
        number = torch.zeros(count, dtype=torch.int64, device=device) if classes else None
        label = torch.zeros(count, classes, device=device) if vectors else number
        with counter.counting():
            sampler.generate(fake, label)
    return counter.peak_bytes
