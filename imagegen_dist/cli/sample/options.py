"""The command line of the sampling job."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import tyro

from imagegen_dist.cli.command import flag, parse_flags
from imagegen_dist.commands import name_of
from imagegen_dist.data.labels import clean_name
from imagegen_dist.errors import UsageError
from imagegen_dist.inference.engines import ENGINES, EngineName
from imagegen_dist.inference.model import Model
from imagegen_dist.inference.sampling_request import Asked, Class

JOB = "sample"
SUMMARY = (
    "Samples of a trained model: a grid, a folder of pictures, WebDataset shards, or an animation. A sample is a "
    "function of its seed and class alone, whatever else is asked for, on any number of workers."
)
_MOST_SEEDS = 10_000_000
_MIX_STEPS = 8
_NUMBERS = re.compile(r"[0-9]+(-[0-9]+)?")
SEEDS, FILM_SEEDS = "0-63", "0-7"


@dataclass(frozen=True)
class Options:
    """Flags of the job."""

    checkpoint: Annotated[str, tyro.conf.Positional, flag("CHECKPOINT")] = ""
    """A run (its newest whole checkpoint), a checkpoint directory, or an exported folder; a path or URL."""
    seeds: Annotated[str, flag("LIST")] = ""
    """One sample a seed, e.g. 0-63 or 1,5,8-11. Default: 0-63; for animations 0-7."""
    classes: Annotated[str, flag("LIST")] = ""
    """Every seed with each of these classes, by number or name: 0-9 or cat,dog; names with commas in double quotes.
    Default: one class a seed, the seed modulo K."""
    mix: Annotated[str, flag("A:B")] = ""
    """In place of --classes: blends of two class embeddings, from A to B in eight steps; numbers or names."""
    truncation: Annotated[float, flag("PSI")] = 1.0
    """Scale the noise by this, towards 0, its mean: less variety, more typical samples; 0 to 1. Default: 1, none."""
    grid: Annotated[str, flag("FILE.png")] = ""
    """A picture, a row a seed and a column a class; without --classes as square as it gets."""
    folder: Annotated[str, flag("DIR")] = ""
    """A picture file a sample, in a new or empty folder."""
    shards: Annotated[str, flag("DIR")] = ""
    """WebDataset shards with their index.json, made side by side; the same command again goes on."""
    interpolate: Annotated[str, flag("FILE.webp|.mp4")] = ""
    """An animation from each seed to the next and back to the first, on great arcs."""
    traverse: Annotated[str, flag("FILE.webp|.mp4")] = ""
    """An animation of a VAE's latents, a row a latent and a column a seed (the first 5), each moved to and fro."""
    frames: Annotated[int, flag("N")] = 24
    """Of an animation: from seed to seed, or for one swing of a latent. Default: 24."""
    fps: Annotated[float, flag("N")] = 24.0
    """Of an animation: frames a second. Default: 24."""
    scale: Annotated[int, flag("N")] = 0
    """Enlarge pictures by this whole factor, pixels kept crisp. Default: small ones until they can be seen well."""
    engine: Annotated[EngineName, flag("|".join(ENGINES))] = "eager"
    """What computes: eager PyTorch, compiled, or onnxruntime; the others may differ in a last grey level.
    Default: eager."""
    batch: Annotated[int, flag("N")] = 8
    """Samples computed at a time; another number may round some values another way. Default: 8."""
    device: Annotated[str, flag("NAME")] = ""
    """cpu or cuda. Default: cuda where there is one."""
    workers: Annotated[int | None, flag("N")] = None
    """With --shards: Ray tasks at once; 0: this process. Default: all CPU cores; where there is little work, 0."""
    shard_size: Annotated[str, flag("BYTES")] = "128MB"
    """With --shards: about this a shard. Default: 128MB."""


OUTPUTS = ("grid", "folder", "shards", "interpolate", "traverse")


@dataclass(frozen=True)
class Command:
    """A parsed command line."""

    options: Options
    asked: Asked
    film: Asked
    """What an animation shows."""


def parse(words: Sequence[str]) -> Command:
    """Read the job's arguments. Raises UsageError."""
    options = parse_flags(Options, JOB, words)
    if not options.checkpoint:
        raise UsageError(f"CHECKPOINT is needed: a run, a checkpoint or an exported folder (see {name_of(JOB)} --help)")
    if not any(getattr(options, name) for name in OUTPUTS):
        raise UsageError(f"nothing to write: give --grid FILE.png, or one of --{', --'.join(OUTPUTS[1:])}")
    if options.classes and options.mix:
        raise UsageError("--classes and --mix both say which classes: give one of them")
    for name, least in (("frames", 2), ("batch", 1), ("scale", 0)):
        if getattr(options, name) < least:
            raise UsageError(f"--{name} {getattr(options, name)}: {least} or more")
    if not 1 <= options.fps <= 100:
        raise UsageError(f"--fps {options.fps:g}: from 1 to 100")
    if not 0 <= options.truncation <= 1:
        raise UsageError(f"--truncation {options.truncation:g}: from 0 (the mean latent alone) to 1 (none)")
    if options.workers is not None and options.workers < 0:
        raise UsageError(f"--workers {options.workers}: a number of tasks from 1, or 0 for this process")
    classes: tuple[Class, ...] = parse_mix(options.mix) if options.mix else ()
    if options.classes:
        classes = parse_classes(options.classes)
    asked, film = (
        Asked(parse_numbers("seeds", options.seeds or default), classes, options.truncation)
        for default in (SEEDS, FILM_SEEDS)
    )
    return Command(options, asked, film)


def parse_numbers(name: str, text: str) -> tuple[int, ...]:
    """Whole numbers of a list of numbers and ranges, 0-63 or 1,5,8-11. Raises UsageError."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,20})(?:-(\d{1,20}))?", part.strip())
        if match is None:
            raise UsageError(f"--{name} {text}: numbers and ranges, e.g. 0-63 or 1,5,8-11")
        first, last = int(match[1]), int(match[2] or match[1])
        if last >= 2**64:
            raise UsageError(f"--{name} {part.strip()}: whole numbers go up to 2^64 - 1")
        if last < first or last - first >= _MOST_SEEDS:
            raise UsageError(f"--{name} {part.strip()}: a range goes up, over at most {_MOST_SEEDS:,} numbers")
        found += range(first, last + 1)
    return tuple(found)


def parse_classes(text: str) -> tuple[Class, ...]:
    """Numbers, ranges of numbers and names of classes, separated by commas. Raises UsageError."""
    found: list[Class] = []
    for word in next(csv.reader([text], skipinitialspace=True)):
        if not word.strip():
            raise UsageError(f"--classes {text}: numbers, ranges and names, e.g. 0-9 or cat,dog")
        found += parse_numbers("classes", word) if _NUMBERS.fullmatch(word.strip()) else [_plain(word)]
    return tuple(found)


def parse_mix(text: str) -> tuple[Class, ...]:
    """Blends from one class to another, both ends included. Raises UsageError."""
    words = [word.strip() for word in text.split(":")]
    if len(words) != 2 or not all(words) or words[0] == words[1]:
        raise UsageError(f"--mix {text}: two classes with a colon between, e.g. 3:7 or cat:dog")
    first, last = (int(word) if re.fullmatch(r"[0-9]{1,9}", word) else word for word in words)
    shares = [step / (_MIX_STEPS - 1) for step in range(_MIX_STEPS)]
    return tuple({first: 1 - share, last: share} for share in shares)


def as_typed(asked: Asked, model: Model) -> Asked:
    """What is asked for, with digits that are no class's number taken for a name.

    Raises UsageError for digits that are the number of one class and the name of another.
    """
    found: list[Class] = []
    for each in asked.classes:
        if isinstance(each, Mapping):
            found.append({_typed(word, model): weight for word, weight in each.items()})
        else:
            found.append(_typed(each, model))
    return replace(asked, classes=tuple(found))


def _typed(word: int | str, model: Model) -> int | str:
    names = model.class_names or ()
    if isinstance(word, str | _Number) or str(word) not in names:
        return word
    if word >= model.classes:
        return str(word)
    if names[word] != str(word):
        raise UsageError(
            f"class {word} is the name of one class and the number of another: write name:{word} or number:{word}"
        )
    return word


class _Number(int):
    """The number of a class, typed as such."""


def _plain(word: str) -> Class:
    """A class's name, without what says that it is one; or a number that is said to be one."""
    number = re.fullmatch(r"number:([0-9]{1,9})", word.strip())
    return _Number(number[1]) if number else clean_name(word).removeprefix("name:")
