from math import log

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from imagegen_dist.conditions.part import Conditions, Part
from imagegen_dist.objectives.base import Batch, Draw
from imagegen_dist.objectives.classify import Classify, ClassifyConfig, random_shift
from imagegen_dist.objectives.recognise import recognition_loss


def draw(seed: int = 0) -> Draw:
    return Draw(0, torch.Generator().manual_seed(seed))


class Certain(nn.Module):
    """Logits that are `strength` for the class written in the sample's first value, and 0 elsewhere."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(strength))

    def forward(self, x: Tensor) -> Tensor:
        return self.strength * one_hot(x.flatten(1)[:, 0].long(), 4)


def batch() -> Batch:
    label = torch.tensor([0, 3, 1])
    return Batch(label.float().reshape(3, 1, 1, 1).expand(3, 1, 2, 2), label)


def test_an_ignorant_classifier_loses_log_classes():
    loss, terms = Classify(Certain(0.0), ClassifyConfig(max_shift=0)).loss(batch(), draw())
    assert loss.item() == pytest.approx(log(4))
    torch.testing.assert_close(terms["loss/classifier"], torch.full((3,), log(4)))


def test_a_certain_one_loses_nothing_and_smoothing_charges_for_certainty():
    loss, _ = Classify(Certain(100.0), ClassifyConfig()).loss(batch(), draw())
    assert loss.item() == pytest.approx(0, abs=1e-6)
    smoothed, _ = Classify(Certain(100.0), ClassifyConfig(label_smoothing=0.1)).loss(batch(), draw())
    assert smoothed.item() == pytest.approx(0.1 * 3 / 4 * 100)


def test_what_it_logs_is_detached_and_its_mean_is_the_loss():
    loss, terms = Classify(Certain(1.0), ClassifyConfig()).loss(batch(), draw())
    assert not terms["loss/classifier"].requires_grad
    torch.testing.assert_close(terms["loss/classifier"].mean(), loss.detach())


def test_labels_are_needed():
    with pytest.raises(ValueError, match="a dataset with labels"):
        Classify(Certain(1.0), ClassifyConfig()).loss(Batch(torch.zeros(2, 1, 4, 4), None), draw())


def test_each_part_of_a_condition_counts_once_in_the_loss():
    digit = Part("digit", "class", 4, tuple("abcd"), (1,) * 4)
    wears = Part("wears", "attributes", 3, ("hat", "tie", "coat"), (1,) * 3)
    text = Part("text", "vector", 2, (), (), (0.0, 0.0), (1.0, 1.0), (-1.0, -1.0), (1.0, 1.0))
    told = torch.tensor([[0.0, 1, 0, 0, 1, 0, 1, 3, -1], [1.0, 0, 0, 0, 0, 0, 0, 0, 0]])
    found = recognition_loss(torch.zeros(2, 9), told, Conditions((digit, wears, text)))
    torch.testing.assert_close(found, torch.tensor([log(4) + log(2) + (9 + 1) / 2 / 8, log(4) + log(2)]))
    objective = Classify(nn.Flatten(), ClassifyConfig(max_shift=0), Conditions((digit, wears, text)))
    loss, _ = objective.loss(Batch(torch.zeros(2, 9, 1, 1), told), draw())
    torch.testing.assert_close(loss, found.mean())


def test_one_phase_trains_the_classifier():
    objective = Classify(Certain(1.0), ClassifyConfig())
    (phase,) = objective.phases()
    assert phase.trains is objective.modules()[phase.name]
    assert list(objective.averaged()) == [phase.name]


@pytest.mark.parametrize("spatial", [(7,), (6, 7), (5, 6, 7)])
def test_a_shift_moves_each_sample_as_a_whole(spatial):
    axes = [torch.arange(extent, dtype=torch.float32) for extent in spatial]
    x = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(8, *[-1] * (len(spatial) + 1))
    shifted = random_shift(x, 2, draw())
    moved = shifted - x
    for axis, extent in enumerate(spatial):
        along = moved[:, axis].movedim(axis + 1, -1)
        offset = along[(slice(None), *[0] * (len(spatial) - 1), 2)]
        assert offset.abs().max() <= 2
        assert offset.unique().numel() > 1
        position = axes[axis] + offset[:, None]
        expected = position.clamp(0, extent - 1) - axes[axis]
        assert torch.equal(along, expected.reshape(8, *[1] * (len(spatial) - 1), extent).expand_as(along))


def test_no_shift_is_the_sample_itself():
    x = torch.randn(2, 1, 4, 4)
    assert random_shift(x, 0, draw()) is x


def test_the_shift_is_a_function_of_the_draw():
    x = torch.randn(16, 1, 8, 8)
    assert torch.equal(random_shift(x, 2, draw(1)), random_shift(x, 2, draw(1)))
    assert not torch.equal(random_shift(x, 2, draw(1)), random_shift(x, 2, draw(2)))
