"""GPU types, and the machines of AWS that have them. FLOP/s are those of the data sheets, without sparsity."""

from __future__ import annotations

from dataclasses import dataclass

from imagegen_dist.config import nearest
from imagegen_dist.errors import UsageError

SPOT_SHARE = 0.5
"""Price of a spot machine over the one on demand: the market's is often a third to two thirds."""


@dataclass(frozen=True)
class GPUType:
    """What a GPU can do at most, and what training is expected to reach."""

    name: str
    memory_bytes: int
    bf16: float
    """FLOP/s of matrix products and convolutions in bfloat16."""
    tf32: float
    """FLOP/s in float32 with TF32; where the GPU has none, in float32."""
    fp32: float
    """FLOP/s in float32 without TF32."""
    bandwidth: float
    """Bytes a second of its memory."""
    utilisation: float
    """Share of the FLOP/s that training is expected to reach. A guess until it was measured."""
    link: float
    """Bytes a second that one GPU sends to the next one of the same machine."""


@dataclass(frozen=True)
class Machine:
    """A machine of AWS. price: $ an hour on demand in us-west-2, a list price of 2026, to be checked before use."""

    name: str
    gpu: str
    gpus: int
    cpus: int
    network: float
    """Bytes a second that its network sustains in either direction."""
    price: float
    in_cluster: bool = False
    """True for the machines that cluster/aws.yaml starts as it is."""


_G = 1e9
_T = 1e12
_NVLINK, _PCIE4, _PCIE3 = 300 * _G, 20 * _G, 10 * _G

GPU_TYPES = {
    each.name: each
    for each in (
        GPUType("t4", 15 << 30, 8.1 * _T, 8.1 * _T, 8.1 * _T, 300 * _G, 0.4, _PCIE3),
        GPUType("v100", 16 << 30, 15.7 * _T, 15.7 * _T, 15.7 * _T, 900 * _G, 0.4, 100 * _G),
        GPUType("a10g", 22 << 30, 70 * _T, 35 * _T, 31.2 * _T, 600 * _G, 0.4, _PCIE4),
        GPUType("l4", 22 << 30, 121 * _T, 60 * _T, 30.3 * _T, 300 * _G, 0.4, _PCIE4),
        GPUType("l40s", 44 << 30, 362 * _T, 183 * _T, 91.6 * _T, 864 * _G, 0.4, _PCIE4),
        GPUType("rtx3090", 23 << 30, 71 * _T, 35.6 * _T, 35.6 * _T, 936 * _G, 0.4, _PCIE4),
        GPUType("rtx4090", 23 << 30, 165 * _T, 82.6 * _T, 82.6 * _T, 1008 * _G, 0.4, _PCIE4),
        GPUType("a100", 39 << 30, 312 * _T, 156 * _T, 19.5 * _T, 1555 * _G, 0.4, 250 * _G),
        GPUType("a100-80gb", 79 << 30, 312 * _T, 156 * _T, 19.5 * _T, 2039 * _G, 0.4, 250 * _G),
        GPUType("h100", 79 << 30, 989 * _T, 494 * _T, 67 * _T, 3350 * _G, 0.35, _NVLINK),
        GPUType("h200", 139 << 30, 989 * _T, 494 * _T, 67 * _T, 4800 * _G, 0.35, _NVLINK),
        GPUType("b200", 178 << 30, 2250 * _T, 1100 * _T, 75 * _T, 7700 * _G, 0.3, 2 * _NVLINK),
    )
}
"""By name. Memory is what is left to processes; T4 and V100 have no bfloat16, and compute it in float32."""

_GBIT = 1e9 / 8

MACHINES = (
    Machine("g6.xlarge", "l4", 1, 4, 2.5 * _GBIT, 0.8048, True),
    Machine("g5.xlarge", "a10g", 1, 4, 2.5 * _GBIT, 1.006, True),
    Machine("g6e.xlarge", "l40s", 1, 4, 2.5 * _GBIT, 1.861, True),
    Machine("g4dn.xlarge", "t4", 1, 4, 5 * _GBIT, 0.526),
    Machine("p3.2xlarge", "v100", 1, 8, 2.5 * _GBIT, 3.06),
    Machine("g6.12xlarge", "l4", 4, 48, 40 * _GBIT, 4.602),
    Machine("g5.12xlarge", "a10g", 4, 48, 40 * _GBIT, 5.672),
    Machine("g6e.12xlarge", "l40s", 4, 48, 100 * _GBIT, 10.493),
    Machine("p5.4xlarge", "h100", 1, 16, 100 * _GBIT, 6.88),
    Machine("p4d.24xlarge", "a100", 8, 96, 400 * _GBIT, 21.958),
    Machine("p4de.24xlarge", "a100-80gb", 8, 96, 400 * _GBIT, 27.447),
    Machine("p5.48xlarge", "h100", 8, 192, 3200 * _GBIT, 55.04),
    Machine("p5en.48xlarge", "h200", 8, 192, 3200 * _GBIT, 63.296),
    Machine("p6-b200.48xlarge", "b200", 8, 192, 3200 * _GBIT, 113.933),
)


def gpu_type(name: str) -> GPUType:
    """The GPU type of that name, in any case. Raises UsageError."""
    found = GPU_TYPES.get(name.lower())
    if found is None:
        raise UsageError(f"--gpu-type {name}: {nearest(name.lower(), GPU_TYPES)}")
    return found


def machine_for(gpu: GPUType, workers: int = 1) -> Machine | None:
    """The machine of AWS on which so many workers with one GPU each cost the least; None if AWS has none.

    At equal prices fewer machines, whose GPUs are connected directly.
    """

    def cost(machine: Machine) -> tuple[float, int, int]:
        number = -(-workers // machine.gpus)
        return round(number * machine.price, 2), number, machine.gpus

    return min((each for each in MACHINES if each.gpu == gpu.name), key=cost, default=None)
