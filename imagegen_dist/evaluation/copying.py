"""Whether a model copies its training data: the nearest training samples of what it generates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.modality import to_float, to_stored
from imagegen_dist.distributed import ALONE, World
from imagegen_dist.evaluation.engine import Generated, chunks_in, ids_of, read_chunks
from imagegen_dist.metrics.copying import closeness, copied, copying_z, farther, nearest_neighbours
from imagegen_dist.metrics.features import FeatureNetwork, pixel_network
from imagegen_dist.settings import EvaluationConfig

SAMPLES = 1000
"""Maximum number of generated and of held-out samples whose neighbours are searched for."""

PICTURE_OF_COPIES = "neighbours"
CAPTION = (
    "Is it a copy? On the left the ten samples closest to training samples, each beside its nearest training "
    "samples with their distances. Below a sample: its distance to the first of them over that one's distance to "
    "the next training sample. A copy has 0, an authentic sample more than 1."
)

_SHOWN, _NEIGHBOURS = 10, 8
_BATCH = 250


class Copies(NamedTuple):
    """Results of a search for copies of training data.

    figures: "authenticity", the fraction of samples that are farther from the nearest training sample than that one is
    from the next (arXiv:2102.08921); and with held-out samples theirs as "authenticity_real", and "copying_z", far
    below 0 if samples are closer to the training data than held-out ones are (arXiv:2004.05675), "copied",
    "copied_real" and "copied_z", which identify copies, and "farther", which identifies samples off the data
    (metrics/copying.py). samples: of a picture, uint8 [N, C, *S], in rows of `columns`. captions: one per sample.
    """

    figures: dict[str, float]
    samples: np.ndarray
    columns: int
    captions: list[str]


class Closest(NamedTuple):
    """The samples closest to training samples, closest first, and the metrics of all samples.

    figures: as in `Copies`. samples: their numbers, [R]. neighbours: the numbers of the training samples nearest to
    each, nearest first, [R, k]. captions: R * (1 + k), for a picture with a row for each.
    """

    figures: dict[str, float]
    samples: Tensor
    neighbours: Tensor
    captions: list[str]


def closest_to_training(samples: Tensor, training: Tensor, held_out: Tensor | None) -> Closest:
    """Compare samples, and held-out samples, with training samples; all as features [N, F].

    Raises ValueError without a sample, or with fewer than two training samples.
    """
    if len(samples) < 1 or len(training) < 2:
        raise ValueError("the search for copies needs at least 1 sample and 2 training samples")
    found = nearest_neighbours(samples, training, min(_NEIGHBOURS, len(training)))
    ratio = closeness(found, training)
    figures = {"authenticity": float((ratio > 1).double().mean())}
    if held_out is not None and len(held_out):
        real = nearest_neighbours(held_out, training, 2)
        single = copied(found.distances, real.distances)
        figures["authenticity_real"] = float((closeness(real, training) > 1).double().mean())
        figures["copying_z"] = copying_z(found.distances[:, 0], real.distances[:, 0])
        figures |= {"copied": single.share, "copied_real": single.real, "copied_z": single.z}
        figures["farther"] = farther(found.distances[:, 0], real.distances[:, 0])
    closest = ratio.argsort()[:_SHOWN]
    captions = []
    for times, distances in zip(ratio[closest].tolist(), found.distances[closest].tolist(), strict=True):
        captions += [f"ratio {times:.2f}", *(f"{distance:.3g}" for distance in distances)]
    return Closest(figures, closest.cpu(), found.rows[closest].cpu(), captions)


def show_neighbours(samples: Tensor, closest: Closest, training: Dataset) -> Copies:
    """The closest samples, uint8 [R, C, *S], each beside its nearest training samples. Raises ShardError."""
    ids, place = closest.neighbours.unique(return_inverse=True)
    neighbours = training.read(ids.tolist())[0][place]  # [R, k, C, *S]
    pictures = torch.cat([samples[:, None].cpu(), neighbours], 1)
    return Copies(closest.figures, pictures.flatten(0, 1).numpy(), pictures.shape[1], closest.captions)


@torch.no_grad()
def find_copies(
    samples: Tensor,
    training: Dataset,
    held_out: Dataset | None,
    network: FeatureNetwork,
    searched: int,
    device: torch.device,
    alone: World = ALONE,
) -> Copies:
    """Compare samples, uint8 [N, C, *S], with the training samples that are nearest in a network's features.

    held_out: samples of the same kind that the model has not seen, of which up to N are used. searched: number of
    training samples to compare with, from the first on. The features of all these samples are kept in memory. alone:
    this process as a World, which may be asked to stop. Raises ValueError without a sample, or with fewer than two
    training samples.
    """
    among = _features(network, _parts(training, min(searched, training.index.samples), alone), device)
    real = None
    if held_out is not None:
        real = _features(network, _parts(held_out, min(len(samples), held_out.index.samples), alone), device)
    closest = closest_to_training(_features(network, samples.split(_BATCH), device), among, real)
    return show_neighbours(samples[closest.samples.to(samples.device)], closest, training)


def look_for_copies(
    generated: Generated,
    evaluation: EvaluationConfig,
    training: Dataset,
    held_out: Dataset | None,
    network: FeatureNetwork | None,
    alone: World = ALONE,
) -> Copies | None:
    """`find_copies` for generated samples; None if the settings do not request it.

    network: None compares averaged pixels. alone: as for `find_copies`.
    """
    if not evaluation.samples or not evaluation.searched or training.index.samples < 2:
        return None
    count = min(generated.samples, SAMPLES)
    chunks = alone.heeding(range(chunks_in(count)))
    samples = torch.cat([to_stored(generated.generate(ids_of(chunk, count))[0], generated.bits) for chunk in chunks])
    network = network or pixel_network(training.index.shape)
    return find_copies(samples, training, held_out, network, evaluation.searched, generated.device, alone)


def _features(network: FeatureNetwork, parts: Iterable[Tensor], device: torch.device) -> Tensor:
    """Features of batches of samples, uint8 [B, C, *S] each: [N, F]."""
    found = [network.features(to_float(part.to(device))) for part in parts]
    return torch.cat(found) if found else torch.empty(0, network.dim)


def _parts(dataset: Dataset, count: int, alone: World) -> Iterator[Tensor]:
    """The first samples of a dataset, in batches."""
    return (samples for _, samples in alone.heeding(read_chunks(dataset, range(chunks_in(count)), count)))
