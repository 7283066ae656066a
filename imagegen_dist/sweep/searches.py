"""Searches by name: what they change in which preset, and how they compare and choose trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from imagegen_dist.config import ConfigError, nearest
from imagegen_dist.metric_table import EVALUATION, describe, entry_of, registered
from imagegen_dist.presets import PRESETS, Preset, find_preset
from imagegen_dist.sweep.space import Space, grid, log_uniform, space

Searcher = Literal["random", "grid", "tpe"]
Scheduler = Literal["none", "asha", "median", "pbt"]


@dataclass(frozen=True)
class Goal:
    """A logged metric, and whether lower or higher is better."""

    metric: str
    mode: Literal["min", "max"] = "min"

    def __str__(self) -> str:
        return f"{self.metric.removeprefix('eval/')} ({self.mode})"

    def loss(self, value: float) -> float:
        """The value as a loss: lower is better."""
        return value if self.mode == "min" else -value


def _goal(metric: str) -> Goal:
    """A logged metric with the direction that the metric table gives; lower is better if the table gives none."""
    return Goal(metric, "max" if describe(metric).better == "higher" else "min")


@dataclass(frozen=True)
class Search:
    """A complete search; the command line can override every part of it."""

    preset: str
    """Name of the preset that trials train."""
    space: Space
    """What is changed."""
    goals: tuple[Goal, ...]
    """The metrics by which trials are compared; several for a trade-off."""
    summary: str
    """One line for a list of searches."""
    searcher: Searcher = "random"
    """How values are chosen: random, grid (every combination), tpe (Optuna)."""
    scheduler: Scheduler = "none"
    """What stops trials early: none, asha, median; or pbt, which changes values during training."""
    trials: int = 16
    """Number of trials; 0: all combinations of a grid."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings in which all trials differ from the preset, by path."""


_SHORT_GAN = {
    "training.total_images": 76_800,
    "training.sample_every": 38_400,
    "evaluation.every": 6_400,
    "evaluation.samples": 1000,
}
_SHORT_VAE = {
    "training.total_images": 192_000,
    "training.sample_every": 96_000,
    "training.checkpoint_every": 96_000,
    "evaluation.every": 32_000,
    "evaluation.importance_samples": 0,
    "training.ema_half_life": 5_000,
}

SEARCHES: dict[str, Search] = {
    "vae-beta": Search(
        "digits-vae",
        space(objective__beta=grid(0.25, 0.5, 1, 2, 4, 8)),
        (_goal("eval/rate"), _goal("eval/distortion")),
        "β of a VAE on digits: the rate–distortion curve",
        "grid",
        trials=0,
        changes=_SHORT_VAE,
    ),
    "vae-lr": Search(
        "digits-vae",
        space(optim__autoencoder__lr=log_uniform(1e-4, 1e-2)),
        (_goal("eval/elbo"),),
        "learning rate of a VAE on digits",
        scheduler="asha",
        changes=_SHORT_VAE,
    ),
    "gan-lr": Search(
        "digits",
        space(optim__each__lr=log_uniform(1e-4, 1e-2), objective__gamma=log_uniform(0.01, 10)),
        (_goal("eval/frechet"),),
        "learning rate and γ of a GAN on digits, bad trials stopped early",
        scheduler="asha",
        changes=_SHORT_GAN,
    ),
    "gan-tpe": Search(
        "digits",
        space(
            optim__generator__lr=log_uniform(1e-4, 1e-2),
            optim__discriminator__lr=log_uniform(1e-4, 1e-2),
            objective__gamma=log_uniform(0.01, 10),
        ),
        (_goal("eval/frechet"),),
        "both learning rates and γ by Optuna's TPE",
        searcher="tpe",
        scheduler="asha",
        trials=32,
        changes=_SHORT_GAN,
    ),
    "gan-pbt": Search(
        "digits",
        space(optim__each__lr=log_uniform(1e-4, 1e-2), objective__gamma=log_uniform(0.01, 10)),
        (_goal("eval/frechet"),),
        "learning rate and γ of a population, changed during training",
        scheduler="pbt",
        trials=8,
        changes=_SHORT_GAN,
    ),
    "dsprites-beta": Search(
        "beta-vae-dsprites",
        space(objective__beta=grid(1, 2, 4, 8, 16)),
        (_goal("eval/rate"), _goal("eval/distortion")),
        "β of a β-VAE on dSprites: rate, distortion and disentanglement",
        "grid",
        trials=0,
        changes={
            "data.url": "dsprites",
            "training.total_images": 640_000,
            "training.checkpoint_every": 320_000,
            "evaluation.every": 160_000,
            "evaluation.samples": 3_000,
        },
    ),
}


def find_search(name: str) -> Search:
    """The search of that name, or an empty one for the preset of that name. Raises ConfigError."""
    if name in SEARCHES:
        return SEARCHES[name]
    if name in PRESETS or ":" in name:
        return Search(name, Space(), (default_goal(find_preset(name)),), "")
    if not name:
        raise ConfigError(f"give a SEARCH: {', '.join(SEARCHES)}; or a preset with --space")
    raise ConfigError(f"there is no search {name!r}; {nearest(name, [*SEARCHES, *PRESETS])}")


def default_goal(preset: Preset) -> Goal:
    """The metric by which a preset's runs keep their best checkpoint."""
    return _goal(f"eval/{preset.experiment.objective.best[0]}")


def parse_goals(metric: str, mode: str, given: tuple[Goal, ...]) -> tuple[Goal, ...]:
    """Goals from --metric NAME[,NAME] and --mode min|max[,...]; those `given` if a flag is empty.

    A name without a group is a metric of the evaluation. Raises ConfigError.
    """
    names = [_full_name(part) for part in metric.split(",") if part] or [goal.metric for goal in given]
    modes = mode.split(",") if mode else [_known_mode(name, given) for name in names]
    if len(modes) == 1:
        modes *= len(names)
    wrong = [each for each in modes if each not in ("min", "max")]
    if wrong or len(modes) != len(names):
        raise ConfigError(f"--mode {mode}: give min or max, once or for each of {len(names)} metrics")
    if len(set(names)) < len(names):
        raise ConfigError(f"--metric {metric}: a metric is given twice")
    return tuple(Goal(name, "min" if each == "min" else "max") for name, each in zip(names, modes, strict=True))


def _full_name(name: str) -> str:
    """The name with its group. Raises ConfigError for a metric that no evaluation computes."""
    name = name.strip()
    if "/" not in name or (entry_of(name) is None and entry_of(EVALUATION + name) is not None):
        name = EVALUATION + name
    if name.startswith(EVALUATION) and entry_of(name) is None:
        known = [metric.name for metric in registered() if metric.section == "evaluation"]
        raise ConfigError(f"--metric {name}: no evaluation computes this metric; {nearest(name, known)}")
    return name


def _known_mode(name: str, given: tuple[Goal, ...]) -> str:
    """The direction that the search gives, else that of the metric table."""
    return next((each.mode for each in given if each.metric == name), _goal(name).mode)
