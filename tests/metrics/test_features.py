import pytest
import torch

from imagegen_dist.metrics import features as module
from imagegen_dist.metrics.features import FeatureNetwork, FeatureSums


def network():
    generator = torch.Generator().manual_seed(0)
    weight, head = torch.randn(8, 5, generator=generator), torch.randn(5, 3, generator=generator)
    return FeatureNetwork(
        "linear", "0" * 64, 5, lambda x: x.flatten(1) @ weight, head=lambda features: features @ head, classes=3
    )


def sums_of(x, first=0, of=30):
    sums = FeatureSums.empty(network(), "cpu", keep=True, scored_samples=of)
    for part in x.split(4):
        sums.add(network(), part, first)
        first += len(part)
    return sums.on_host()


def test_parts_in_their_order_add_up_to_the_whole():
    x = torch.randn(30, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    whole, parts = sums_of(x), sums_of(x[:11])
    parts.merge(sums_of(x[11:], first=11))
    torch.testing.assert_close(parts.features(), whole.features())
    torch.testing.assert_close(whole.features(), network().features(x))
    torch.testing.assert_close(parts.moments.cov, whole.moments.cov)  # products of float32 round by their batch
    assert parts.scores.score() == pytest.approx(whole.scores.score(), rel=1e-5)


def test_of_very_many_samples_the_features_of_the_first_are_kept(monkeypatch):
    monkeypatch.setattr(module, "KEPT_AT_MOST", 10)
    x = torch.randn(30, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    parts = sums_of(x[:11])
    parts.merge(sums_of(x[11:], first=11))
    torch.testing.assert_close(parts.features(), network().features(x[:10]))
    assert parts.moments.count == 30
