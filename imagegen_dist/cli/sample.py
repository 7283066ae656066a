"""`imagegen sample`: samples of a trained model as pictures, films, meshes, folders and shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from imagegen_dist.cli.command import Package, check_range, check_tasks, flag, flags_help, parse_flags, run_command
from imagegen_dist.commands import name_of
from imagegen_dist.errors import UsageError

_JOB = "sample"
_SUMMARY = (
    "Write samples of a trained model as a grid, a film, a folder of files, meshes, or WebDataset shards. A sample "
    "depends on its seed and class alone, not on other samples or the number of workers."
)
_OUTPUTS = ("grid", "strip", "folder", "mesh", "shards", "interpolate", "traverse")


@dataclass(frozen=True)
class Options:
    """Flags of the job."""

    checkpoint: Annotated[str, tyro.conf.Positional, flag("CHECKPOINT")] = ""
    """A run (its newest complete checkpoint), a checkpoint directory, or an exported folder; a path or URL."""
    package: Package = ""
    """Your own module that registers the model's objective and networks; its code is run."""
    seeds: Annotated[str, flag("LIST")] = ""
    """One sample per seed, e.g. 0-63 or 1,5,8-11. Default: 0-63; 0-7 for animations."""
    classes: Annotated[str, flag("LIST")] = ""
    """Every seed with each of these classes, by number or name: 0-9 or cat,dog; quote names that contain commas.
    Default: one class per seed, the seed modulo the number of classes."""
    mix: Annotated[str, flag("A:B")] = ""
    """Instead of --classes: eight blends of two class embeddings, from A to B, by number or name."""
    set: Annotated[str, flag("NAME=VALUE,...")] = ""
    """Conditions of all samples, e.g. digit=7,slant=0.2 or slant=-1sd (deviations from the mean); others as in the
    data."""
    sweep: Annotated[str, flag("NAME[=FROM:TO[:STEPS]]")] = ""
    """One column per value of a condition: all classes, or FROM:TO in 8 steps. Default range: two deviations."""
    direction: Annotated[str, flag("NAME=FROM:TO,...")] = ""
    """With --grid: directions of the latent space, e.g. slant=-2:2 (one column per step, 9 or FROM:TO:STEPS) or
    slant=1.5 for all samples. `list` lists those of the model: measured scores, and pca1, ..., sefa1, ..."""
    truncation: Annotated[float, flag("PSI")] = 1.0
    """Scale the noise towards its mean, 0: less variety, more typical samples; from 0 to 1. Default: 1, no
    truncation."""
    grid: Annotated[str, flag("FILE.png|.webp|.mp4")] = ""
    """One picture, a row per seed and a column per class; nearly square without --classes. As .webp or .mp4, clips
    play and volumes turn."""
    strip: Annotated[str, flag("FILE.png")] = ""
    """For print: a row per sample, of the frames of a clip, or of slices through a volume in three planes."""
    folder: Annotated[str, flag("DIR")] = ""
    """One file per sample, in a new or empty folder."""
    mesh: Annotated[str, flag("DIR")] = ""
    """The surface of each volume as a mesh, in a new or empty folder."""
    format: Annotated[str, flag("NAME")] = ""
    """Of the files in --folder: png, webp, mp4 or npy, of volumes also nii or nii.gz (default: png; webp for video); in
    --mesh: glb, obj, stl or ply (default: glb)."""
    level: Annotated[float, flag("FRACTION")] = 0.5
    """The surface of a mesh is where values pass this fraction of their range. Default: 0.5."""
    window: Annotated[str, flag("LOW:HIGH")] = ""
    """Intensities of the data that pictures, films and meshes show as black and white. Default: the whole range."""
    shards: Annotated[str, flag("DIR")] = ""
    """WebDataset shards with their index.json, made in parallel; the same command continues after an interruption."""
    interpolate: Annotated[str, flag("FILE.webp|.mp4")] = ""
    """An animation from each seed to the next and back to the first, along great circles."""
    traverse: Annotated[str, flag("FILE.webp|.mp4")] = ""
    """An animation of a VAE's latents: a row per latent, a column per seed (the first 5), each varied back and
    forth."""
    frames: Annotated[int, flag("N")] = 24
    """Frames of an animation from one seed to the next, per swing of a latent, or per turn of a volume. Default: 24."""
    fps: Annotated[float | None, flag("N")] = None
    """Frames per second. Default: 24; 8 for clips, and 12 for turning volumes."""
    scale: Annotated[int, flag("N")] = 0
    """Enlarge pictures by this integer factor, without smoothing. Default: enough to see small pictures well."""
    engine: Annotated[Literal["eager", "compiled", "onnxruntime"], flag("eager|compiled|onnxruntime")] = "eager"
    """Inference engine: eager PyTorch, compiled PyTorch, or ONNX Runtime; results may differ by one grey level.
    Default: eager."""
    batch: Annotated[int | None, flag("N")] = None
    """Samples per batch; another number may round some values differently. Default: 8 on the CPU; on a GPU up to 64, as
    its memory allows."""
    device: Annotated[str, flag("NAME")] = ""
    """cpu or cuda. Default: cuda if available."""
    workers: Annotated[int | None, flag("N")] = None
    """With --shards: Ray tasks at once; 0: work in this process. Default: all CPU cores, or 0 for little work."""
    shard_size: Annotated[str, flag("BYTES")] = "128MB"
    """With --shards: approximate size of a shard. Default: 128MB."""


def main(arguments: Sequence[str] | None = None) -> int:
    """`imagegen sample`: returns the exit code, as named in errors.py."""
    interrupted = "interrupted; with --shards the same command continues"
    return run_command(_JOB, arguments, lambda _: flags_help(Options, _JOB, _SUMMARY), _run, interrupted)


def _run(words: Sequence[str]) -> None:
    options = parse(words)
    from imagegen_dist.cli.sample_outputs import run  # it imports torch

    run(options)


def parse(words: Sequence[str]) -> Options:
    """Read the words of the command. Raises UsageError."""
    options = parse_flags(Options, _JOB, words)
    if not options.checkpoint:
        raise UsageError(
            f"CHECKPOINT is needed, a run, a checkpoint or an exported folder (see {name_of(_JOB)} --help)"
        )
    if options.direction == "list":
        return options
    if not any(getattr(options, name) for name in _OUTPUTS):
        raise UsageError(f"nothing to write: give --grid FILE.png, or one of --{', --'.join(_OUTPUTS[1:])}")
    if options.classes and options.mix:
        raise UsageError("--classes and --mix both say which classes: give one of them")
    if (options.classes or options.mix) and (options.set or options.sweep):
        raise UsageError("--classes and --mix are not for a model with conditions: give --set and --sweep alone")
    if options.direction and (not options.grid or any(getattr(options, name) for name in _OUTPUTS if name != "grid")):
        raise UsageError(f"--direction {options.direction}: goes with --grid FILE.png alone")
    if options.direction and options.sweep:
        raise UsageError("--direction and --sweep both give the columns: give one of them")
    check_range(
        options,
        frames=(2, 100_000),
        batch=(1, 1_000_000),
        scale=(0, 1000),
        fps=(1, 100),
        truncation=(0, 1),
        level=(0, 1),
    )
    check_tasks(options)
    return options
