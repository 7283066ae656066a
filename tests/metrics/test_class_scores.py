import numpy as np
import pytest
import torch

from imagegen_dist.metrics.class_scores import ClassScores


def scores_of(logits, splits, batches=1):
    scores = ClassScores(len(logits), logits.shape[1], splits)
    first = 0
    for part in logits.tensor_split(batches):
        scores.add(part, first)
        first += len(part)
    return scores


def test_score_is_the_mean_over_runs_of_exp_mean_kl():
    logits = torch.randn(53, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    expected = []
    for split in range(5):
        p = torch.softmax(logits[split * 53 // 5 : (split + 1) * 53 // 5], 1).numpy()
        expected.append(np.exp((p * np.log(p / p.mean(0))).sum(1).mean()))
    mean, deviation = scores_of(logits, 5).score()
    assert mean == pytest.approx(np.mean(expected), rel=1e-12)
    assert deviation == pytest.approx(np.std(expected), rel=1e-10)


def test_sure_and_balanced_answers_score_the_number_of_classes():
    logits = 1000.0 * torch.eye(7).repeat(10, 1)
    assert scores_of(logits, 10).score() == (pytest.approx(7), pytest.approx(0, abs=1e-12))


@pytest.mark.parametrize("logits", [torch.zeros(20, 5), torch.tensor([[9.0, 0, 0, 0, 0]]).repeat(20, 1)])
def test_answers_that_never_differ_score_one(logits):
    assert scores_of(logits, 2).score()[0] == pytest.approx(1)


def test_any_split_into_batches_and_parts_gives_one_score():
    logits = torch.randn(47, 4, generator=torch.Generator().manual_seed(1))
    whole = scores_of(logits, 3).score()
    assert scores_of(logits, 3, batches=6).score() == pytest.approx(whole, rel=1e-12)
    parts = [ClassScores(47, 4, 3), ClassScores(47, 4, 3)]
    for number, row in enumerate(logits):
        parts[number % 2].add(row[None], number)
    parts[0].merge(parts[1].on_host())
    assert parts[0].score() == pytest.approx(whole, rel=1e-12)


def test_fewer_samples_than_runs_are_refused():
    with pytest.raises(ValueError, match="a mean over 10 splits of the samples, and there are 9; set --samples"):
        ClassScores(9, 4)
