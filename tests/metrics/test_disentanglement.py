import sys
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mutual_info_score

from imagegen_dist.evaluation.checks import remarks
from imagegen_dist.metrics import disentanglement
from imagegen_dist.metrics.disentanglement import (
    beta_vae_score,
    dci_scores,
    disentanglement_scores,
    factor_vae_score,
    mutual_information,
    mutual_information_gap,
    sap_score,
)

SIZES = (3, 6, 10, 8)
SCORES = {
    "mig": mutual_information_gap,
    "factor_vae": factor_vae_score,
    "beta_vae": beta_vae_score,
    "sap": sap_score,
    "dci": lambda codes, factors: min(dci_scores(codes, factors, trees=3)),
}


@pytest.fixture(scope="module")
def factors():
    """Every combination twice, so that factors are independent to the last digit: [2880, 4]."""
    grid = np.random.default_rng(0).permutation(2 * np.prod(SIZES)) // 2
    return np.stack(np.unravel_index(grid, SIZES), 1)


@pytest.fixture(scope="module")
def perfect(factors):
    """One latent a factor, of unit variance."""
    return (factors - factors.mean(0)) / factors.std(0)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(1).normal(size=(2880, 6))


@pytest.mark.parametrize("name", SCORES)
def test_a_perfect_code_scores_one(name, perfect, factors):
    assert SCORES[name](perfect, factors) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", SCORES)
def test_permuted_and_mirrored_latents_beside_noise_score_the_same(name, perfect, noise, factors):
    permuted = np.concatenate([noise[:, :1] * 1e-3, -perfect[:, [2, 0, 3, 1]]], 1)
    assert SCORES[name](permuted, factors) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("name", "highest"), [("mig", 0.02), ("factor_vae", 0.35), ("beta_vae", 0.35), ("sap", 0.01), ("dci", 0.05)]
)
def test_noise_scores_next_to_nothing(name, highest, noise, factors):
    assert 0 <= SCORES[name](noise, factors) < highest


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_the_same_each_time(name, perfect, noise, factors):
    code = perfect + noise[:, :4]
    assert SCORES[name](code, factors) == SCORES[name](code, factors)


def test_a_duplicated_latent_leaves_no_gap(perfect, factors):
    twice = np.concatenate([perfect, 2 * perfect], 1)
    assert mutual_information_gap(twice, factors) == pytest.approx(0, abs=1e-12)
    assert sap_score(twice, factors) == pytest.approx(0, abs=1e-12)
    one_twice = np.concatenate([perfect, perfect[:, :1]], 1)
    assert mutual_information_gap(one_twice, factors) == pytest.approx(3 / 4)
    assert sap_score(one_twice, factors) == pytest.approx(3 / 4, abs=0.01)


def test_a_rotated_code_tells_all_and_separates_nothing(perfect, factors):
    half = np.sqrt(0.5)
    turned = perfect[:, [0, 2, 1, 3]].reshape(-1, 2, 2) @ np.array([[half, -half], [half, half]])
    turned = turned.reshape(-1, 4)
    assert mutual_information_gap(turned, factors) < 0.15
    assert sap_score(turned, factors) < 0.1
    straight, rotated = (dci_scores(code, factors, trees=5) for code in (perfect, turned))
    assert rotated.disentanglement < 0.6 < straight.disentanglement
    assert rotated.completeness < 0.6 < straight.completeness
    assert rotated.informativeness > 0.7


def test_factors_in_one_latent_are_complete_and_not_disentangled(factors):
    both = factors[:, :2]
    code = np.stack([both[:, 0] * 6 + both[:, 1], np.zeros(len(both))], 1)
    dci = dci_scores(code, both, trees=3)
    assert dci.completeness == pytest.approx(1)
    assert dci.disentanglement == pytest.approx(0, abs=0.01)
    assert dci.informativeness == pytest.approx(1, abs=0.01)


def test_mutual_information_equals_scikit_learn(perfect, noise, factors):
    code = perfect + 0.3 * noise[:, :4]
    information = mutual_information(code, factors)
    for latent in range(4):
        edges = np.linspace(code[:, latent].min(), code[:, latent].max(), 21)
        binned = np.digitize(code[:, latent], edges[1:-1])
        for factor in range(4):
            expected = mutual_info_score(factors[:, factor], binned)
            assert information[latent, factor] == pytest.approx(expected, abs=1e-10)


def test_the_gap_equals_that_of_scikit_learns_information(perfect, noise, factors):
    code = perfect + 0.3 * noise[:, :4]
    gaps = []
    for factor in factors.T:
        binned = [np.digitize(each, np.linspace(each.min(), each.max(), 21)[1:-1]) for each in code.T]
        second, best = sorted(mutual_info_score(factor, each) for each in binned)[-2:]
        gaps.append((best - second) / scipy.stats.entropy(np.bincount(factor)))
    np.testing.assert_allclose(mutual_information_gap(code, factors), np.mean(gaps), atol=1e-12)


def test_the_gap_of_predictions_equals_that_of_scikit_learns_regressions(perfect, noise, factors):
    code = perfect + 0.3 * noise[:, :4]
    gaps = []
    for factor in factors.T:
        scores = [LinearRegression().fit(each[:, None], factor).score(each[:, None], factor) for each in code.T]
        second, best = sorted(scores)[-2:]
        gaps.append(best - second)
    np.testing.assert_allclose(sap_score(code, factors), np.mean(gaps), atol=1e-12)


def test_dci_equals_scipys_entropies_of_given_importances(perfect, factors, monkeypatch):
    importances = np.random.default_rng(3).dirichlet(np.full(4, 0.4), 4)  # of each factor's forest, by latent
    forests = iter(importances.repeat(len(disentanglement._LEAVES), 0))

    def forest(*_: object) -> SimpleNamespace:
        return SimpleNamespace(feature_importances_=next(forests), score=lambda *_: 0.5)

    monkeypatch.setattr(disentanglement, "_forest", forest)
    found = dci_scores(perfect, factors)
    by_latent = importances.T
    of_latents = 1 - scipy.stats.entropy(by_latent, base=4, axis=1)
    of_factors = 1 - scipy.stats.entropy(importances, base=4, axis=1)
    np.testing.assert_allclose(found.disentanglement, of_latents @ by_latent.sum(1) / by_latent.sum(), atol=1e-12)
    np.testing.assert_allclose(found.completeness, of_factors.mean(), atol=1e-12)


def test_closed_forms_of_mutual_information():
    a, b = np.divmod(np.arange(4 * 8), 8)  # every pair once: independent
    grid = np.stack([a, b], 1)
    parity = (b % 2)[:, None]
    expected = [[np.log(4), 0, 0], [0, np.log(8), np.log(2)]]
    np.testing.assert_allclose(mutual_information(grid, np.hstack([grid, parity])), expected, atol=1e-12)
    np.testing.assert_allclose(mutual_information(grid, grid, bins=2), np.diag([np.log(2)] * 2), atol=1e-12)


def test_bins_bound_the_gap_of_factors_with_more_values():
    values = np.arange(40).repeat(10)[:, None]
    assert mutual_information_gap(values, values) == pytest.approx(np.log(20) / np.log(40))
    assert mutual_information_gap(values, values, bins=40) == pytest.approx(1)


def test_numbers_of_values_may_be_any_integers(perfect, factors):
    assert mutual_information_gap(perfect, factors * 7 - 50) == mutual_information_gap(perfect, factors)


def test_dead_latents_have_no_vote(perfect, noise, factors):
    dead = np.concatenate([1e-3 * perfect[:, :1], np.zeros((len(noise), 1)), perfect[:, 1:]], 1)
    assert 0.6 < factor_vae_score(dead, factors) < 0.9  # the factor of the dead latent cannot be told
    assert factor_vae_score(dead, factors, dead_below=0) == pytest.approx(1)
    assert factor_vae_score(noise * 1e-3, factors) == 0


def test_a_latent_that_stands_for_two_factors_costs_votes(perfect, factors):
    merged = np.concatenate([perfect[:, :2], perfect[:, 2:3] + perfect[:, 3:4]], 1)
    assert 0.6 < factor_vae_score(merged, factors) < 0.9  # three of the four factors can be told


@pytest.mark.parametrize("name", ["mig", "beta_vae", "sap", "dci"])
def test_the_scale_of_a_latent_does_not_matter(name, perfect, factors):
    assert SCORES[name](perfect * [1e-4, 1e-4, 1, 1e3], factors) == pytest.approx(1, abs=0.01)


def test_one_outlier_moves_the_published_mig_and_not_the_one_by_quantiles(perfect, noise, factors):
    code = perfect + 0.1 * noise[:, :4]
    far = code.copy()
    far[0] = 100.0
    width = [mutual_information_gap(each, factors) for each in (code, far)]
    quantile = [mutual_information_gap(each, factors, binning="quantile") for each in (code, far)]
    assert width[0] > 0.8
    assert width[1] < 0.3
    assert quantile[0] > 0.8
    assert quantile[1] == pytest.approx(quantile[0], abs=0.01)
    assert mutual_information_gap(np.exp(3 * code), factors, binning="quantile") == pytest.approx(quantile[0])
    [line] = remarks({"mig": width[1], "mig_quantile": quantile[1]})
    assert line.startswith(f"MIG is {width[1]:.3f} by the published protocol")
    assert remarks({"mig": width[0], "mig_quantile": quantile[0]}) == []


def test_bins_by_quantiles_hold_equally_many_samples_and_equal_values_stay_together(noise):
    latent = noise[:, :1]
    numbers = np.argsort(np.argsort(latent[:, 0]))[:, None] * 20 // len(latent)  # the twentieth that a sample is in
    assert mutual_information(latent, numbers, 20, "quantile").item() == pytest.approx(np.log(20))
    two = (latent > 1).astype(float)
    assert mutual_information(two, two.astype(int), 20, "quantile").item() == pytest.approx(
        mutual_information(two, two.astype(int)).item()
    )


def test_thresholds_tell_categories_that_a_line_cannot(noise):
    factor = np.random.default_rng(2).integers(3, size=(2880, 1))
    middle_last = np.array([0.0, 2.0, 1.0])[factor] + 0.01 * noise[:, :1]
    code = np.concatenate([middle_last, noise[:, :1]], 1)
    assert sap_score(code, factor) == pytest.approx(0.25, abs=0.03)  # the squared correlation of (0, 1, 2), (0, 2, 1)
    gap = sap_score(code, factor, categorical=(0,))
    assert gap == pytest.approx(1 - 1 / 3, abs=0.05)  # noise tells one in three


def test_all_scores_have_names(perfect, factors):
    scores = disentanglement_scores(perfect[:1000], factors[:1000], categorical=(0,), seed=1)
    assert list(scores) == [
        "mig",
        "mig_quantile",
        "factor_vae",
        "beta_vae",
        "sap",
        "dci_disentanglement",
        "dci_completeness",
        "dci_informativeness",
    ]
    assert scores["mig"] == mutual_information_gap(perfect[:1000], factors[:1000])
    assert scores["sap"] == pytest.approx((3 + 1 - 1 / 3) / 4, abs=0.05)


def test_a_single_latent_is_allowed(factors):
    one = factors[:, :1]
    for name, score in SCORES.items():
        if name != "beta_vae":
            assert score(one.astype(float), one) == pytest.approx(1), name


def test_what_cannot_be_scored_is_refused(perfect, factors):
    with pytest.raises(ValueError, match=r"\(2880, 4\) and factors \(10, 4\); \[N, Z\] and \[N, F\] are expected"):
        mutual_information_gap(perfect, factors[:10])
    with pytest.raises(ValueError, match="not finite"):
        sap_score(np.where(perfect > 1, np.nan, perfect), factors)
    with pytest.raises(ValueError, match="factor 1 has the same value in all samples"):
        mutual_information_gap(perfect, factors * [1, 0, 1, 1])
    with pytest.raises(ValueError, match="bins is 1; at least 2"):
        mutual_information_gap(perfect, factors, bins=1)
    with pytest.raises(ValueError, match="no factor 4; factors are numbered from 0 to 3"):
        sap_score(perfect, factors, categorical=(4,))
    with pytest.raises(ValueError, match="group is 1; a variance needs at least 2"):
        factor_vae_score(perfect, factors, group=1)
    with pytest.raises(ValueError, match="a single sample: take more samples"):
        factor_vae_score(perfect[:5], np.arange(5)[:, None])


def test_without_scikit_learn_the_fix_is_named(perfect, factors, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.pipeline", None)
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    for score in (beta_vae_score, dci_scores):
        with pytest.raises(ValueError, match=r"scikit-learn, which is not installed: pip install -e '\.\[vae\]'"):
            score(perfect, factors)
    assert mutual_information_gap(perfect, factors) == pytest.approx(1)
