"""What a sweep is, as sweep.json stores it: what it trains and changes, and how it compares and chooses trials."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from imagegen_dist import config, records
from imagegen_dist.config import ConfigError
from imagegen_dist.documents import parse_json
from imagegen_dist.errors import UsageError
from imagegen_dist.experiment import Experiment
from imagegen_dist.extensions import import_preset
from imagegen_dist.metric_table import describe
from imagegen_dist.objectives.variational import Autoencodes
from imagegen_dist.records import RunSettings
from imagegen_dist.resources import Workers
from imagegen_dist.run_folder import CONFIG
from imagegen_dist.storage import Store
from imagegen_dist.sweep.searches import Goal, Scheduler, Searcher
from imagegen_dist.sweep.space import Space
from imagegen_dist.versions import versions
from imagegen_dist.wording import counted

JOB = "sweep"
PLAN = "sweep.json"
TRIALS = "trials"

REDUCTION = 3
"""ASHA lets one of this many trials continue at each rung (arXiv:1810.05934; its eta)."""

MIN_COMPARED = 3
"""Fewest trials that the median stopping rule and a population compare."""


@dataclass(frozen=True)
class TrialDemand:
    """What one trial requests: workers, and for each of them CPU cores and GPUs (a fraction if several share one).

    None: one GPU if there are any, with its share of the CPU cores; one core without GPUs. Raises UsageError for a
    share of a GPU with several workers.
    """

    workers: Workers = Workers(1, 1)
    cpus: int | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.is_group and self.gpus is not None and not self.gpus.is_integer():
            raise UsageError(
                f"--gpus {self.gpus:g} with --workers {self.workers}: workers that train together cannot share a GPU; "
                "give 1 or 0"
            )

    @property
    def is_group(self) -> bool:
        """True if it may have several workers, which Ray Train starts."""
        return self.workers.high > 1

    @property
    def resources(self) -> dict[str, float]:
        """The resources of one worker, as Ray counts them."""
        return {"CPU": float(self.cpus or 1), **({"GPU": self.gpus} if self.gpus else {})}

    def of(self, cpus: float, gpus: float) -> TrialDemand:
        """The demand in full, on a cluster with that many CPU cores and GPUs."""
        requested = float(gpus > 0) if self.gpus is None else self.gpus
        share = int(cpus * requested // gpus) if requested and gpus else 1
        return TrialDemand(self.workers, self.cpus or max(1, share), requested)

    def __str__(self) -> str:
        each = counted(self.cpus or 1, "CPU core")
        each += f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.workers} workers of {each} each" if self.is_group else each


@dataclass(frozen=True)
class SweepPlan:
    """Everything that decides the outcome of a sweep. Raises ConfigError if its parts do not fit together."""

    search: str
    """Name of the search or preset that it is based on."""
    experiment: Experiment
    """What trials train, before their own values are applied."""
    settings: RunSettings
    """Where the sweep is, and what the runs of its trials have in common."""
    space: Space
    """What is changed."""
    goals: tuple[Goal, ...]
    """The metrics by which trials are compared."""
    searcher: Searcher
    """How values are chosen."""
    scheduler: Scheduler
    """What stops or changes trials early."""
    trials: int
    """Number of trials."""
    seed: int
    """Seed of the search."""
    demand: TrialDemand
    """What one trial requests."""

    def __post_init__(self) -> None:
        self.space.check(self.experiment)
        self.experiment.training.batching.check_workers(self.demand.workers.high)
        kinds = {goal.metric.startswith("eval/") for goal in self.goals}
        if len(kinds) > 1:
            raise ConfigError(
                f"--metric {','.join(goal.metric for goal in self.goals)} is never reported: metrics of an evaluation "
                "(eval/...) and those of a report are logged separately; give metrics of one kind"
            )
        encodes = isinstance(self.experiment.objective, Autoencodes)
        lacking = [goal for goal in self.goals if describe(goal.metric).needs == "autoencodes" and not encodes]
        if lacking:
            raise ConfigError(
                f"--metric {lacking[0].metric} is never reported: it is of autoencoders, and "
                f"{self.settings.preset} trains none"
            )
        if self.is_evaluated and not self.experiment.evaluation.samples:
            raise ConfigError(
                f"{self.goals[0].metric} is never reported: --evaluation.samples is 0; set it to 2 or more"
            )
        if self.scheduler != "none":
            self._check_scheduler()
        if self.scheduler == "pbt":
            self._check_population()
        elif self.searcher == "tpe" and self.space.is_grid:
            raise ConfigError(f"--searcher tpe has nothing to choose in {self.space}; write choice: in place of grid:")

    def _check_scheduler(self) -> None:
        if len(self.goals) > 1:
            raise ConfigError(
                f"--scheduler {self.scheduler} compares trials by one metric, not by "
                f"{' and '.join(map(str, self.goals))}; give one --metric, or --scheduler none"
            )
        total = self.experiment.training.total_images
        if not 0 < self.every < total:
            flag = "--evaluation.every" if self.is_evaluated else "--training.report-every"
            raise ConfigError(
                f"--scheduler {self.scheduler} needs metrics during a trial: set {flag} below the {total:,} images of "
                f"a trial, not to {self.every:,}"
            )

    def _check_population(self) -> None:
        if self.searcher == "tpe":
            raise ConfigError("--scheduler pbt chooses values itself; set --searcher random")
        fixed = [str(each) for each in self.space.dimensions if each.path.split(".")[0] not in ("optim", "objective")]
        if fixed:
            raise ConfigError(
                f"--scheduler pbt changes values while a network trains, which {fixed[0]} does not allow; "
                "give paths below optim and objective"
            )
        if self.trials < MIN_COMPARED:
            raise ConfigError(f"--trials {self.trials}: a population needs {MIN_COMPARED} or more")

    @property
    def is_evaluated(self) -> bool:
        """True if the metrics come from evaluations, False if every row has them."""
        return self.goals[0].metric.startswith("eval/")

    @property
    def every(self) -> int:
        """Images between two readings of the metrics; 0 for one at the end alone."""
        training = self.experiment.training
        return self.experiment.evaluation.every if self.is_evaluated else training.report_every

    @property
    def folder(self) -> Store:
        """The sweep's directory."""
        return self.settings.folder

    @property
    def paths(self) -> list[str]:
        """The settings that are searched."""
        return [dimension.path for dimension in self.space.dimensions]

    @property
    def launch(self) -> dict[str, Any]:
        """What config.json of a trial's run says of its launch."""
        workers, demand = self.demand.workers, self.demand
        launch = {"workers": [workers.low, workers.high], "gpu": bool(demand.gpus), "threads": demand.cpus or 1}
        return {**launch, "sweep": self.settings.name}

    def point(self, number: int) -> dict[str, Any]:
        """The values of trial `number`, by path.

        ASHA and median stopping compare a trial with the earlier ones, and would continue every trial of a grid in
        which each value is better than the last: they get the grid in an order drawn from the seed.
        """
        size = len(self.space.grid)
        order = list(range(size))
        if self.scheduler in ("asha", "median"):
            Random(f"{self.seed}/grid").shuffle(order)
        return self.space.point(number - number % size + order[number % size], self.seed)

    def trial_settings(self, run: str, start: str = "") -> RunSettings:
        """The settings of a trial's run. start: URL of the checkpoint that it starts from, "" for none."""
        keep = 1_000_000 if self.scheduler == "pbt" else self.settings.keep  # a successor may need an old one
        return replace(
            self.settings,
            name=run,
            storage=(self.folder / TRIALS).url,
            cache=(Store(self.settings.storage) / ".cache").url,
            wandb_group=self.settings.name,
            start=start,
            keep=keep,
        )


def with_checkpoints(plan: SweepPlan) -> SweepPlan:
    """The plan with a checkpoint at every reading of the metrics, if a scheduler may stop or copy a trial there."""
    if plan.scheduler == "none":
        return plan
    return replace(plan, experiment=config.override(plan.experiment, "training.checkpoint_every", plan.every))


def write_plan(plan: SweepPlan) -> None:
    """Write sweep.json. Raises UsageError if the directory holds a sweep or a run."""
    folder, name = plan.folder, plan.settings.name
    if folder.exists(PLAN):
        raise UsageError(f"{folder.url} holds a sweep: continue it with --resume {name}, or choose another --name")
    if folder.exists(CONFIG):
        raise UsageError(f"{folder.url} holds a run: choose another --name")
    document = {**config.encode(plan), "versions": versions(), "git_commit": records.git_commit()}
    folder.write(PLAN, json.dumps(document, indent=1).encode())


def read_plan(folder: Store, name: str) -> SweepPlan:
    """The plan of the sweep in that directory. Raises UsageError if there is none."""
    try:
        data: dict[str, Any] = parse_json(folder.read(PLAN))
    except FileNotFoundError:
        raise UsageError(f"--resume {name}: there is no sweep in {folder.url}; is --storage right?") from None
    except ValueError as error:
        raise UsageError(f"--resume {name}: {folder.url}/{PLAN} cannot be read ({error})") from None
    return decode_plan({key: data[key] for key in data if key not in ("versions", "git_commit")})


def decode_plan(plan: dict[str, Any]) -> SweepPlan:
    """The plan from its JSON data. Imports the module of a user's own preset first. Raises UsageError."""
    import_preset(str(plan.get("settings", {}).get("preset", "")))
    return config.decode(SweepPlan, plan)


def most_images(plan: SweepPlan) -> int:
    """Upper bound of the images that all trials see together; for ASHA, the expected number.

    Of N trials, N / eta^k see more than the k-th rung, which is at `every` * eta^k images.
    """
    total = plan.experiment.training.total_images
    if plan.scheduler != "asha":
        return plan.trials * total
    images, left, rung, seen = 0.0, float(plan.trials), plan.every, 0
    while rung < total:
        images += left * (rung - seen)
        left, seen, rung = max(1.0, left / REDUCTION), rung, rung * REDUCTION
    return round(images + left * (total - seen))
