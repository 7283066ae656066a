"""Samples as files, one each: pictures, films, arrays and meshes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from imagegen_dist.cli.sample_window import seen
from imagegen_dist.data.modality import modality
from imagegen_dist.data.volume_space import VolumeSpace
from imagegen_dist.data.volumes.nifti import check_nifti, write_nifti
from imagegen_dist.drawing import surfaces
from imagegen_dist.drawing.animation import check_encoder
from imagegen_dist.errors import UsageError
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.generated import sample_extension
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.inference.sampling_request import SamplingRequest
from imagegen_dist.storage import PATIENCE_S, Store
from imagegen_dist.wording import counted

if TYPE_CHECKING:
    from imagegen_dist.cli.sample import Options

FORMATS = {
    "image": ("png", "npy"),
    "video": ("webp", "mp4", "png", "npy"),
    "voxels": ("png", "webp", "mp4", "npy", "nii", "nii.gz"),
}
"""Formats of samples in a folder, by modality, the default first. A film of a volume is a turntable."""

_NIFTI = ("nii", "nii.gz")

Tell = Callable[[int], None]
"""Is told of each so many more samples."""


def check_formats(options: Options) -> None:
    """Raise UsageError for a format that nothing is written in, before a model is loaded."""
    try:
        if options.mesh:
            surfaces.check_mesher(options.format or surfaces.FORMATS[0])
        elif options.format == "mp4":
            check_encoder("mp4")
        elif options.format in _NIFTI:
            check_nifti()
    except ValueError as error:
        raise UsageError(f"{f'--format {options.format}' if options.format else '--mesh'}: {error}") from None
    if options.format and bool(options.folder) == bool(options.mesh):
        raise UsageError(f"--format {options.format} is of the files of --folder DIR or --mesh DIR: give one of them")
    known = dict.fromkeys(each for formats in FORMATS.values() for each in formats)
    if options.folder and options.format and options.format not in known:
        raise UsageError(f"--format {options.format}: files of samples are {', '.join(known)}")


def check_format_of(options: Options, model: GeneratorModel | AutoencoderModel) -> None:
    """Raise UsageError for files that samples of this modality cannot be."""
    if options.mesh and model.modality != "voxels":
        raise UsageError(f"--mesh: only volumes have surfaces, and this model makes samples of {model.modality}")
    if options.folder and options.format in _NIFTI and model.shape.channels != 1:
        raise UsageError(f"--format {options.format}: a NIfTI file holds 1 channel, and samples have several: take npy")
    formats = FORMATS[model.modality]
    if options.folder and options.format and options.format not in formats:
        raise UsageError(f"--format {options.format}: samples of {model.modality} are written as {', '.join(formats)}")


def write_folder(model: GeneratorModel | AutoencoderModel, asked: SamplingRequest, options: Options, tell: Tell) -> str:
    """Write a file a sample; what to say of it."""
    store, kind = Store(options.folder, PATIENCE_S), modality(model.modality)
    extension = options.format or FORMATS[model.modality][0]
    plain = extension == "png" and options.scale in (0, 1) and _is_picture(model, options)
    for name, sample in _samples(model, asked, tell):
        if extension in _NIFTI:
            data = _nifti(sample, model.space, extension)
        else:
            shown = sample if extension == "npy" else seen(model, sample, options)
            data = kind.encode(shown, "png") if plain else _file(model, shown, extension, options)
        store.write(f"{name}.{extension}", data)
    return f"{counted(len(asked), 'picture' if extension == 'png' else f'.{extension} file')}: {store}"


def _is_picture(model: GeneratorModel | AutoencoderModel, options: Options) -> bool:
    """True if a PNG can hold a sample with all its levels, and these are to be shown."""
    deep = model.shape.bits == 16
    if deep and model.modality == "image":
        return model.shape.channels == 1 and not options.window
    return sample_extension(model) == "png"


def write_meshes(model: GeneratorModel | AutoencoderModel, asked: SamplingRequest, options: Options, tell: Tell) -> str:
    """Write a mesh a sample that has a surface; what to say of it."""
    store, extension = Store(options.mesh, PATIENCE_S), options.format or surfaces.FORMATS[0]
    empty = watertight = 0
    for name, sample in _samples(model, asked, tell):
        found = surfaces.surface(seen(model, sample, options), options.level)
        if found is None:
            empty += 1
            continue
        if model.space.spacing or model.space.affine:
            found = surfaces.placed(found, sample.shape[1:], model.space.matrix(sample.shape[1:]))
        store.write(f"{name}.{extension}", surfaces.mesh_file(found, extension))
        watertight += surfaces.is_watertight(found)
    written = len(asked) - empty
    said = f"{counted(written, 'mesh', 'meshes')}, {watertight:,} of them watertight: {store}"
    return f"{said}; {counted(empty, 'sample')} without a surface at level {options.level:g}" if empty else said


def _samples(
    model: GeneratorModel | AutoencoderModel, asked: SamplingRequest, tell: Tell
) -> Iterator[tuple[str, np.ndarray]]:
    """Each sample with the name of its file, without an extension."""
    for start in range(0, len(asked), model.batch):
        rows = range(start, min(start + model.batch, len(asked)))
        for row, sample in zip(rows, asked.sample(model, rows).cpu().numpy(), strict=True):
            yield _name(model, asked, row), sample
        tell(len(rows))


def _file(model: GeneratorModel | AutoencoderModel, sample: np.ndarray, extension: str, options: Options) -> bytes:
    """One sample, [C, *S], as a file. A picture has the sample's own size, unless it is rendered."""
    if extension == "npy":
        return modality(model.modality).encode(sample, extension)
    drawing = model.drawing
    scale = options.scale or (None if drawing.rendered else 1)
    return drawing.as_file(sample[None], 1, extension, scale, options.fps, options.frames)


def _nifti(sample: np.ndarray, space: VolumeSpace, extension: str) -> bytes:
    """A volume [1, D, H, W] with the place and the intensities of the training data, as far as these are known."""
    place = space.matrix(sample.shape[1:])
    return write_nifti(sample[0], place, space.slope, space.intercept, compressed=extension == "nii.gz")


def _name(model: GeneratorModel | AutoencoderModel, asked: SamplingRequest, row: int) -> str:
    seed, column = asked.seeds[row // asked.columns], row % asked.columns
    label = asked.class_of(model, row)
    if label is not None:
        return f"seed{seed:06d}-class{label}"
    if asked.conditions:
        return f"seed{seed:06d}-condition{column}" if asked.columns > 1 else f"seed{seed:06d}"
    return f"seed{seed:06d}-mix{column}" if asked.classes else f"seed{seed:06d}"
