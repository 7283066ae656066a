"""The perceptual distance: what Eq. 1 of arXiv:1801.03924 says, and what every distance promises."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from imagegen_dist.objectives.perceptual import PerceptualDistance


def seeded(*size: int, seed: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Features(nn.Module):
    """Two feature maps of different extents."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Parameter(seeded(3, 1, 3, 3, seed=5))
        self.coarse = nn.Parameter(seeded(5, 3, 2, 2, seed=6))

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = torch.tanh(conv2d(x, self.fine, padding=1))
        return [fine, conv2d(fine, self.coarse, stride=2)]


X, Y = seeded(4, 1, 6, 6, seed=1), seeded(4, 1, 6, 6, seed=2)
WEIGHTS = [seeded(3, seed=3).abs(), seeded(5, seed=4).abs()]


def test_it_is_the_sum_of_eq_1_position_by_position():
    expected = torch.zeros(4, dtype=torch.float64)
    for of_x, of_y, weights in zip(Features()(X), Features()(Y), WEIGHTS, strict=True):
        _, channels, height, width = of_x.shape
        for sample in range(4):
            for row in range(height):
                for column in range(width):
                    a, b = of_x[sample, :, row, column], of_y[sample, :, row, column]
                    for channel in range(channels):
                        difference = a[channel] / a.norm() - b[channel] / b.norm()
                        expected[sample] += weights[channel] * difference**2 / (height * width)
    torch.testing.assert_close(PerceptualDistance(Features(), WEIGHTS)(X, Y), expected)


def test_equal_weights_give_twice_one_minus_the_cosine():
    expected = torch.zeros(4, dtype=torch.float64)
    for of_x, of_y in zip(Features()(X), Features()(Y), strict=True):
        expected += 2 * (1 - torch.cosine_similarity(of_x, of_y, dim=1)).flatten(1).mean(1)
    torch.testing.assert_close(PerceptualDistance(Features())(X, Y), expected)


def test_it_is_0_at_home_positive_and_symmetric_and_ignores_the_features_scale():
    distance = PerceptualDistance(Features(), WEIGHTS)
    assert torch.equal(distance(X, X), torch.zeros(4, dtype=torch.float64))
    assert (distance(X, Y) > 0).all()
    torch.testing.assert_close(distance(X, Y), distance(Y, X))
    before = distance(X, Y)
    distance.features.coarse.data *= 7
    torch.testing.assert_close(distance(X, Y), before)


def test_its_gradient_reaches_the_samples_alone():
    distance, y = PerceptualDistance(Features(), WEIGHTS), Y.clone().requires_grad_()
    distance(X, y).sum().backward()
    assert y.grad.abs().amin(0).max() > 0
    assert not any(parameter.requires_grad for parameter in distance.parameters())
    assert torch.autograd.gradcheck(lambda y: distance(X[:1], y), (Y[:1].clone().requires_grad_(),))


def test_where_all_features_are_off_it_is_flat():
    class Off(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x - 10)

    y = Y.clone().requires_grad_()
    PerceptualDistance(Off())(X, y).sum().backward()
    assert torch.equal(y.grad, torch.zeros_like(Y))


def test_one_map_alone_will_do():
    identity = PerceptualDistance(nn.Identity())
    assert (identity(X.expand(4, 3, 6, 6) * torch.arange(1, 4).reshape(3, 1, 1), Y.expand(4, 3, 6, 6)) > 0).all()
