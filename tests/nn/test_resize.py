import numpy as np
import pytest
import torch
from PIL import Image

from imagegen_dist.nn.resize import resize_bicubic, resize_like_tensorflow


def picture(height, width):
    return torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(0)) * 255


def test_tensorflow_reads_without_half_a_pixels_offset():
    x = torch.tensor([[[[0.0, 1.0]]]])
    # Output i reads input i / 2; beyond the last input lies its copy.
    assert resize_like_tensorflow(x, (1, 4)).flatten().tolist() == [0.0, 0.5, 1.0, 1.0]


def test_tensorflow_does_not_smooth_where_it_shrinks():
    x = picture(8, 12)
    assert torch.equal(resize_like_tensorflow(x, (4, 6)), x[..., ::2, ::2])


@pytest.mark.parametrize("resize", [resize_like_tensorflow, resize_bicubic])
def test_the_same_size_is_left_as_it_is(resize):
    x = picture(9, 7)
    torch.testing.assert_close(resize(x, (9, 7)), x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(31, 45), (7, 5), (40, 6)])
def test_bicubic_equals_pillows(size):
    x = picture(20, 17)
    by_pillow = Image.fromarray(x[0, 0].numpy(), "F").resize(size[::-1], Image.Resampling.BICUBIC)
    np.testing.assert_allclose(resize_bicubic(x, size)[0, 0], np.asarray(by_pillow), atol=2e-3)
