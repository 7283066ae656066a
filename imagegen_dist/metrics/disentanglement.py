"""Disentanglement scores of a code with respect to known factors: MIG, FactorVAE, BetaVAE, SAP and DCI.

codes are float [N, Z], the posterior means of N samples; factors are int [N, F], the index of each factor's value.
Scores are in [0, 1], higher is better, and depend only on the arguments. All raise ValueError for arrays of other
shapes, codes that are not finite and factors that do not vary. 10,000 samples are usual.

Scores of one name differ between publications: compare them only with those of the same definition.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imagegen_dist.extras import install_hint

Binning = Literal["width", "quantile"]
"""How a latent is discretised: into bins of equal width, or of equally many samples."""

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_LEAVES = (0.05, 0.02, 0.01, 0.002)  # minimum fraction of the samples in a leaf: small leaves fit noise


def disentanglement_scores(
    codes: ArrayLike, factors: ArrayLike, *, categorical: Sequence[int] = (), seed: int = 0
) -> dict[str, float]:
    """All scores by name, with their usual settings. categorical: as for `sap_score`."""
    dci = dci_scores(codes, factors, seed=seed)
    return {
        "mig": mutual_information_gap(codes, factors),
        "mig_quantile": mutual_information_gap(codes, factors, binning="quantile"),
        "factor_vae": factor_vae_score(codes, factors, seed=seed),
        "beta_vae": beta_vae_score(codes, factors, seed=seed),
        "sap": sap_score(codes, factors, categorical=categorical),
        **{f"dci_{name}": value for name, value in dci._asdict().items()},
    }


def mutual_information_gap(codes: ArrayLike, factors: ArrayLike, bins: int = 20, binning: Binning = "width") -> float:
    """MIG: mutual information of a factor with the best latent minus the second best, over its entropy; the mean.

    Latents are discretised into `bins`, so that a factor with K > bins values gives at most log(bins) / log(K). (Chen
    et al., arXiv:1802.04942) binning: "width", bins of equal width from the minimum to the maximum, as in published
    scores (arXiv:1811.12359), where one distant outlier moves nearly all samples into one bin. "quantile": bins of
    equally many samples, on which an outlier has no influence.
    """
    codes, factors = _checked(codes, factors)
    information = mutual_information(codes, factors, bins, binning)
    entropies = np.array([_information(column, column) for column in factors.T])
    information = np.vstack([information, np.zeros_like(entropies)])  # with a single latent, there is no second one
    second, best = np.sort(information, axis=0)[-2:]
    return float(((best - second) / entropies).mean())


def mutual_information(codes: ArrayLike, factors: ArrayLike, bins: int = 20, binning: Binning = "width") -> FloatArray:
    """Mutual information in nats of each discretised latent (see `mutual_information_gap`) and each factor: [Z, F]."""
    codes, factors = _checked(codes, factors)
    if bins < 2:
        raise ValueError(f"bins is {bins}; at least 2 are needed")
    cut = {"width": _binned, "quantile": _binned_by_rank}[binning]
    binned = [cut(column, bins) for column in codes.T]
    return np.array([[_information(latent, factor) for factor in factors.T] for latent in binned])


def factor_vae_score(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    seed: int = 0,
    votes: int = 800,
    group: int = 64,
    dead_below: float = 0.05,
) -> float:
    """FactorVAE score: how often the latent that varies least among samples with one value of a factor identifies it.

    A vote is a random factor and the latent with the least variance, relative to its variance over all samples, in a
    group of samples that agree in the factor. A majority-vote classifier is fitted to `votes` and scored on as many
    others. Latents whose means have a variance below `dead_below`, relative to the prior's 1, are excluded; 0 if none
    remains. (Kim & Mnih, arXiv:1802.05983)
    """
    codes, factors = _checked(codes, factors)
    if group < 2:
        raise ValueError(f"group is {group}; a variance needs at least 2 samples")
    variances = codes.var(0)
    alive = (variances >= dead_below) & (variances > 0)
    if not alive.any():
        return 0.0
    normalised = codes[:, alive] / np.sqrt(variances[alive])
    generator = np.random.default_rng(seed)
    learnt, scored = (_count_votes(normalised, factors, votes, group, generator) for _ in range(2))
    factor_of_latent = learnt.argmax(1)
    return float(scored[np.arange(len(scored)), factor_of_latent].sum() / votes)


def beta_vae_score(
    codes: ArrayLike, factors: ArrayLike, *, seed: int = 0, points: int = 1000, group: int = 64
) -> float:
    """BetaVAE score: accuracy of predicting the factor in which pairs of samples agree, from their mean |z - z'|.

    A point is a random factor and the mean over `group` pairs, each with its own value; a linear classifier is fitted
    to `points` of them and scored on as many others. (Higgins et al., ICLR 2017) Needs scikit-learn.
    """
    codes, factors = _checked(codes, factors)
    generator = np.random.default_rng(seed)
    learnt, scored = (_mean_differences(codes, factors, points, group, generator) for _ in range(2))
    classifier = _sklearn("pipeline").make_pipeline(
        _sklearn("preprocessing").StandardScaler(), _sklearn("linear_model").LogisticRegression(max_iter=1000)
    )
    return float(classifier.fit(*learnt).score(*scored))


def sap_score(codes: ArrayLike, factors: ArrayLike, *, categorical: Sequence[int] = ()) -> float:
    """SAP: prediction score of a factor from the best latent minus that from the second best; the mean over factors.

    categorical: indices of factors with unordered values, predicted by thresholds on the latent and scored by balanced
    accuracy, which needs scikit-learn; the others by linear regression, scored by R². (Kumar et al., arXiv:1711.00848)
    """
    codes, factors = _checked(codes, factors)
    unknown = set(categorical) - set(range(factors.shape[1]))
    if unknown:
        raise ValueError(f"there is no factor {min(unknown)}; factors are numbered from 0 to {factors.shape[1] - 1}")
    gaps = []
    for number, factor in enumerate(factors.T):
        score = _threshold_accuracy if number in categorical else _squared_correlation
        second, best = sorted([0.0, *(score(latent, factor) for latent in codes.T)])[-2:]
        gaps.append(best - second)
    return float(np.mean(gaps))


class DCI(NamedTuple):
    """Disentanglement, completeness and informativeness of a code."""

    disentanglement: float  # each latent is important for one factor only
    completeness: float  # each factor depends on one latent only
    informativeness: float  # accuracy of predicting held-out samples' factors from all latents


def dci_scores(codes: ArrayLike, factors: ArrayLike, *, seed: int = 0, trees: int = 20) -> DCI:
    """DCI from the importances of random forests, one per factor, with leaf size selected on a quarter of the samples.

    Another quarter is held out. (Eastwood & Williams, ICLR 2018) Needs scikit-learn.
    """
    codes, factors = _checked(codes, factors)
    shuffled = np.random.default_rng(seed).permutation(len(codes))
    held_out, chosen_on, learnt = np.split(shuffled, [-(-len(codes) // 4), len(codes) // 2])
    importances, accuracies = [], []
    for factor in factors.T:
        forests = [_forest(codes[learnt], factor[learnt], leaf, trees, seed) for leaf in _LEAVES]
        best = max(forests, key=lambda forest: forest.score(codes[chosen_on], factor[chosen_on]))
        importances.append(best.feature_importances_)
        accuracies.append(best.score(codes[held_out], factor[held_out]))
    by_latent = np.array(importances).T
    weights = by_latent.sum(1) / max(by_latent.sum(), np.finfo(np.float64).tiny)
    return DCI(
        disentanglement=float(weights @ _concentration(by_latent)),
        completeness=float(_concentration(by_latent.T).mean()),
        informativeness=float(np.mean(accuracies)),
    )


def _checked(codes: ArrayLike, factors: ArrayLike) -> tuple[FloatArray, IntArray]:
    """Both as arrays, with each factor's values numbered from 0."""
    z, values = np.asarray(codes, dtype=np.float64), np.asarray(factors)
    if z.ndim != 2 or values.ndim != 2 or len(z) != len(values) or not z.size or not values.size:
        raise ValueError(f"codes have shape {z.shape} and factors {values.shape}; [N, Z] and [N, F] are expected")
    if not np.isfinite(z).all():
        raise ValueError("codes hold values that are not finite")
    numbered = np.stack([np.unique(column, return_inverse=True)[1] for column in values.T], axis=1)
    constant = np.flatnonzero(numbered.max(0) == 0)
    if constant.size:
        raise ValueError(f"factor {constant[0]} has the same value in all samples: leave it out")
    return z, numbered.astype(np.int64)


def _binned(latent: FloatArray, bins: int) -> IntArray:
    low, high = latent.min(), latent.max()
    if low == high:
        return np.zeros(latent.shape, dtype=np.int64)
    return np.minimum((latent - low) / (high - low) * bins, bins - 1).astype(np.int64)


def _binned_by_rank(latent: FloatArray, bins: int) -> IntArray:
    """Bins of equally many samples; equal values are in one bin."""
    edges = np.sort(latent)[np.arange(1, bins) * latent.size // bins]
    return np.searchsorted(edges, latent, side="right").astype(np.int64)


def _information(a: IntArray, b: IntArray) -> float:
    """Mutual information in nats of two columns of indices; of a column with itself, its entropy."""
    width = int(b.max()) + 1
    joint = np.bincount(a * width + b, minlength=(int(a.max()) + 1) * width).reshape(-1, width) / a.size
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return max(0.0, float((joint[seen] * np.log(joint[seen] / independent[seen])).sum()))


def _draw_alike(factor: IntArray, draws: int, group: int, generator: np.random.Generator) -> IntArray:
    """Rows [draws, group] of samples that agree in a factor, whose value is that of a random sample."""
    counts = np.bincount(factor)
    if counts.min() < 2:
        raise ValueError("a value of a factor occurs in a single sample: take more samples, or fewer values")
    starts = np.cumsum(counts) - counts
    value = factor[generator.integers(factor.size, size=(draws, 1))]
    return np.argsort(factor, kind="stable")[starts[value] + generator.integers(counts[value], size=(draws, group))]


def _count_votes(
    codes: FloatArray, factors: IntArray, votes: int, group: int, generator: np.random.Generator
) -> IntArray:
    """How often each latent varied least while each factor was fixed: [Z, F]."""
    counts = np.zeros((codes.shape[1], factors.shape[1]), dtype=np.int64)
    draws = np.bincount(generator.integers(factors.shape[1], size=votes), minlength=factors.shape[1])
    for number, factor in enumerate(factors.T):
        least = codes[_draw_alike(factor, int(draws[number]), group, generator)].var(1).argmin(1)
        counts[:, number] = np.bincount(least, minlength=len(counts))
    return counts


def _mean_differences(
    codes: FloatArray, factors: IntArray, points: int, group: int, generator: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """(mean |z - z'| over pairs that agree in a factor [points, Z], the factor's index [points])."""
    chosen = np.sort(generator.integers(factors.shape[1], size=points))
    differences = []
    for number, factor in enumerate(factors.T):
        pairs = codes[_draw_alike(factor, int((chosen == number).sum()) * group, 2, generator)]
        differences.append(np.abs(pairs[:, 0] - pairs[:, 1]).reshape(-1, group, codes.shape[1]).mean(1))
    return np.concatenate(differences), chosen


def _squared_correlation(latent: FloatArray, factor: IntArray) -> float:
    if latent.std() == 0:
        return 0.0
    return float(np.corrcoef(latent, factor)[0, 1] ** 2)


def _threshold_accuracy(latent: FloatArray, factor: IntArray) -> float:
    """Balanced accuracy of the best thresholds, one fewer than the factor has values."""
    values = int(factor.max()) + 1
    tree = _sklearn("tree").DecisionTreeClassifier(max_leaf_nodes=values, class_weight="balanced", random_state=0)
    right = tree.fit(latent[:, None], factor).predict(latent[:, None]) == factor
    return float(np.mean([right[factor == value].mean() for value in range(values)]))


def _concentration(weights: FloatArray) -> FloatArray:
    """1 - normalised entropy of each row: 1 for a single entry, 0 for a uniform or empty row."""
    columns = weights.shape[1]
    if columns == 1:
        return np.ones(len(weights))
    sums = weights.sum(1, keepdims=True)
    share = np.where(sums > 0, weights / np.where(sums > 0, sums, 1), 1 / columns)
    logs = np.log(np.where(share > 0, share, 1))
    return 1 + (share * logs).sum(1) / np.log(columns)


def _forest(codes: FloatArray, factor: IntArray, leaf: float, trees: int, seed: int) -> Any:
    """A fitted classifier. All latents are considered at each split, so that importance is not shared among them."""
    classifier = _sklearn("ensemble").RandomForestClassifier
    return classifier(trees, max_features=None, min_samples_leaf=leaf, random_state=seed).fit(codes, factor)


def _sklearn(module: str) -> Any:
    """A module of scikit-learn, imported only for these scores."""
    try:
        return import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ValueError(f"this score needs scikit-learn, which is not installed: {install_hint('vae')}") from error
