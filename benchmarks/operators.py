"""Operators of one training step of every preset: `python -m benchmarks.operators [PRESET ...] [--json FILE]`

On a GPU, each operator of an eager step costs the host several microseconds and starts a kernel or more, whatever the
size of its tensors: a step of small operators waits for the host. Counted are all operators that PyTorch dispatches
below autograd, views included, and among them convolutions and their gradients, in an eager step of one microbatch
halfway through the training, when augmentation and penalties are at work.

Tensors are fake, on a fake device that is not the CPU: nothing is computed, and a preset takes seconds on any machine.
A tensor on the wrong device is an error. Every place where the host would wait for a GPU is listed as a stall: values
that are read, results whose size depends on values, and copies between devices that are not `non_blocking`.
"""

from __future__ import annotations

import argparse
import json
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.fake_gpu import fake_gpu
from imagegen_dist import config
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.stream import Item
from imagegen_dist.distributed import World
from imagegen_dist.evaluation.encoding import Encoded
from imagegen_dist.evaluation.engine import Generated, Wanted
from imagegen_dist.evaluation.requested_classes import RequestedClasses
from imagegen_dist.experiment import build_networks, build_trainer
from imagegen_dist.inference import model as model_module
from imagegen_dist.inference.model import Model
from imagegen_dist.metrics.features import pixel_network
from imagegen_dist.objectives.vae_gan import VAEGANConfig
from imagegen_dist.objectives.variational import Autoencodes
from imagegen_dist.prediction.counting import halfway
from imagegen_dist.presets import PRESETS, find_preset

CONVOLUTION = "aten.convolution.default"
GRADIENTS = "aten.convolution_backward.default"

# Their results, or the sizes of their results, are known to the host once the device has computed them.
READING = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "repeat_interleave.Tensor",
    "item",
)
COPYING = ("_to_copy", "copy_")
_UNCHECKED = dict.fromkeys(("check_label", "check_latents"), lambda *_, **__: None)


@dataclass(frozen=True)
class Operators:
    """Operators of one step by name, and where the host would wait for the device, with how often it does."""

    by_name: Mapping[str, int]
    stalls: Mapping[str, int]

    @property
    def total(self) -> int:
        """All operators."""
        return sum(self.by_name.values())

    @property
    def convolutions(self) -> int:
        """Those that are convolutions."""
        return self.by_name.get(CONVOLUTION, 0)

    @property
    def gradients(self) -> int:
        """Those that are gradients of convolutions, for input or weight or both."""
        return self.by_name.get(GRADIENTS, 0)


class Counting(TorchDispatchMode):
    """While it is entered, counts the operators that are dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self._found: Counter[Any] = Counter()
        self._stalls: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function.namespace == "aten" and _handles_tensors(function):
            self._found[function] += 1
            if _stalls(function, args, kwargs or {}, result):
                self._stalls[f"{function} at {_place()}"] += 1
        return result

    def operators(self) -> Operators:
        """What was counted."""
        return Operators({str(function): number for function, number in self._found.most_common()}, self._stalls)


@cache
def _handles_tensors(function: Any) -> bool:
    """False for questions after types and devices."""
    schema = function._schema
    return any("Tensor" in str(each.type) for each in (*schema.arguments, *schema.returns))


def _stalls(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> bool:
    """Whether the host would wait for the device."""
    name = function.overloadpacket.__name__
    if name in READING or str(function).removeprefix("aten.") in READING:
        return any(isinstance(each, Tensor) and each.device.type != "cpu" for each in args)
    if name not in COPYING:
        return False
    source, target = (args[1], args[0]) if name == "copy_" else (args[0], result)
    waits = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
    return waits and source.device.type != target.device.type


def _place() -> str:
    """Where in the package the current operator was called."""
    frames = [frame for frame in traceback.extract_stack() if "imagegen_dist" in frame.filename]
    return f"{frames[-1].filename.rpartition('imagegen_dist/')[2]}:{frames[-1].lineno}" if frames else "its backward"


def operators_of_step(name: str) -> Operators:
    """Operators of one eager step of a preset with one microbatch of its own size; LPIPS has random weights.

    Where steps differ, that of the largest.
    """
    preset = find_preset(name)
    experiment = preset.experiment
    size = experiment.training.microbatch_size
    changes = {"training.batch_size": size, "training.compile": False}
    if isinstance(experiment.objective, VAEGANConfig):
        changes |= {"objective.perceptual": "random", "objective.adversarial_from_images": 0}
    experiment = config.overrides(experiment, changes.items())
    with fake_gpu() as device:
        trainer = build_trainer(experiment, find_preset(name).imagined_index(), World(), device)
        turns = len(trainer.objective.phases())
        sample = torch.zeros((turns, 1, size, *preset.shape.dims), dtype=torch.uint8)
        numbers = torch.zeros(turns, 1, size, dtype=torch.int64)
        item = Item(0, sample, numbers if preset.classes else None, numbers, {}, [])
        trainer.images = halfway(experiment, size)
        trainer.step(item)  # makes the optimizers' state, and the constants of augmentation
        trainer.images = halfway(experiment, size)
        with Counting() as counting:
            trainer.step(item)
    return counting.operators()


def operators_of_use(name: str) -> dict[str, Operators]:
    """Operators of a preset's trained networks: "sample" 8 samples, "evaluate" as many, "encode" them if it can."""
    preset = find_preset(name)
    classes, found = preset.classes, {}
    with fake_gpu() as device:
        networks = build_networks(preset.experiment, preset.shape, classes or None)
        networks = {role: network.to(device).requires_grad_(False) for role, network in networks.items()}
        objective = preset.experiment.objective
        sampler = objective.sampler(networks)
        model = Model(sampler, preset.shape, classes, 0, "image")
        drawn, label = model.latents(8), model.labels(8)
        # What is asked for is checked before it is sent to the device, and fake tensors have no values.
        with Counting() as counting, patch.multiple(model_module, **_UNCHECKED):
            model.generate(drawn, label)
        found["sample"] = counting.operators()
        wanted = [Wanted(pixel_network(preset.shape), keep=True)]
        generated = Generated(sampler, 8, 0, RequestedClasses(classes), wanted, device)
        sources: dict[str, Generated | Encoded] = {"evaluate": generated}
        if isinstance(objective, Autoencodes):
            dataset = cast(Dataset, _Grey(find_preset(name).imagined_index()))
            sources["encode"] = Encoded(objective.autoencoder(networks), dataset, 8, wanted, device, bool(classes))
        for kind, source in sources.items():
            with Counting() as counting:
                source.measure(range(1), lambda _: None)
            found[kind] = counting.operators()
    return found


@dataclass(frozen=True)
class _Grey:
    """A dataset of grey samples of class 0."""

    index: DatasetIndex

    def read(self, ids: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        numbers = torch.zeros(len(ids), dtype=torch.int64)
        return torch.zeros(len(ids), *self.index.shape.dims, dtype=torch.uint8), numbers if self.index.classes else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=list(PRESETS))
    parser.add_argument("--names", type=int, default=0, metavar="N", help="list the N most frequent operators as well")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="keep all operators by name, and stalls, in this file"
    )
    given = parser.parse_args()
    print("| preset | operators | convolutions | gradients of convolutions | stalls |\n|---|---|---|---|---|")
    kept = {}
    for name in given.presets:
        found = operators_of_step(name)
        kept[name] = asdict(found)
        numbers = found.total, found.convolutions, found.gradients, sum(found.stalls.values())
        print(f"| {name} | {' | '.join(f'{number:,}' for number in numbers)} |", flush=True)
        for operator, number in [*list(found.by_name.items())[: given.names], *found.stalls.items()]:
            print(f"    {number:6,} {operator}")
    if given.json:
        given.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
