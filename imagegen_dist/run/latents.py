"""A run on latents: its decoder, and the datasets that its metrics compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.decoding.decoder import FACT, LatentDecoder, decodes, read_decoder
from imagegen_dist.decoding.document import NAME, read_origin
from imagegen_dist.decoding.pictures import Decoding, open_pictures
from imagegen_dist.distributed import World, text_from_main, together
from imagegen_dist.experiment import Experiment, conditioning
from imagegen_dist.run_folder import CheckpointError
from imagegen_dist.storage import PATIENCE_S, Store
from imagegen_dist.wording import message


@dataclass(frozen=True)
class Compared:
    """The datasets that a run's generated samples are compared with, and how latents are decoded."""

    training: Dataset
    held_out: Dataset | None
    decoding: Decoding | None = None

    @property
    def decoder(self) -> LatentDecoder | None:
        """The decoder of the run's latents; None if it has none."""
        return self.decoding.decoder if self.decoding else None


def compared(
    experiment: Experiment,
    training: tuple[Dataset, str],
    held_out: tuple[Dataset | None, str],
    world: World,
    device: torch.device,
    say: Callable[[str], None],
) -> Compared:
    """What a run on these datasets, each with its URL, is evaluated with. Called by every rank.

    Samples of latents are decoded, and compared with the dataset that was encoded; if that cannot be read, metrics are
    of latents, and the user is told. Raises the errors of `read_decoder`.
    """
    (data, url), (validation, validation_url) = training, held_out
    plain = Compared(data, validation)
    decoder = together(lambda: run_decoder(experiment, data.index, url), world, device)
    if decoder is None:
        return plain
    decoder.to(device)

    def pictures() -> tuple[Dataset, Dataset | None]:
        found = open_pictures(data.index, Store(url, PATIENCE_S), experiment.data)
        if validation is None:
            return found, None
        return found, open_pictures(data.index, Store(validation_url, PATIENCE_S), experiment.data)

    missing = ""
    if world.is_main:
        try:
            pictures()
        except (ValueError, OSError) as error:
            missing = message(error)
    missing = text_from_main(missing, world, device)
    if missing:
        if world.is_main:
            say(f"metrics are of latents, and only pictures are decoded: {missing}")
        return Compared(data, validation, Decoding(decoder, measures=False))
    return Compared(*together(pictures, world, device), Decoding(decoder, measures=True))


def measured_index(experiment: Experiment, index: DatasetIndex, url: str) -> tuple[DatasetIndex, Sequence[str]]:
    """The index of what metrics are of, for a run on data at a URL, and what a user should know about it.

    Reads the autoencoder of latents as a run does. Raises the errors of `read_decoder`.
    """
    place = Store(url, PATIENCE_S)
    if not decodes(experiment) or not place.exists(NAME):
        return index, ()
    measured, why = _measured(experiment, index, place)
    notes = [f"metrics {why}"] if why else []
    if experiment.data.flip:
        notes.append(
            "--data.flip mirrors latents, not the pictures before them: set it to false, and encode with --flip"
        )
    return measured, notes


def _measured(experiment: Experiment, index: DatasetIndex, place: Store) -> tuple[DatasetIndex, str]:
    """As `measured_index`, with the reason if metrics are of latents."""
    if read_origin(place) is None:
        return index, "and pictures will be of latents: their dataset has no autoencoder; encode it again"
    if run_decoder(experiment, index, place.url) is None:
        return index, "and pictures will be of latents: their decoder needs --data.conditional true"
    try:
        return open_pictures(index, place, experiment.data).index, ""
    except (ValueError, OSError) as error:
        return index, f"will be of latents, and only pictures are decoded: {message(error)}"


def run_decoder(experiment: Experiment, index: DatasetIndex, url: str) -> LatentDecoder | None:
    """The decoder of the samples that an experiment's networks generate after training on data at a URL.

    None if there is none, or if the networks are not told the classes that the decoder needs. Raises the errors of
    `read_decoder`.
    """
    if not decodes(experiment) or (decoder := read_decoder(Store(url, PATIENCE_S))) is None:
        return None
    if not decoder.fit_(index.shape.dims):
        raise CheckpointError(f"{url} has samples of {index.shape}, and their decoder takes {decoder.latent_dims}")
    if decoder.width and decoder.width != conditioning(experiment, index.labels):
        return None
    return decoder


def check_decoder(decoder: LatentDecoder | None, facts: Mapping[str, Any], url: str) -> None:
    """Raise CheckpointError if a checkpoint's latents have another decoder than the data's. url: of the checkpoint."""
    before = facts.get(FACT)
    if decoder is None or before is None:
        return
    if before["autoencoder"]["sha256"] != decoder.fingerprint:
        raise CheckpointError(f"{url}: the data's autoencoder is not that of this checkpoint; choose another --run")
