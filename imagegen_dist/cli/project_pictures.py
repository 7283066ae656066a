"""What `imagegen project` does: read pictures, find their latents, and write a grid and arrays."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from imagegen_dist.cli.device import pick_device
from imagegen_dist.cli.progress import ProgressBar
from imagegen_dist.cli.sample_directions import DirectionSweep, parse_directions, sweep_latents
from imagegen_dist.data.conversion import Conversion, convert_picture
from imagegen_dist.data.modality import modality, stored_type
from imagegen_dist.errors import UsageError
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.inference.kept_encoder import encoder_beside
from imagegen_dist.inference.loading import build_model, read_trained
from imagegen_dist.inference.model import Model
from imagegen_dist.inference.pair_encoder import PairEncoder, PairTraining
from imagegen_dist.inference.projection import Projection, Search, project
from imagegen_dist.storage import file_at
from imagegen_dist.wording import first_line

if TYPE_CHECKING:
    from imagegen_dist.cli.project import Options

_SHOWN_WEIGHT = 0.1
_TOLD = 3  # classes in the line on a picture


def run(options: Options) -> None:
    """Project, write what is asked for, and print a line on each picture. Raises UsageError before anything is."""
    sweep = parse_directions(options.direction)
    trained = read_trained(options.checkpoint)
    model = build_model(trained).to(pick_device(options.device))
    if model.modality != "image":
        raise UsageError(f"this model makes {model.modality}: pictures are found in a model of pictures")
    pictures = torch.stack([_read(path, model, "PICTURE") for path in options.pictures])
    mask = _read(options.mask, model, "--mask").float().mean(0) / 255 if options.mask else None
    encoder = _encoder(model, trained.url, options) if options.encoder else None
    with ProgressBar("projecting") as bar:
        bar.start(options.search_steps, 0, "projecting")
        found = _project(model, pictures, options.search_steps, mask, bar, encoder)
    for number, path in enumerate(options.pictures):
        print(f"{path}: PSNR {float(found.psnr[number]):.1f} dB{_classes(model, found, number)}")
    if options.grid:
        shown = torch.cat([pictures[:, None], found.samples[:, None], _edits(model, found, sweep)], 1)
        data, _ = modality("image").preview(shown.flatten(0, 1).numpy(), shown.shape[1], options.scale or None)
        _write(options.grid, data)
        print(f"{len(pictures)} × {shown.shape[1]}, the picture, what was found, edits: {options.grid}")
    if options.latents:
        arrays = {"z": found.z, "psnr": found.psnr, **({} if found.label is None else {"label": found.label})}
        _write(options.latents, _npz(arrays))
        print(f"{', '.join(arrays)}: {options.latents}")


def _encoder(model: GeneratorModel | AutoencoderModel, url: str, options: Options) -> PairEncoder:
    """The encoder beside the model, trained if there is none. Raises UsageError."""
    training = PairTraining(options.encoder_pairs, timeout_s=60 * options.encoder_minutes)
    with ProgressBar("training the encoder on pairs") as bar:
        bar.start(training.steps * training.batch, 0, "reading or training the encoder")
        try:
            kept = encoder_beside(model, url, training, bar.advance)
        except TimeoutError as error:
            raise UsageError(f"--encoder-minutes {options.encoder_minutes:g}: {error}") from None
        except ValueError as error:
            raise UsageError(f"--encoder: {error}") from None
    if kept.trained:
        said = f"not kept: {kept.lost}" if kept.lost else f"kept in {kept.place}"
        print(f"encoder trained on {kept.trained:,} pairs, {said}")
    return kept.encoder


def _project(
    model: GeneratorModel | AutoencoderModel,
    pictures: Tensor,
    steps: int,
    mask: Tensor | None,
    bar: ProgressBar,
    encoder: PairEncoder | None,
) -> Projection:
    try:
        return project(model, pictures, Search(steps), mask, tell=bar.advance, encoder=encoder)
    except ValueError as error:
        raise UsageError(f"{error}") from None


def _edits(model: Model, found: Projection, sweep: DirectionSweep) -> Tensor:
    """The samples along the sweep, uint8 [B, columns, C, H, W]; no column without a direction."""
    if not sweep.names:
        return found.samples[:, None][:, :0]
    made = sweep_latents(model, found.z, found.label, sweep)
    return made.reshape(len(found.z), sweep.columns, *made.shape[1:]).cpu()


def _read(path: str, model: Model, said: str) -> Tensor:
    """A picture file as the model's samples are, uint8 [C, H, W]. Raises UsageError."""
    height, width = model.shape.spatial
    try:
        store, name = file_at(path)
        conversion = Conversion((height, width), model.shape.channels, bits=model.shape.bits)
        made = convert_picture(store.read(name), conversion, "png")
    except (OSError, ValueError) as error:
        raise UsageError(f"{said} {path}: {first_line(error)}") from None
    out = np.empty(model.shape.dims, stored_type(model.shape))
    modality("image").decode_into(made.data, "png", out)
    return torch.from_numpy(out)


def _classes(model: Model, found: Projection, number: int) -> str:
    """The classes that make up most of what was found, in words."""
    if found.label is None or not model.classes or model.conditions is not None:
        return ""
    weights = found.label[number]
    names = model.class_names or tuple(map(str, range(model.classes)))
    first = weights.argsort(descending=True)[:_TOLD].tolist()
    some = [f"{names[k]} {float(weights[k]):.0%}" for k in first if float(weights[k]) >= _SHOWN_WEIGHT]
    return f", class {', '.join(some)}"


def _npz(arrays: dict[str, Tensor]) -> bytes:
    made = io.BytesIO()
    numbers: dict[str, Any] = {name: array.numpy() for name, array in arrays.items()}
    np.savez(made, **numbers)
    return made.getvalue()


def _write(url: str, data: bytes) -> None:
    store, name = file_at(url)
    store.write(name, data)
