"""Samples a second and the latency of one, by engine: `python benchmarks/sampling.py [PRESET ...]`

Each engine makes uint8 samples of a preset's networks (first weights: speed does not depend on them) as jobs/sample.py
does: latents drawn beforehand, batches of one size. Beside them "as in training": the same networks called with
gradients on, without inference mode, which is how a sampler is often written. What differs from eager is counted in
grey levels. Figures are of one process with as many threads as OMP_NUM_THREADS says.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from datetime import date

import torch
from torch import Tensor

from imagegen_dist import config
from imagegen_dist.data.modality import to_uint8
from imagegen_dist.experiment import build_networks
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.engines import ENGINES, use_engine_
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.inference.loading import Trained, build_model
from imagegen_dist.presets import find_preset
from imagegen_dist.training.state import flatten

NAIVE = "as in training"


def model_of(name: str) -> GeneratorModel | AutoencoderModel:
    """A preset's model with its first weights."""
    preset = find_preset(name)
    networks = build_networks(preset.experiment, preset.shape, preset.classes or None)
    kept = preset.experiment.objective.sampler(networks).modules()
    data = {"shape": config.encode(preset.shape), "classes": preset.classes or None, "modality": "image"}
    facts = {"experiment": config.encode(preset.experiment), "data": data, "images": 0}
    tensors = flatten({role: network.state_dict() for role, network in kept.items()})
    return build_model(Trained(name, facts, tensors))


def naive(model: GeneratorModel | AutoencoderModel) -> Callable[[Tensor, Tensor | None], Tensor]:
    """The networks called as the loss calls them."""
    return lambda drawn, label: to_uint8(model(drawn, label))


def prepared(name: str, engine: str, batch: int) -> Callable[[Tensor, Tensor | None], Tensor]:
    """A function from draws and labels to samples by one engine, which has run once."""
    model = model_of(name)
    model.batch = batch
    if engine == NAIVE:
        model.requires_grad_(True)
        naively = naive(model)

        def function(drawn: Tensor, label: Tensor | None) -> Tensor:
            parts = range(0, len(drawn), batch)
            return torch.cat([naively(drawn[at : at + batch], _some(label, at, batch)) for at in parts])

    else:
        use_engine_(model, engine)
        function = model.generate
    function(model.latents(batch), model.labels(batch))
    return function


def _some(label: Tensor | None, start: int, count: int) -> Tensor | None:
    return None if label is None else label[start : start + count]


def rate(function: Callable[..., Tensor], inputs: tuple[Tensor, Tensor | None], seconds: float) -> float:
    """Samples a second, the median over calls for about so many seconds."""
    return len(inputs[0]) / statistics.median(times(function, inputs, seconds))


def times(function: Callable[..., Tensor], inputs: tuple[Tensor, Tensor | None], seconds: float) -> list[float]:
    """Seconds of each call, at least five."""
    found: list[float] = []
    while sum(found) < seconds or len(found) < 5:
        began = time.perf_counter()
        function(*inputs)
        found.append(time.perf_counter() - began)
    return found


def row(name: str, engine: str, options: argparse.Namespace, eager: dict[str, Tensor]) -> list[str]:
    """One line of the table."""
    model, batch, seconds = model_of(name), options.batch, options.seconds
    compared, many, one = ((model.latents(n), model.labels(n)) for n in (options.compare, batch, 1))
    function = prepared(name, engine, batch)
    samples = function(*compared)
    eager.setdefault(name, samples)
    off = (samples.int() - eager[name].int()).abs()
    speed = rate(function, many, seconds)
    single = sorted(times(prepared(name, engine, 1), one, seconds))
    p50, p95 = (1000 * single[round(share * (len(single) - 1))] for share in (0.5, 0.95))
    differs = f"{int((off > 0).sum()):,} of {off.numel():,} values" if off.any() else f"no, of {off.numel():,} values"
    return [name, engine, f"{speed:,.0f}" if speed >= 10 else f"{speed:.2f}", f"{p50:.2f}", f"{p95:.2f}", differs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=["digits", "digits-vae", "dcgan", "r3gan-ffhq64"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement, about")
    parser.add_argument("--compare", type=int, default=256, help="samples that are held against eager's")
    parser.add_argument("--engines", nargs="+", default=["eager", NAIVE, *ENGINES[1:]])
    options = parser.parse_args()

    print(f"{date.today()}, batches of {options.batch}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print(f"| preset | engine | samples/s, batch {options.batch} | one sample, p50 ms | p95 ms | differs from eager |")
    print("|---|---|---|---|---|---|", flush=True)
    eager: dict[str, Tensor] = {}
    for name in options.presets:
        for engine in options.engines:
            cells = row(name, engine, options, eager)
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
