"""Directions of the latent space that a command asks for: --direction slant=-2:2,width=1."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from imagegen_dist.errors import UsageError
from imagegen_dist.inference.directions import USUAL
from imagegen_dist.inference.model import Model
from imagegen_dist.inference.sampling_request import SamplingRequest

_STEPS, _MOST_STEPS = 9, 100
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
_VALUE = re.compile(rf"({_NUMBER})(?::({_NUMBER})(?::(\d{{1,9}}))?)?")


@dataclass(frozen=True)
class DirectionSweep:
    """Coordinates by direction: those of all samples, and of one direction those of each column."""

    fixed: Mapping[str, float] = field(default_factory=dict)
    swept: str = ""
    steps: tuple[float, ...] = ()

    @property
    def columns(self) -> int:
        """Pictures in a row."""
        return len(self.steps) or 1

    @property
    def names(self) -> tuple[str, ...]:
        """All directions that are set."""
        return (*self.fixed, *([self.swept] if self.swept else []))


def parse_directions(text: str, told: bool = False) -> DirectionSweep:
    """What --direction asks for; coordinates beyond ±2 are limited, and a line says so unless it is told already.

    Raises UsageError.
    """
    fixed: dict[str, float] = {}
    swept, steps = "", ()
    for word in text.split(",") if text and text != "list" else []:
        name, equals, value = (part.strip() for part in word.partition("="))
        match = _VALUE.fullmatch(value if equals else f"-{USUAL:g}:{USUAL:g}")
        if not name or match is None:
            raise UsageError(f"--direction {text}: NAME=VALUE or NAME=FROM:TO[:STEPS] is needed, e.g. slant=-2:2")
        if name in fixed or name == swept:
            raise UsageError(f"--direction {text}: {name} is given twice")
        start, stop, count = match.groups()
        if stop is None:
            fixed[name] = _limited(name, float(start), told)
            continue
        if swept:
            raise UsageError(f"--direction {text}: the columns are one direction's; give {swept} or {name} one value")
        if not 2 <= int(count or _STEPS) <= _MOST_STEPS:
            raise UsageError(f"--direction {text}: the number of steps is from 2 to {_MOST_STEPS}")
        ends = _limited(name, float(start), told), _limited(name, float(stop), told)
        swept, steps = name, tuple(np.linspace(*ends, int(count or _STEPS)).tolist())
    return DirectionSweep(fixed, swept, steps)


def _limited(name: str, value: float, told: bool) -> float:
    if abs(value) <= USUAL:
        return value
    if not told:
        said = f"{name}={value:g} is limited to ±{USUAL:g}, beyond which the model saw almost no latents"
        print(f"note: {said}", file=sys.stderr)
    return USUAL if value > 0 else -USUAL


def swept_samples(model: Model, asked: SamplingRequest, sweep: DirectionSweep) -> Tensor:
    """A row of samples for each that is asked for, one per step, uint8 [rows * columns, C, *S]. Raises UsageError."""
    rows = range(len(asked))
    return sweep_latents(model, asked.drawn(model, rows) * asked.truncation, asked.label(model, rows), sweep)


def sweep_latents(model: Model, z: Tensor, label: Tensor | None, sweep: DirectionSweep) -> Tensor:
    """Samples of latents [B, Z] along a sweep, uint8 [B * columns, C, *S]. Raises UsageError for an unknown name."""
    try:
        directions = model.directions_for(sweep.names)
    except ValueError as error:
        raise UsageError(f"--direction: {error}") from None
    columns = [
        directions.set(z, {**sweep.fixed, **({sweep.swept: step} if sweep.swept else {})})
        for step in sweep.steps or (0.0,)
    ]
    drawn = torch.stack(columns, 1).flatten(0, 1)
    return model.generate(drawn, None if label is None else label.repeat_interleave(sweep.columns, 0))


def list_directions(model: Model) -> str:
    """A line for each direction: its name, and what its coordinate explains. Raises UsageError without any."""
    try:
        found = model.directions_for([]).entries or model.directions(("scores", "pca")).entries
        closed = model.directions(("sefa",)).entries
    except ValueError as error:
        raise UsageError(f"--direction list: {error}") from None
    lines = [f"{each.name:<12} explains {each.explains:4.0%} of {each.of}" for each in (*found, *closed)]
    return "\n".join(lines)
