"""A sweep's trials as a study of Optuna's: to suggest values by TPE, and to judge the importance of each setting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from imagegen_dist.errors import UsageError
from imagegen_dist.extras import install_hint
from imagegen_dist.sweep.space import Choice, Range, Space

MIN_JUDGED = 6
"""Fewest trials from which importance is estimated."""

Losses = tuple[float, ...]


def require_optuna() -> Any:
    """Optuna. Raises UsageError if it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UsageError(f"--searcher tpe needs Optuna: {install_hint('sweep')}") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def distributions(space: Space) -> dict[str, Any]:
    """The space as Optuna's distributions, by path."""
    made: dict[str, Any] = {}
    kinds = require_optuna().distributions
    for dimension in space.dimensions:
        match dimension.domain.start:
            case Choice(values=values):
                made[dimension.path] = kinds.CategoricalDistribution(values)
            case Range(low=low, high=high, log=log, whole=True):
                made[dimension.path] = kinds.IntDistribution(int(low), int(high), log=log)
            case Range(low=low, high=high, log=log):
                made[dimension.path] = kinds.FloatDistribution(low, high, log=log)
    return made


def build_study(
    distributions: Mapping[str, Any], trials: Sequence[tuple[Mapping[str, Any], Losses | None]], goals: int, seed: int
) -> Any:
    """A study of (values, losses) of trials; losses None: the trial runs. Trials with an infinite loss are left out."""
    optuna = require_optuna()
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    study = optuna.create_study(directions=["minimize"] * goals, sampler=sampler)
    for values, losses in trials:
        if losses is None:
            result: dict[str, Any] = {"state": optuna.trial.TrialState.RUNNING}
        elif all(map(math.isfinite, losses)):
            result = {"values": list(losses)}
        else:
            continue
        study.add_trial(optuna.trial.create_trial(params=dict(values), distributions=dict(distributions), **result))
    return study


def importances(space: Space, trials: Sequence[tuple[Mapping[str, Any], float]]) -> dict[str, float]:
    """The share of the variance of the trials' ranks that each setting explains alone, by path, largest first.

    By functional ANOVA over a random forest (Hutter et al., ICML 2014), in Optuna's implementation. Ranks rather than
    losses, so that a diverged trial is the worst one and not an infinity.
    trials: (values, loss) of each. Empty for fewer than two settings or MIN_JUDGED trials, or if all losses are equal.
    Raises ImportError without Optuna and scikit-learn.
    """
    ranks = average_ranks([loss for _, loss in trials])
    if len(space.dimensions) < 2 or len(trials) < MIN_JUDGED or len(set(ranks)) < 2:
        return {}
    from optuna.importance import FanovaImportanceEvaluator

    evaluator = FanovaImportanceEvaluator(seed=0)
    known = [(values, (rank,)) for (values, _), rank in zip(trials, ranks, strict=True)]
    return dict(evaluator.evaluate(build_study(distributions(space), known, 1, 0)))


def average_ranks(losses: Sequence[float]) -> list[float]:
    """The rank of each loss, from 0; equal losses share the mean of their ranks."""
    order = sorted(losses)
    return [order.index(loss) + (order.count(loss) - 1) / 2 for loss in losses]
