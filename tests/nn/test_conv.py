"""Layers of nn.conv: shapes in every number of dimensions, initial scale, adjointness."""

import pytest
import torch
from scipy import signal

from imagegen_dist.nn.conv import ClassEmbedding, Conv, Linear, TransposedConv, append_dims, per_axis


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (4, 2), (5, 2), (8, 4)])
def test_conv_keeps_extent_over_stride(ndim, kernel, stride):
    conv = Conv(ndim, 2, 3, kernel, stride=stride, generator=seeded())
    assert conv(torch.zeros(2, 2, *[8] * ndim)).shape == (2, 3, *[8 // stride] * ndim)


def test_conv_with_kernel_per_axis_over_the_whole_sample_gives_one_position():
    conv = Conv(3, 4, 4, (2, 3, 5), padding=0, groups=4, generator=seeded())
    assert conv(torch.zeros(2, 4, 2, 3, 5)).shape == (2, 4, 1, 1, 1)


def test_conv_equals_scipy_correlation():
    conv = Conv(2, 1, 1, 3, bias=True, generator=seeded()).double()
    x = torch.randn(1, 1, 6, 7, generator=seeded(1), dtype=torch.float64)
    expected = signal.correlate2d(x[0, 0].numpy(), conv.weight[0, 0].detach().numpy(), mode="same")
    torch.testing.assert_close(conv(x)[0, 0].detach(), torch.from_numpy(expected))


def test_strided_conv_reads_only_its_group():
    conv = Conv(2, 4, 4, 3, groups=2, generator=seeded())
    x = torch.zeros(1, 4, 5, 5)
    x[:, :2] = torch.randn(1, 2, 5, 5, generator=seeded())
    y = conv(x)
    assert y[:, :2].abs().sum() > 0
    assert y[:, 2:].abs().sum() == 0


@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_initial_weights_have_variance_gain_squared_over_fan_in(gain):
    conv = Conv(2, 64, 128, 3, groups=4, gain=gain, generator=seeded())
    linear = Linear(400, 300, gain=gain, generator=seeded())
    assert conv.weight.std().item() == pytest.approx(gain / (16 * 9) ** 0.5, rel=0.02)
    assert linear.weight.std().item() == pytest.approx(gain / 400**0.5, rel=0.02)


def test_transposed_conv_keeps_unit_variance_inside():
    conv = TransposedConv(2, 32, 16, 8, 4, generator=seeded())
    y = conv(torch.randn(4, 32, 12, 12, generator=seeded(1)))
    assert y.shape == (4, 16, 48, 48)
    assert y[..., 4:-4, 4:-4].var().item() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_transposed_conv_is_the_transpose_of_conv(ndim):
    conv = Conv(ndim, 2, 3, 4, stride=2, generator=seeded()).double()
    transposed = TransposedConv(ndim, 3, 2, 4, 2, generator=seeded()).double()
    transposed.weight.data = conv.weight.data
    x = torch.randn(1, 2, *[6] * ndim, generator=seeded(1), dtype=torch.float64)
    y = torch.randn(1, 3, *[3] * ndim, generator=seeded(2), dtype=torch.float64)
    torch.testing.assert_close((conv(x) * y).sum(), (x * transposed(y)).sum())


def test_zero_gain_starts_at_zero_and_draws_nothing():
    generator = seeded()
    before = generator.get_state()
    assert Conv(2, 3, 3, 1, gain=0, generator=generator).weight.abs().sum() == 0
    assert torch.equal(generator.get_state(), before)


def test_equal_generators_give_equal_weights():
    a, b = (Conv(2, 3, 5, 3, generator=seeded(7)).weight for _ in range(2))
    assert torch.equal(a, b)


@pytest.mark.parametrize("layer", ["conv", "transposed", "linear"])
def test_computation_follows_the_type_of_x(layer):
    module, x = {
        "conv": (Conv(2, 3, 3, 3, bias=True, generator=seeded()), torch.zeros(1, 3, 4, 4)),
        "transposed": (TransposedConv(2, 3, 3, 2, 2, bias=True, generator=seeded()), torch.zeros(1, 3, 4, 4)),
        "linear": (Linear(3, 3, bias=True, generator=seeded()), torch.zeros(1, 3)),
    }[layer]
    assert module(x.bfloat16()).dtype == torch.bfloat16
    assert module(x).dtype == torch.float32


def test_class_embedding_gives_each_label_its_row_and_refuses_none():
    embed = ClassEmbedding(4, 3, generator=seeded())
    assert torch.equal(embed(torch.tensor([2, 0])), embed.weight[[2, 0]])
    with pytest.raises(ValueError, match="needs a label"):
        embed(None)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Conv(2, 3, 4, 3, groups=2, generator=seeded()), "2 groups do not divide 3"),
        (lambda: Conv(3, 3, 4, (3, 3), generator=seeded()), "2 entries for 3 spatial axes"),
        (lambda: TransposedConv(2, 3, 4, 3, 2, generator=seeded()), "plus an even number"),
        (lambda: TransposedConv(2, 3, 4, 2, 4, generator=seeded()), "plus an even number"),
    ],
)
def test_layers_that_do_not_fit_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_append_dims_and_per_axis():
    assert append_dims(torch.zeros(2, 3), 5).shape == (2, 3, 1, 1, 1)
    assert per_axis(3, 2) == (3, 3)
    assert per_axis((1, 2), 2) == (1, 2)
