"""Speed, memory and cost of a training on a GPU type, from the counts of one pass.

A kernel takes the longer one of two times, that of its FLOPs and that of its bytes. A step takes the longer one of its
kernels' time and the time in which Python asks for them. Data are read meanwhile, and gradients are averaged while the
last backward goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log2, prod

from imagegen_dist.data.index import DatasetIndex, ShardInfo
from imagegen_dist.experiment import Experiment
from imagegen_dist.prediction.counting import Kernel, StepCount, count_step
from imagegen_dist.prediction.gpus import SPOT_SHARE, GPUType, Machine, machine_for
from imagegen_dist.shape import SampleShape

LAUNCH_S = 8e-6
"""Seconds in which PyTorch asks for one kernel, autograd included. Not measured yet."""

BANDWIDTH_SHARE = 0.7
"""Share of a GPU memory's bandwidth that kernels reach. Not measured yet."""

RESERVED_BYTES = 1 << 30
"""What CUDA and cuDNN keep for themselves."""

FRAGMENTATION = 0.1
"""Share of a GPU's memory that the allocator cannot use."""

DECODE_S, DECODE_S_A_BYTE = 150e-6, 1e-9
"""Seconds of one core for a sample, and for each byte of its pixels (docs/BENCHMARKS.md)."""

SHARD_BYTES = 128 << 20
"""Size of a shard as `data pack` writes it."""

_PACKED, _HEADER = 0.6, 512
"""Bytes of a losslessly packed sample over those of its pixels; bytes before each member of a shard."""

_BUILT_IN = {"digits": ((1, 28, 28), 4_000), "stackedmnist": ((3, 32, 32), 27_000)}
_VERY_MANY = 10**6

_BUCKET_BYTES, _HOP_S = 25 << 20, 10e-6
"""Gradients that DDP averages at once; latency of one exchange between two GPUs."""

_BACKWARD = 0.5
"""Share of a pass during which gradients can be averaged."""


@dataclass(frozen=True)
class Samples:
    """What is known of the data. dataset_bytes: 0 where it is not known, since there is no index."""

    index: DatasetIndex
    sample_bytes: float
    shard_bytes: float
    dataset_bytes: int

    @classmethod
    def of(cls, index: DatasetIndex) -> Samples:
        """Those of a dataset."""
        total = sum(shard.bytes for shard in index.shards)
        return cls(index, total / index.samples, total / len(index.shards), total)

    @classmethod
    def of_preset(cls, shape: SampleShape, classes: int, url: str) -> Samples:
        """Samples that a preset was made for: those of a built-in dataset, or very many of an assumed size."""
        packed = _HEADER + 512 * -(-_PACKED * shape.numel // 512) + (2 * _HEADER if classes else 0)
        built_in, count = _BUILT_IN.get(url, ((), 0))
        known = built_in == shape.dims
        samples = count if known else _VERY_MANY
        shard = ShardInfo("unknown.tar", int(packed) * samples, samples, 0, "0" * 64)
        index = DatasetIndex("image" if shape.ndim == 2 else "video", shape, (shard,), classes or None)
        return cls(index, packed, SHARD_BYTES, shard.bytes if known else 0)


@dataclass(frozen=True)
class Prediction:
    """One worker count. Times are seconds a step."""

    workers: int
    machines: int
    pass_images: int
    compute_s: float
    """Kernels that FLOPs bound."""
    memory_s: float
    """Kernels that the GPU memory's bandwidth bounds."""
    launch_s: float
    """Python, which asks for the kernels."""
    reduce_s: float
    """All-reduce of the gradients."""
    exposed_s: float
    """The part of it that the backward does not hide."""
    read_s: float
    """Fetching shards from the store."""
    decode_s: float
    """Decoding on the CPU."""
    batch_size: int
    total_images: int
    price: float
    """$ an hour on demand of all machines; NaN where AWS has none."""
    read_bytes: float
    """Bytes of samples a step, over all workers."""
    shard_bytes: float
    """Bytes of a shard, which is one request."""
    core_s: float
    """Seconds of one core in which a worker's samples of a step are decoded."""

    @property
    def gpu_s(self) -> float:
        """The GPU's own work."""
        return self.compute_s + self.memory_s

    @property
    def work_s(self) -> float:
        """One worker's passes."""
        return max(self.gpu_s, self.launch_s)

    @property
    def step_s(self) -> float:
        """A step."""
        return max(self.work_s + self.exposed_s, self.read_s, self.decode_s)

    @property
    def waiting_s(self) -> float:
        """What reading and decoding data add to a step."""
        return max(0.0, max(self.read_s, self.decode_s) - self.work_s - self.exposed_s)

    @property
    def images_per_s(self) -> float:
        """Images seen a second."""
        return self.batch_size / self.step_s

    @property
    def seconds(self) -> float:
        """To the end of the run."""
        return self.total_images / self.images_per_s

    @property
    def dollars(self) -> float:
        """On demand."""
        return self.price * self.seconds / 3600

    @property
    def spot_dollars(self) -> float:
        """On spot machines."""
        return self.dollars * SPOT_SHARE

    @property
    def binds(self) -> str:
        """What a step waits for longest."""
        if max(self.read_s, self.decode_s) >= self.work_s + self.exposed_s:
            return "data: S3" if self.read_s > self.decode_s else "data: decoding"
        if self.exposed_s > self.work_s:
            return "network"
        if self.launch_s > self.gpu_s:
            return "kernel launches"
        return "compute" if self.compute_s > self.memory_s else "GPU memory bandwidth"

    @property
    def cores(self) -> float:
        """Cores of each worker that decoding keeps busy."""
        return self.core_s / self.step_s

    @property
    def store_requests_per_s(self) -> float:
        """Requests a second of all workers."""
        return self.store_bytes_per_s / self.shard_bytes

    @property
    def store_bytes_per_s(self) -> float:
        """Bytes a second that all workers read."""
        return self.read_bytes / self.step_s


@dataclass(frozen=True)
class Forecast:
    """Predictions of an experiment on a GPU type, from the counts of one pass.

    count: a step of one pass. pass_images: images that go through the networks at once.
    """

    experiment: Experiment
    samples: Samples
    gpu: GPUType
    count: StepCount
    pass_images: int

    def at(self, workers: int, machine: Machine | None = None) -> Prediction:
        """With so many workers of one GPU each, on the machine of AWS that costs the least by default."""
        machine = machine or machine_for(self.gpu, workers)
        on_one = min(workers, machine.gpus if machine else 8)
        machines = -(-workers // on_one)
        batching = self.experiment.training.batching
        most = self.most_images(workers)
        passes = -(-most // self.pass_images)
        compute, memory = self._kernel_times()
        network = machine.network if machine else 10e9 / 8
        pixels = prod(self.samples.index.shape.dims)
        in_memory = self.samples.index.samples * pixels <= self.experiment.data.decoded_bytes
        read_bytes = 0 if in_memory else batching.batch_size * self.count.draws * self.samples.sample_bytes
        cores = max(1, min(self.experiment.data.workers or 1, (machine.cpus // machine.gpus if machine else 4) - 1))
        core_s = 0.0 if in_memory else most * self.count.draws * (DECODE_S + DECODE_S_A_BYTE * pixels)
        reduce_s = self._reduce_s(workers, machines, network)
        work_s = max(compute + memory, self.count.launches * LAUNCH_S)
        return Prediction(
            workers=workers,
            machines=machines,
            pass_images=self.pass_images,
            compute_s=compute * most / self.pass_images,
            memory_s=memory * most / self.pass_images,
            launch_s=self.count.launches * LAUNCH_S * passes,
            reduce_s=reduce_s,
            exposed_s=max(0.0, reduce_s - _BACKWARD * work_s),
            read_s=read_bytes / machines / network,
            decode_s=core_s / cores,
            batch_size=batching.batch_size,
            total_images=self.experiment.training.total_images,
            price=machines * machine.price if machine else float("nan"),
            read_bytes=read_bytes,
            shard_bytes=self.samples.shard_bytes,
            core_s=core_s,
        )

    def for_workers(self, workers: int) -> Forecast:
        """With the passes that so many workers take: see `images_of_pass`."""
        return self.in_passes_of(images_of_pass(self.experiment, self.count, self.usable_bytes, workers))

    def in_passes_of(self, images: int) -> Forecast:
        """The same with other passes, by proportion: as many kernels a pass, each with its share of the work."""
        share = images / self.pass_images
        kernels: dict[Kernel, float] = {}
        for kernel, times in self.count.kernels.items():
            part = kernel._replace(flops=round(kernel.flops * share), bytes=round(kernel.bytes * share))
            kernels[part] = kernels.get(part, 0) + times
        peak = self.count.state_bytes + round((self.count.peak_bytes - self.count.state_bytes) * share)
        return replace(
            self, count=replace(self.count, kernels=kernels, images=images, peak_bytes=peak), pass_images=images
        )

    def most_images(self, workers: int) -> int:
        """Images of a step that the worker with the most of them has."""
        return _most_images(self.experiment, workers)

    def peak_bytes(self, workers: int = 1) -> int:
        """Memory of one worker: every tensor of a pass, gradients of the passes before, and DDP's buckets."""
        several = self.most_images(workers) > self.pass_images
        return self.count.peak_bytes + _more_bytes(self.count, workers, several)

    @property
    def usable_bytes(self) -> int:
        """Memory that tensors can have."""
        return usable_bytes(self.gpu.memory_bytes)

    def fits(self, workers: int = 1) -> bool:
        """True if a pass fits the GPU's memory."""
        return self.peak_bytes(workers) <= self.usable_bytes

    def largest_pass(self, workers: int = 1) -> int:
        """Images of the largest pass that fits; 0 for none. Memory beyond the state is proportional to images."""
        several = self.most_images(workers) > self.pass_images
        return _fitting_images(self.count, self.usable_bytes - _more_bytes(self.count, workers, several))

    def _kernel_times(self) -> tuple[float, float]:
        """Seconds of a pass in kernels that are bound by FLOPs, and in those bound by the memory's bandwidth."""
        compute = memory = 0.0
        float32 = self.gpu.tf32 if self.experiment.training.tf32 else self.gpu.fp32
        for kernel, times in self.count.kernels.items():
            peak = float32 if kernel.dtype.itemsize > 2 else self.gpu.bf16
            of_flops = kernel.flops / (peak * self.gpu.utilisation)
            of_bytes = kernel.bytes / (self.gpu.bandwidth * BANDWIDTH_SHARE)
            if of_flops > of_bytes:
                compute += times * of_flops
            else:
                memory += times * of_bytes
        return compute, memory

    def _reduce_s(self, workers: int, machines: int, network: float) -> float:
        """Seconds in which all workers' gradients are averaged: a ring for the bytes, a tree for the latency."""
        if workers == 1:
            return 0.0
        compressed = self.experiment.training.gradient_compression == "bf16"
        total = sum(self.count.turns) / (2 if compressed else 1)
        bandwidth = min(self.gpu.link, network) if machines > 1 else self.gpu.link
        buckets = sum(-(-turn // _BUCKET_BYTES) for turn in self.count.turns)
        return 2 * (workers - 1) / workers * total / bandwidth + buckets * 2 * log2(workers) * _HOP_S

    @property
    def bf16_share(self) -> float:
        """Share of the FLOPs in 16-bit types."""
        half = sum(kernel.flops * times for kernel, times in self.count.kernels.items() if kernel.dtype.itemsize <= 2)
        return half / max(1, self.count.flops)


def usable_bytes(memory_bytes: int) -> int:
    """What tensors can have of a GPU's memory."""
    return int(memory_bytes * (1 - FRAGMENTATION)) - RESERVED_BYTES


def images_of_pass(experiment: Experiment, count: StepCount, memory_bytes: int, workers: int) -> int:
    """Images of the passes of each of so many workers: --training.pass-images, and no more than a worker's share.

    By default as many microbatches as fit into memory_bytes, if the objective joins them, and one at least. count: of a
    pass of any size; memory beyond its state is proportional to images.
    """
    training, share = experiment.training, _most_images(experiment, workers)
    size = training.microbatch_size
    if training.pass_images or not experiment.objective.joins_microbatches:
        return min(training.pass_images or size, share)
    one, several = (memory_bytes - _more_bytes(count, workers, several) for several in (False, True))
    if _fitting_images(count, one) >= share:
        return share
    return max(1, _fitting_images(count, several) // size) * size


def _most_images(experiment: Experiment, workers: int) -> int:
    batching = experiment.training.batching
    return -(-batching.microbatches // workers) * batching.microbatch_size


def _more_bytes(count: StepCount, workers: int, several_passes: bool) -> int:
    """Memory beside that of a pass: gradients of the passes before it, and DDP's buckets."""
    earlier = max(count.networks.values()) if several_passes else 0
    return earlier + (sum(count.networks.values()) if workers > 1 else 0)


def _fitting_images(count: StepCount, memory_bytes: int) -> int:
    each = (count.peak_bytes - count.state_bytes) / count.images
    return max(0, int((memory_bytes - count.state_bytes) / each))


def forecast(experiment: Experiment, samples: Samples, gpu: GPUType) -> Forecast:
    """Count one pass of a training by fake tensors: of --training.pass-images, by default of one microbatch.

    Raises ValueError where the networks do not fit the samples.
    """
    images = experiment.training.pass_images or experiment.training.microbatch_size
    return Forecast(experiment, samples, gpu, count_step(experiment, samples.index, images), images)
