import pytest
import torch
from torch.nn.functional import conv2d, max_pool2d

from imagegen_dist.models.vgg import VGG, VGGConfig, random_features
from imagegen_dist.shape import SampleShape

SHAPES = {"image": (3, 21, 16), "video": (3, 4, 16, 16), "voxels": (1, 8, 8, 8), "tiny": (1, 1, 1)}
NARROW = VGGConfig(widths=(4, 6, 8, 8, 8))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_vgg16_has_the_published_size_and_stages() -> None:
    """14,714,688 weights before the fully connected layers: configuration D of arXiv:1409.1556."""
    network = VGG(2, 3, generator=seeded())
    assert sum(parameter.numel() for parameter in network.parameters()) == 14_714_688
    with torch.no_grad():
        maps = network(torch.zeros(1, 3, 32, 32))
    assert [tuple(values.shape[1:]) for values in maps] == [
        (64, 32, 32),
        (128, 16, 16),
        (256, 8, 8),
        (512, 4, 4),
        (512, 2, 2),
    ]


def test_it_is_the_plain_stack_written_out() -> None:
    network = VGG(2, 3, NARROW, generator=seeded()).double()
    x = torch.randn(2, 3, 21, 16, generator=seeded(1), dtype=torch.float64)
    maps, left = network(x), list(network.convolutions)
    for stage, depth in enumerate((2, 2, 3, 3, 3)):
        x = max_pool2d(x, 2, 2) if stage else x
        for _ in range(depth):
            layer = left.pop(0)
            x = conv2d(x, layer.weight, layer.bias, padding=1).clamp_min(0)
        torch.testing.assert_close(maps[stage], x)


@pytest.mark.parametrize("shape", SHAPES)
def test_random_features_are_the_same_everywhere_and_tell_flat_samples_apart(shape: str) -> None:
    dims = SHAPES[shape]
    network, again = (random_features(SampleShape(dims[0], dims[1:])) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), again.parameters(), strict=True))
    flat = torch.tensor([-1.0, -0.5, 0.5]).reshape(3, *[1] * len(dims)).expand(3, *dims)
    for values in network(flat):
        assert values.isfinite().all()
        centres = values.flatten(2)[:, :, values.flatten(2).shape[2] // 2]
        units = centres / centres.norm(dim=1, keepdim=True)
        assert (units[0] - units[1]).norm() > 0.01  # without biases 0
