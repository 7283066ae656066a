"""`imagegen data`: pack pictures, videos or volumes into shards, index shards that others wrote, check a dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import tyro

from imagegen_dist.cli.command import Switch, check_range, check_tasks, flag, flags_help, parse_flags, run_command
from imagegen_dist.commands import name_of
from imagegen_dist.data.picture import DEEPEST_WHITE
from imagegen_dist.errors import UsageError

_JOB = "make_shards"
_SUMMARY = (
    "Pack pictures, videos or volumes into shards that training reads: from a folder (one sub-folder a class, or none "
    "and no labels), a zip, parquet files, or shards. The same command continues after an interruption. --index-only "
    "indexes existing shards; --check checks a dataset."
)
_OF_INDEXING: dict[str, Any] = {
    **{
        "index_only": "",
        "index_at": "",
        "workers": None,
        "subset": "",
        "labels": "auto",
        "member": "",
        "conditions": "",
        "modality": "auto",
    }
}


@dataclass(frozen=True)
class Options:
    """Flags of the job."""

    source: Annotated[str, tyro.conf.Positional, flag("SOURCE")] = ""
    """Pictures: folder, .zip, .parquet, shards (local, s3://..., 's3://.../train-*.parquet'); digits, stackedmnist."""
    dest: Annotated[str, tyro.conf.Positional, flag("DEST")] = ""
    """Folder for the shards and their index.json: new, empty, or begun by the same command."""
    modality: Annotated[Literal["auto", "image", "video", "voxels"], flag("image|video|voxels")] = "auto"
    """What the files are. image takes the first frame of animated files. Default: pictures, none of them animated."""
    size: Annotated[str, flag("WIDTHxHEIGHT[xDEPTH]")] = ""
    """Resize all samples to this size. Default: keep their size, which must be the same for all."""
    frames: Annotated[int | None, flag("N")] = None
    """Videos: frames of a clip. Default: all frames of a video, which must be as many in all."""
    stride: Annotated[int, flag("N")] = 1
    """Videos: take every N-th frame. Default: 1."""
    fps: Annotated[float | None, flag("RATE")] = None
    """Videos: take this many frames a second, by their time stamps, before --stride. Default: every frame."""
    clips_per_video: Annotated[str, flag("N|all")] = "1"
    """Videos: clips that are cut from each, evenly spread; all: side by side. Default: 1, from the middle."""
    array_layout: Annotated[str, flag("first|second|last")] = ""
    """Axis of the channels in .npy files; second: frames first. Default: by their lengths, if these leave no doubt."""
    spacing: Annotated[str, flag("MM|X,Y,Z")] = ""
    """Volumes: resample to this distance of voxels in mm; --size then crops or pads. Default: as the files."""
    window: Annotated[str, flag("LOW:HIGH")] = ""
    """Volumes: values that become black and white, e.g. 0:80. Needed unless they are uint8 (or uint16, --bits 16)."""
    resample: Annotated[Literal["linear", "nearest"], flag("linear|nearest")] = "linear"
    """Volumes: values of a new grid; nearest keeps numbers of segments. Default: linear."""
    nan: Annotated[Literal["refuse", "lowest"], flag("refuse|lowest")] = "refuse"
    """Volumes: voxels without a number; refuse leaves the volume out, lowest fills them. Default: refuse."""
    bits: Annotated[int, flag("8|16")] = 8
    """Bits of stored values; 16 for volumes and grey pictures that need more than 256 levels. Default: 8."""
    crop: Annotated[Literal["center", "none"], flag("center|none")] = "center"
    """center: crop to the proportions of --size; none: squeeze the whole sample. Default: center."""
    filter: Annotated[Literal["fast", "lanczos", "box", "bilinear", "bicubic"], flag("fast|lanczos|box|...")] = "fast"
    """Pictures: fast: Lanczos, large ones reduced before; or Pillow's lanczos, box, bilinear, bicubic on all pixels, as
    published datasets are made. Default: fast."""
    format: Annotated[str, flag("png|jpg|webp|npy")] = ""
    """png and webp (not for grey): lossless; jpg: quality 95; npy: arrays, larger and read undecoded. Unchanged files
    are copied. Videos: npy or webp, both lossless. Default: png, for videos npy."""
    shard_size: Annotated[str, flag("BYTES")] = "128MB"
    """Approximate size of a shard, e.g. 500kB, 128MB, 1GB. Default: 128MB."""
    channels: Annotated[str, flag("1|3|4")] = ""
    """Make all pictures grey (1), RGB (3) or RGBA (4). Default: RGB if any picture is, else grey; on white."""
    icc: Annotated[Literal["srgb", "keep"], flag("srgb|keep")] = "srgb"
    """srgb: convert pictures with another colour profile to sRGB; keep: use their values unchanged. Default: srgb."""
    white_level: Annotated[int, flag("VALUE")] = DEEPEST_WHITE
    """Value of white in 16-bit grey pictures, e.g. 4095 if they hold 12 bits. Default: 65535."""
    max_bad: Annotated[str, flag("SHARE")] = "0.01"
    """Largest share of samples that may be left out as undecodable, e.g. 0.05 or 5%. Default: 0.01."""
    member: Annotated[str, flag("EXTENSION")] = ""
    """Extension to take from shards whose samples have several pictures, e.g. jpg or depth.png."""
    split: Annotated[str, flag("NAME:SHARE,...")] = ""
    """Split into datasets by share, e.g. train:0.95,val:0.05 to DEST/train and DEST/val. Default: one dataset in
    DEST."""
    dedup: Switch = False
    """Leave out byte-for-byte copies of other samples; DEST/duplicates.txt names them."""
    image_column: Annotated[str, flag("NAME")] = ""
    """Column of the pictures in parquet files. Default: the only column of that kind."""
    label_column: Annotated[str, flag("NAME")] = ""
    """Column of the labels in parquet files and tables. Default: label, labels, cls, class or fine_label."""
    labels: Annotated[Literal["auto", "none"], flag("auto|none")] = "auto"
    """auto: use the labels of SOURCE, if any; none: pack or index without labels. Default: auto."""
    attributes: Annotated[str, flag("TABLE")] = ""
    """Conditions from a table with a row for each picture: .csv, .tsv, .jsonl or .parquet, a path or URL."""
    conditions: Annotated[str, flag("NAME[:KIND],...")] = ""
    """Conditions to take, with kinds if values suggest others: class, attribute, attributes, number, vector."""
    folders: Annotated[str, flag("NAME/NAME...")] = ""
    """Conditions from levels of folders, e.g. style/digit; - skips a level. Default: the first level is the class."""
    relabel: Switch = False
    """Renumber the classes that have samples from 0; their old names or numbers become names."""
    subset: Annotated[str, flag("SPLIT")] = ""
    """Split to take from a source that has several: train, val, test or dev; all takes everything as one dataset."""
    workers: Annotated[int | None, flag("N")] = None
    """Ray tasks at once; 0: work in this process. Default: all CPU cores, or 0 for little work."""
    index_only: Annotated[str, flag("URL")] = ""
    """Index the shards in this folder, instead of SOURCE and DEST."""
    index_at: Annotated[str, flag("URL")] = ""
    """With --index-only: folder for the index, if that of the shards is read-only."""
    allow_remote_shards: Switch = False
    """With SOURCE or --check: read shards of an index even if they are neither below nor beside it."""
    check: Annotated[str, flag("URL")] = ""
    """Check the shards of this dataset, instead of SOURCE and DEST; exit code 1 if any is damaged."""


@dataclass(frozen=True)
class IndexOptions:
    """Flags of `imagegen data index`."""

    url: Annotated[str, tyro.conf.Positional, flag("URL")] = ""
    """The folder of the shards."""
    modality: Annotated[Literal["auto", "image", "video", "voxels"], flag("image|video|voxels")] = "auto"
    """What the samples are. Default: as the first sample tells, if it does."""
    index_at: Annotated[str, flag("URL")] = ""
    """Folder for the index, if that of the shards is read-only."""
    labels: Annotated[Literal["auto", "none"], flag("auto|none")] = "auto"
    """auto: use the labels of the shards, if any; none: index without labels. Default: auto."""
    subset: Annotated[str, flag("SPLIT")] = ""
    """Split to take from shards of several: train, val, test or dev; all takes everything as one dataset."""
    member: Annotated[str, flag("EXTENSION")] = ""
    """Extension to take from shards whose samples have several pictures, e.g. jpg or depth.png."""
    conditions: Annotated[str, flag("NAME:KIND,...")] = ""
    """Kinds of conditions that are not what their values suggest: class, attribute, attributes, number, vector."""
    workers: Annotated[int | None, flag("N")] = None
    """Ray tasks at once; 0: work in this process. Default: all CPU cores, or 0 for little work."""


@dataclass(frozen=True)
class CheckOptions:
    """Flags of `imagegen data check`."""

    url: Annotated[str, tyro.conf.Positional, flag("URL")] = ""
    """The folder of the dataset's index.json."""
    allow_remote_shards: Switch = False
    """Read shards of an index even if they are neither below nor beside it, e.g. in another bucket."""
    workers: Annotated[int | None, flag("N")] = None
    """Ray tasks at once; 0: work in this process. Default: all CPU cores, or 0 for little work."""


def main(arguments: Sequence[str] | None = None) -> int:
    """`imagegen data pack`, and the job make_shards: returns the exit code, as named in errors.py."""
    return _run(_JOB, arguments, Options, _SUMMARY, parse)


def main_index(arguments: Sequence[str] | None = None) -> int:
    """`imagegen data index`: returns the exit code."""
    summary = "Index the shards in a folder, which others wrote, so that training can read them as they are."
    return _run("index_shards", arguments, IndexOptions, summary, _parse_index)


def main_check(arguments: Sequence[str] | None = None) -> int:
    """`imagegen data check`: returns the exit code, 1 where a shard is damaged."""
    summary = "Check every shard of a dataset against its index; exit code 1 where one is damaged."
    return _run("check_shards", arguments, CheckOptions, summary, _parse_check)


def _run(
    job: str,
    arguments: Sequence[str] | None,
    options: type,
    summary: str,
    parse: Callable[[Sequence[str]], Options],
) -> int:
    def run(words: Sequence[str]) -> int:
        parsed = parse(words)
        from imagegen_dist.cli.make_shards import make_shards  # it imports torch

        said, code = make_shards(parsed)
        print(said)
        return code

    interrupted = "interrupted: nothing was kept"
    return run_command(job, arguments, lambda _: flags_help(options, job, summary), run, interrupted)


def _parse_index(words: Sequence[str]) -> Options:
    options = parse_flags(IndexOptions, "index_shards", words)
    if not options.url:
        raise UsageError(f"URL is needed: the folder of the shards (see {name_of('index_shards')} --help)")
    flags = {name: value for name, value in vars(options).items() if name != "url"}
    return _checked(Options(index_only=options.url, **flags))


def _parse_check(words: Sequence[str]) -> Options:
    options = parse_flags(CheckOptions, "check_shards", words)
    if not options.url:
        raise UsageError(f"URL is needed: the folder of the dataset (see {name_of('check_shards')} --help)")
    flags = {name: value for name, value in vars(options).items() if name != "url"}
    return _checked(Options(check=options.url, **flags))


def parse(words: Sequence[str]) -> Options:
    """Read the words of the job make_shards. Raises UsageError."""
    return _checked(parse_flags(Options, _JOB, words))


def _checked(options: Options) -> Options:
    """The options. Raises UsageError for those that contradict one another."""
    check_tasks(options)
    _check_alone(options)
    if options.channels not in ("", "1", "3", "4"):
        raise UsageError(f"--channels {options.channels}: 1 (grey), 3 (RGB) or 4 (RGBA)")
    check_range(options, white_level=(1, DEEPEST_WHITE))
    if options.crop == "none" and not options.size:
        raise UsageError("--crop none says how --size is reached: give --size as well, e.g. --size 64x64")
    if options.filter != "fast" and not options.size:
        raise UsageError(
            f"--filter {options.filter} says how --size is reached: give --size as well, e.g. --size 64x64"
        )
    return options


def _check_alone(options: Options) -> None:
    """Raises UsageError where flags of several ways to use the job come together."""
    for name, alone, rest in (
        ("--index-only", options.index_only, replace(options, **_OF_INDEXING)),
        ("--check", options.check, replace(options, check="", allow_remote_shards=False, workers=None)),
    ):
        if alone and rest != Options():
            raise UsageError(f"{name} URL goes alone: it reads the shards there as they are")
    if options.index_at and not options.index_only:
        raise UsageError("--index-at URL says where --index-only URL writes the index: give that as well")
    if not (options.index_only or options.check or (options.source and options.dest)):
        see = f"see {name_of(_JOB)} --help"
        raise UsageError(f"SOURCE and DEST are needed, or --index-only URL, or --check URL ({see})")
