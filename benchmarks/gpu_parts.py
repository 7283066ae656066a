"""One part of `benchmarks/gpu.py --first` in a process of its own: `python gpu_parts.py PART [--device cuda]`

A part prints JSON lines. It needs torch and what networks and losses import, and no Ray. On the CPU (`--device cpu`)
the same code runs on few images and narrow networks: its figures mean nothing there.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from imagegen_dist import config
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.modality import to_float
from imagegen_dist.data.stream import Item
from imagegen_dist.distributed import World, process_group
from imagegen_dist.experiment import Experiment, build_trainer
from imagegen_dist.nn import conv, resample
from imagegen_dist.objectives.base import Batch
from imagegen_dist.objectives.vae_gan import VAEGANConfig
from imagegen_dist.prediction.counting import count_step, halfway
from imagegen_dist.presets import find_preset
from imagegen_dist.shape import SampleShape
from imagegen_dist.training.loop import Trainer
from imagegen_dist.training.state import load_state_dict, model_of, state_dict

EAGER = {
    "r3gan-cifar10": 64,
    "r3gan-ffhq256": 8,
    "dcgan": 32,
    "kl-f8": 4,
    "fsq-f8": 4,
    "vae-gan": 32,
    "digits": 32,
}
"""Presets, and the images of a microbatch."""

SAMPLING = (8, 64, 512)
_WARM, _TIMED = 3, 5


def say(part: str, **values: Any) -> None:
    """Print one JSON line."""
    print(json.dumps({"part": part, **values}), flush=True)


_NARROW: dict[str, dict[str, Any]] = {
    "r3gan-cifar10": {"model.widths": (16, 16, 16, 16), "model.group_channels": 8},
    "r3gan-ffhq256": {"model.widths": (16, 16, 8, 8, 8), "model.group_channels": 8},
    "dcgan": {"model.widths": (16, 8, 8, 8)},
    "kl-f8": {"model.channels": 32, "model.multipliers": (1, 1, 1, 1), "model.blocks": 1},
    "fsq-f8": {"model.channels": 32, "model.multipliers": (1, 1, 1, 1), "model.blocks": 1},
}
"""Networks for a CPU: as deep as a preset's, or nearly."""


def experiment_of(
    name: str, size: int, device: torch.device, microbatches: int = 1, changes: Mapping[str, Any] | None = None
) -> Experiment:
    """A preset in microbatches of this size, with every term of its loss from the start; narrow on a CPU."""
    experiment = find_preset(name).experiment
    changed = {"training.batch_size": size * microbatches, "training.microbatch_size": size, "training.compile": False}
    if isinstance(experiment.objective, VAEGANConfig):
        changed |= {"objective.perceptual": "random", "objective.adversarial_from_images": 0}
    changed |= {} if device.type == "cuda" else _NARROW.get(name, {})
    changed |= changes or {}
    return config.overrides(experiment, changed.items())


def index_of(name: str, device: torch.device) -> DatasetIndex:
    """An index of the preset's shape, on a CPU of few pixels, whose shard is never opened."""
    preset = find_preset(name)
    most = 32 if name in ("kl-f8", "fsq-f8") else 64  # VGG's networks, which judge them, take most of the time
    spatial = tuple(extent if device.type == "cuda" else min(extent, most) for extent in preset.shape.spatial)
    return preset.imagined_index(SampleShape(preset.shape.channels, spatial))


def ready(name: str, experiment: Experiment, device: torch.device) -> tuple[Trainer, Item]:
    """A trainer halfway through its run, so that augmentation is on, with weights that have moved, and a step of noise.

    R3GAN's last convolutions of a block start at zero: on fresh weights, nothing before them has a gradient.
    """
    torch.manual_seed(0)
    index = index_of(name, device)
    trainer = build_trainer(experiment, index, World(), device)
    batching, random = trainer.batching, torch.Generator().manual_seed(0)
    trainer.images = halfway(experiment, batching.batch_size)
    for module in trainer.objective.modules().values():
        for weight in module.parameters():
            if weight.ndim > 1 and not weight.detach().any():
                torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    dims, classes = index.shape.dims, index.classes
    size = (len(trainer.objective.phases()), batching.microbatches, batching.microbatch_size)
    sample = torch.randint(0, 256, (*size, *dims), dtype=torch.uint8, generator=random)
    label = torch.randint(0, classes, size, generator=random) if classes else None
    numbers = torch.zeros(size, dtype=torch.int64)
    if device.type == "cuda":
        sample, label = sample.pin_memory(), None if label is None else label.pin_memory()
    return trainer, Item(0, sample, label, numbers, {}, [])


def timed(device: torch.device, step: Callable[[], Any]) -> float:
    """Seconds of a call: the mean of several after a few others."""
    for _ in range(_WARM if device.type == "cuda" else 1):
        step()
    synchronize(device)
    began, repeats = time.perf_counter(), _TIMED if device.type == "cuda" else 1
    for _ in range(repeats):
        step()
    synchronize(device)
    return (time.perf_counter() - began) / repeats


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """An error wherever the host would wait for the GPU."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def small(device: torch.device, size: int) -> int:
    """A microbatch's images; on a CPU, two."""
    return size if device.type == "cuda" else 2


def versions(device: torch.device) -> None:
    """What the figures were measured on."""
    cuda: dict[str, Any] = {}
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        cuda = {"memory_gib": round(found.total_memory / 2**30, 1), "sms": found.multi_processor_count}
        cuda |= {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "count": torch.cuda.device_count(),
        }
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    say("versions", device=name, torch=torch.__version__, python=platform.python_version(), **cuda)


def eager(name: str, device: torch.device) -> None:
    """Eager steps of a preset: time, memory beside the prediction, and whether the host has to wait."""
    experiment = experiment_of(name, small(device, EAGER[name]), device)
    size = experiment.training.microbatch_size
    with experiment.training.numerics.applied():
        trainer, item = ready(name, experiment, device)
        trainer.step(item)
        waits = ""
        try:
            with no_waiting(device):
                trainer.step(item)
        except RuntimeError as error:
            waits = f"{str(error).splitlines()[0]} at {_place(error)}"
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seconds = timed(device, lambda: trainer.step(item))
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    predicted = count_step(experiment, index_of(name, device), size).peak_bytes
    values = trainer.means().values()
    say(
        f"eager {name}",
        images=size,
        ms=round(1000 * seconds, 2),
        images_per_s=round(size / seconds, 1),
        peak_mib=None if peak is None else peak >> 20,
        predicted_mib=predicted >> 20,
        finite=all(value == value for value in values),
        skipped=float(trainer.skipped_steps),
        host_waits=waits,
    )


def _place(error: BaseException) -> str:
    """The innermost line of the package that an error passed."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "imagegen_dist" in frame.filename]
    return f"{frames[-1].filename.rpartition('imagegen_dist/')[2]}:{frames[-1].lineno}" if frames else "?"


def plain(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: Any, padding: Any, groups: int = 1, **form: Any
) -> Tensor:
    """PyTorch's own convolution in place of `nn.convolve.convolve`."""
    axes = x.ndim - 2
    name = f"conv_transpose{axes}d" if form.get("transposed") else f"conv{axes}d"
    return getattr(F, name)(x, weight, bias, stride=stride, padding=padding, groups=groups)


def discriminator_gradients(trainer: Trainer, item: Item) -> Tensor:
    """All gradients of the discriminator's turn, as one vector."""
    phase = trainer.objective.phases()[0]
    label = None if item.label is None else item.label[0, 0].to(trainer.device)
    batch = Batch(to_float(item.sample[0, 0].to(trainer.device)), label)
    phase.trains.requires_grad_(True)
    loss, _ = phase.loss(batch, trainer.draw(f"0/{phase.name}", 0))
    found = torch.autograd.grad(loss, list(phase.trains.parameters()))
    return torch.cat([gradient.flatten().double() for gradient in found])


def kernels(device: torch.device) -> None:
    """The discriminator's turn with PyTorch's convolutions and with ours: time, kernels, difference of gradients."""
    name = "r3gan-cifar10"
    experiment = experiment_of(name, small(device, 64), device)
    gradients: dict[str, Tensor] = {}
    with experiment.training.numerics.applied():
        for kind in ("ours", "plain"):
            with (
                patch.object(conv, "convolve", plain if kind == "plain" else conv.convolve),
                patch.object(resample, "convolve", plain if kind == "plain" else resample.convolve),
            ):
                trainer, item = ready(name, experiment, device)
                rehearse = partial(trainer.rehearse, item)
                seconds = timed(device, rehearse)
                gradients[kind] = discriminator_gradients(trainer, item)
                with torch.profiler.profile() as profile:
                    rehearse()
                    synchronize(device)
                events = profile.key_averages()
                launched = sum(event.count for event in events if "LaunchKernel" in event.key)
                operators = sum(event.count for event in events if event.key.startswith("aten::convolution"))
            say(f"{kind} convolutions", ms=round(1000 * seconds, 2), kernels=launched, convolution_calls=operators)
    difference = (gradients["ours"] - gradients["plain"]).norm() / gradients["plain"].norm()
    say("gradients of both", relative_difference=float(difference))


def numerics(device: torch.device) -> None:
    """cuDNN's search, channels_last and TensorFloat-32, each with and without."""
    name = "r3gan-cifar10"
    for search in (False, True):
        for tf32 in (False, True):
            for last in (False, True):
                changes = {"training.cudnn_benchmark": search, "training.tf32": tf32, "training.channels_last": last}
                experiment = experiment_of(name, small(device, 64), device, changes=changes)
                with experiment.training.numerics.applied():
                    trainer, item = ready(name, experiment, device)
                    seconds = timed(device, lambda trainer=trainer, item=item: trainer.step(item))
                say(
                    "numerics",
                    cudnn_benchmark=search,
                    tf32=tf32,
                    channels_last=last,
                    ms=round(1000 * seconds, 2),
                )


def compiled(name: str, device: torch.device) -> None:
    """Compiled steps beside eager ones: time to compile, speed, and the difference of what the losses log."""
    found = {}
    for compiles in (False, True):
        changes = {"training.compile": compiles}
        experiment = experiment_of(name, small(device, EAGER[name]), device, changes=changes)
        size = experiment.training.microbatch_size
        with experiment.training.numerics.applied():
            trainer, item = ready(name, experiment, device)
            began = time.perf_counter()
            trainer.step(item)
            synchronize(device)
            first, logged = time.perf_counter() - began, trainer.means()
            seconds = timed(device, lambda trainer=trainer, item=item: trainer.step(item))
        found[compiles] = logged
        say(
            f"{'compiled' if compiles else 'eager'} {name}",
            first_step_s=round(first, 1),
            ms=round(1000 * seconds, 2),
            images_per_s=round(size / seconds, 1),
        )
    worst = max(abs(found[True][key] - value) / (abs(value) + 1e-3) for key, value in found[False].items())
    say(f"compiled and eager {name}", largest_relative_difference=worst)


def nccl(device: torch.device) -> None:
    """One rank through DistributedDataParallel as the trainer wraps it, beside no wrapper."""
    name = "r3gan-cifar10"
    experiment = experiment_of(name, small(device, 64), device, microbatches=2)
    means = {}
    with tempfile.TemporaryDirectory() as folder, experiment.training.numerics.applied():
        backend = "nccl" if device.type == "cuda" else "gloo"
        for wrapped in (False, True):
            with process_group(World(), f"{folder}/{wrapped}", backend):
                trainer, item = ready(name, experiment, device)
                if wrapped:
                    for phase in trainer.objective.phases():
                        phase.trains.requires_grad_(True)
                    trainer.runners = {
                        phase: DistributedDataParallel(runner, broadcast_buffers=False, gradient_as_bucket_view=True)
                        for phase, runner in trainer.runners.items()
                    }
                trainer.step(item)
                means[wrapped] = trainer.means()
                seconds = timed(device, lambda trainer=trainer, item=item: trainer.step(item))
                say("one rank", ddp=wrapped, backend=backend, ms=round(1000 * seconds, 2))
                del trainer
    say("one rank, both", equal=means[False] == means[True])


def repeat(deterministic: bool, device: torch.device) -> None:
    """The same steps twice, and stopped and resumed: equal bits or the largest difference, and the time of a step."""
    name = "r3gan-cifar10"
    changes = {"training.deterministic": deterministic}
    experiment = experiment_of(name, small(device, 64), device, changes=changes)

    def weights(trainer: Trainer) -> Tensor:
        modules = trainer.objective.modules().values()
        return torch.cat([weight.detach().flatten() for module in modules for weight in module.parameters()])

    with experiment.training.numerics.applied():
        results = []
        for _ in range(2):
            trainer, item = ready(name, experiment, device)
            for step in range(4):
                if step == 2:
                    images = trainer.images
                    kept = (
                        {key: value.clone() for key, value in model_of(trainer).items()},
                        {key: value.clone() for key, value in state_dict(trainer).items()},
                    )
                trainer.step(item)
            results.append(weights(trainer))
        resumed, item = ready(name, experiment, device)
        resumed.images = images
        load_state_dict(resumed, *kept)
        for _ in range(2):
            resumed.step(item)
        after = weights(resumed)
        seconds = timed(device, lambda: resumed.step(item))
    say("deterministic" if deterministic else "not deterministic", ms=round(1000 * seconds, 2))
    for kind, other in (("twice", results[0]), ("stopped and resumed", after)):
        say(
            kind,
            bit_for_bit=bool(torch.equal(results[1], other)),
            largest_difference=float((results[1] - other).abs().max()),
        )


def sampling(device: torch.device) -> None:
    """Samples a second of generators, by the number of samples in a batch."""
    for name in ("r3gan-cifar10", "r3gan-ffhq256"):
        experiment = experiment_of(name, 2, device)
        with experiment.training.numerics.applied(), torch.inference_mode():
            trainer = build_trainer(experiment, index_of(name, device), World(), device)
            generator, classes = trainer.objective.modules()["generator"], find_preset(name).classes
            for count in SAMPLING if device.type == "cuda" else SAMPLING[:1]:
                z = torch.randn(count, generator.z_dim, device=device)
                label = torch.zeros(count, dtype=torch.int64, device=device) if classes else None
                seconds = timed(device, partial(generator, z, label))
                say(f"samples of {name}", batch=count, images_per_s=round(count / seconds, 1))


def passes(device: torch.device) -> None:
    """Training speed by the number of microbatches of a pass."""
    microbatches, several = (8, (1, 2, 4, 8)) if device.type == "cuda" else (2, (1, 2))
    for name, size in {"r3gan-cifar10": 64, "r3gan-ffhq256": 8}.items():
        size = small(device, size)
        for together in several:
            experiment = experiment_of(name, size, device, microbatches, {"training.pass_images": size * together})
            try:
                with experiment.training.numerics.applied():
                    trainer, item = ready(name, experiment, device)
                    seconds = timed(device, lambda trainer=trainer, item=item: trainer.step(item))
                say(f"passes of {name}", images=size * together, images_per_s=round(microbatches * size / seconds, 1))
            except torch.OutOfMemoryError:
                say(f"passes of {name}", images=size * together, error="out of memory")


PARTS: dict[str, tuple[int, Callable[[torch.device], None]]] = {
    "versions": (40, versions),
    **{f"eager-{name}": (45, partial(eager, name)) for name in EAGER},
    "kernels": (70, kernels),
    "compiled-r3gan-cifar10": (150, partial(compiled, "r3gan-cifar10")),
    "repeat": (60, partial(repeat, False)),
    "repeat-deterministic": (60, partial(repeat, True)),
    "passes": (90, passes),
    "nccl": (60, nccl),
    "sampling": (60, sampling),
    "numerics": (80, numerics),
    "compiled-r3gan-ffhq256": (150, partial(compiled, "r3gan-ffhq256")),
}
"""What is measured, in this order, and the seconds that each may take."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    PARTS[options.part][1](device)


if __name__ == "__main__":
    main()
