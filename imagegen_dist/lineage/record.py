"""What a run says of its beginning, in config.json, result.json, its report and W&B."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

INIT: Final = "init-from"
FORK: Final = "fork-from"
"""The flags by which a run begins elsewhere."""


@dataclass(frozen=True)
class Lineage:
    """The beginning of a run: what it was given, what it took, and what differs."""

    how: Literal["init-from", "fork-from"]
    """init-from: weights, with new optimizers and the clock at 0. fork-from: the whole state of a checkpoint."""
    given: str
    """What the user named: the URL of a run, a checkpoint, an exported folder, or another library's weights."""
    source: str
    """URL of the checkpoint, folder or file that the weights were read from."""
    fingerprint: str
    """SHA-256 of the source: of its manifest, or of its weights."""
    images: int = 0
    """Images that the source had seen; 0 if that is unknown."""
    taken: tuple[str, ...] = ()
    """What was taken over, a line for each network."""
    new: tuple[str, ...] = ()
    """What was not, a line for each reason."""
    changed: tuple[str, ...] = ()
    """Settings of a fork that differ from those of its source, as `path: before -> now`."""
    scaling_factor: float | None = None
    """1 / standard deviation of the source's latents, if it says so, as diffusers' autoencoders do."""

    @property
    def summary(self) -> str:
        """The source in a few words, for the head of a report."""
        seen = f" at {self.images:,} images" if self.images else ""
        return f"{self.given}{seen}"

    def lines(self) -> list[str]:
        """What a user reads as the run begins."""
        seen = f" ({self.images:,} images)" if self.images else ""
        if self.how == FORK:
            return [f"goes on from {self.source}{seen}", *(f"changed: {line}" for line in self.changed)]
        taken = f"taken: {', '.join(self.taken)}"
        return [f"begins with the weights of {self.source}{seen}", taken, *(f"new: {line}" for line in self.new)]


def described(lineage: Lineage | None) -> dict[str, Any]:
    """The entry of config.json and result.json, by its name; {} for a run that began from new weights."""
    if lineage is None:
        return {}
    return {
        "lineage": {name: list(value) if isinstance(value, tuple) else value for name, value in vars(lineage).items()}
    }
