"""Whether a model repeats its training data: the nearest training samples of what it generates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from imagegen_dist.data.modality import to_float, to_uint8
from imagegen_dist.distributed import World
from imagegen_dist.evaluation.generated import Generate, chunks
from imagegen_dist.evaluation.observer import Copies, Dataset
from imagegen_dist.evaluation.reading import read_chunks
from imagegen_dist.experiment import EvaluationConfig
from imagegen_dist.metrics.copying import closeness, copying_z, nearest
from imagegen_dist.metrics.features import FeatureNetwork, pixel_network
from imagegen_dist.training.loop import keyed_draw

SAMPLES = 1000
"""Generated samples, and held-out ones, whose neighbours are looked for, at most."""

PICTURE_OF_COPIES = "neighbours"
CAPTION = (
    "Is it a copy? On the left the ten samples that come nearest to training samples, beside each its nearest training "
    "samples with their distances. Below a sample: its distance to the first of them, over that one's to the next "
    "training sample. A copy has 0, an authentic sample more than 1."
)

_SHOWN, _NEIGHBOURS = 10, 8
_BATCH = 250


@torch.no_grad()
def find_copies(
    samples: Tensor,
    training: Dataset,
    held_out: Dataset | None,
    network: FeatureNetwork,
    searched: int,
    device: torch.device,
) -> Copies:
    """Hold samples, uint8 [N, C, *S], against the training samples that are nearest in a network's features.

    held_out: samples of the same kind that the model has not seen; as many as there are, up to N. searched: how many
    training samples are looked through, the first of them. In memory are the features of all that are looked at.
    Raises ValueError without a sample, or with fewer than two training samples.
    """
    if len(samples) < 1 or min(searched, training.index.samples) < 2:
        raise ValueError("copies are looked for of 1 sample or more, among 2 training samples or more")
    searched = min(searched, training.index.samples)
    among = _features(network, _parts(training, searched), device)
    found = nearest(_features(network, samples.split(_BATCH), device), among, min(_NEIGHBOURS, searched))
    ratio = closeness(found, among)
    figures = {"authenticity": float((ratio > 1).double().mean())}
    if held_out is not None:
        count = min(len(samples), held_out.index.samples)
        real = nearest(_features(network, _parts(held_out, count), device), among, 1)
        figures["authenticity_real"] = float((closeness(real, among) > 1).double().mean())
        figures["copying_z"] = copying_z(found.distances[:, 0], real.distances[:, 0])

    closest = ratio.argsort()[:_SHOWN]
    ids, place = found.rows[closest].cpu().unique(return_inverse=True)
    neighbours = training.read(ids.tolist())[0][place]  # [rows, k, C, *S]
    pictures = torch.cat([samples[closest.to(samples.device), None].cpu(), neighbours], 1).flatten(0, 1).numpy()
    captions = []
    for times, distances in zip(ratio[closest].tolist(), found.distances[closest].tolist(), strict=True):
        captions += [f"×{times:.2f}", *(f"{distance:.3g}" for distance in distances)]
    return Copies(figures, pictures, 1 + neighbours.shape[1], captions)


@torch.no_grad()
def look_for_copies(
    generate: Generate,
    classes: int,
    evaluation: EvaluationConfig,
    training: Dataset,
    held_out: Dataset | None,
    network: FeatureNetwork | None,
    device: torch.device,
) -> Copies | None:
    """What `find_copies` says of a model's samples, their classes in turn; None where the settings do not ask for it.

    network: None takes the pixels themselves, averaged.
    """
    if not evaluation.samples or not evaluation.searched or training.index.samples < 2:
        return None
    parts = []
    for chunk, ids in chunks(min(evaluation.samples, SAMPLES), World()):
        label = torch.tensor(ids, device=device) % classes if classes else None
        parts.append(to_uint8(generate(len(ids), keyed_draw(0, 0, "copies", chunk, device), label)))
    network = network or pixel_network(training.index.shape)
    return find_copies(torch.cat(parts), training, held_out, network, evaluation.searched, device)


def _features(network: FeatureNetwork, parts: Iterable[Tensor], device: torch.device) -> Tensor:
    """Features of samples in parts, uint8 [B, C, *S] each: [N, F]."""
    return torch.cat([network.features(to_float(part.to(device))) for part in parts])


def _parts(dataset: Dataset, count: int) -> Iterator[Tensor]:
    """The first samples of a dataset."""
    return (samples for _, samples in read_chunks(dataset, range(count)))
