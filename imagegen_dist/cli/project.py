"""`imagegen project`: find the latents of pictures in a trained model, and edit them along a direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from imagegen_dist.cli.command import Package, Switch, check_range, flag, flags_help, parse_flags, run_command
from imagegen_dist.commands import name_of
from imagegen_dist.errors import UsageError

_JOB = "project"
_SUMMARY = (
    "Find the latents, and the class or conditions, of pictures in a trained model: the sample nearest to each. Then "
    "edit them along a direction. The grid has a row per picture: the picture, what was found, the edits."
)

STEPS, STEPS_AFTER_ENCODER = 300, 100
"""Steps of the search unless --steps says another number, without and with an encoder."""


@dataclass(frozen=True)
class Options:
    """Flags of the job."""

    places: Annotated[tuple[str, ...], tyro.conf.Positional, flag("CHECKPOINT PICTURE")] = field(default=())
    """A run, a checkpoint directory or an exported folder; then picture files, which are cropped and resized to the
    size of the model's samples."""
    package: Package = ""
    """Your own module that registers the model's objective and networks; its code is run."""
    grid: Annotated[str, flag("FILE.png")] = ""
    """One picture, a row per PICTURE: the picture, what was found, and the edits."""
    latents: Annotated[str, flag("FILE.npz")] = ""
    """What was found, as arrays: z, label (weights of classes, or conditions), psnr."""
    direction: Annotated[str, flag("NAME=FROM:TO,...")] = ""
    """Edit what was found along a direction of the latent space, e.g. slant=-2:2; as of sample."""
    mask: Annotated[str, flag("FILE.png")] = ""
    """Weights of positions, white 1 and black 0: what is black is free. It has the size of PICTURE, or of samples."""
    steps: Annotated[int | None, flag("N")] = None
    """Steps of the search. Default: 300, or 100 with --encoder, where 0 takes what the encoder finds as it is."""
    encoder: Switch = False
    """Start from what a small encoder finds, which is trained on pairs that the model generates, and kept beside it."""
    encoder_pairs: Annotated[int, flag("N")] = 16_000
    """Pairs on which the encoder is trained. Default: 16,000."""
    encoder_minutes: Annotated[float, flag("MINUTES")] = 30.0
    """Time after which the encoder's training gives up. Default: 30."""
    scale: Annotated[int, flag("N")] = 0
    """Enlarge pictures by this integer factor, without smoothing. Default: enough to see small pictures well."""
    device: Annotated[str, flag("NAME")] = ""
    """cpu or cuda. Default: cuda if available."""

    @property
    def checkpoint(self) -> str:
        """The model."""
        return self.places[0]

    @property
    def search_steps(self) -> int:
        """Steps of the search."""
        if self.steps is None:
            return STEPS_AFTER_ENCODER if self.encoder else STEPS
        return self.steps

    @property
    def pictures(self) -> tuple[str, ...]:
        """The picture files."""
        return self.places[1:]


def main(arguments: Sequence[str] | None = None) -> int:
    """`imagegen project`: returns the exit code, as named in errors.py."""
    return run_command(_JOB, arguments, lambda _: flags_help(Options, _JOB, _SUMMARY), _run)


def _run(words: Sequence[str]) -> None:
    options = parse(words)
    from imagegen_dist.cli.project_pictures import run  # it imports torch

    run(options)


def parse(words: Sequence[str]) -> Options:
    """Read the words of the command. Raises UsageError."""
    options = parse_flags(Options, _JOB, words)
    if len(options.places) < 2:
        raise UsageError(f"CHECKPOINT and at least one PICTURE are needed (see {name_of(_JOB)} --help)")
    if not options.grid and not options.latents:
        raise UsageError("nothing to write: give --grid FILE.png, --latents FILE.npz, or both")
    if options.grid and not options.grid.endswith(".png"):
        raise UsageError(f"--grid {options.grid}: a grid is a .png")
    if options.latents and not options.latents.endswith(".npz"):
        raise UsageError(f"--latents {options.latents}: arrays are a .npz")
    if options.direction and not options.grid:
        raise UsageError(f"--direction {options.direction}: goes with --grid FILE.png")
    if options.encoder and options.mask:
        raise UsageError(f"--mask {options.mask}: an encoder is trained on whole samples; leave out --encoder")
    check_range(options, steps=(0 if options.encoder else 1, 100_000), scale=(0, 1000))
    check_range(options, encoder_pairs=(1000, 100_000_000), encoder_minutes=(0.1, 100_000.0))
    return options
