"""The discriminator of patches: its size as published, and that a logit sees its patch and nothing else."""

import pytest
import torch

from imagegen_dist.models.patch_discriminator import PatchDiscriminator, PatchDiscriminatorConfig
from imagegen_dist.shape import SampleShape

SHAPES = {
    "sequence": SampleShape(2, (16,)),
    "digit": SampleShape(1, (28, 28)),
    "image": SampleShape(3, (16, 32)),
    "video": SampleShape(3, (4, 16, 16)),
    "voxels": SampleShape(1, (8, 8, 8)),
    "point": SampleShape(1, (1, 1)),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(shape: SampleShape, channels: int = 8, layers: int = 2) -> PatchDiscriminator:
    return PatchDiscriminator(shape, PatchDiscriminatorConfig(channels, layers), generator=seeded())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_samples_of_any_number_of_axes_become_logits_of_patches(shape: str, layers: int) -> None:
    network = build(SHAPES[shape], layers=layers)
    x = torch.randn(64, *SHAPES[shape].dims, generator=seeded(1)).clamp(-1, 1)
    logits = network(x)
    assert logits.shape[:2] == (64, 1)
    assert logits.ndim == x.ndim
    assert logits[0].numel() == network.patches
    assert 0.01 < logits.std() < 3  # the short axes mostly meet padding


def test_the_published_size() -> None:
    """pix2pix's has 2,768,705 weights for 6 channels: 896 scales and 896 shifts of batch norms, and no bias there."""
    network = PatchDiscriminator(SampleShape(6, (256, 256)), generator=seeded())
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_768_705 - 2 * 896 + 896
    assert network(torch.zeros(1, 6, 256, 256)).shape == (1, 1, 30, 30)


@pytest.mark.parametrize(("layers", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_a_logit_is_a_function_of_its_patch_alone(layers: int, patch: int) -> None:
    network = build(SampleShape(1, (140, 140)), channels=4, layers=layers).double()
    x = torch.randn(2, 1, 140, 140, generator=seeded(1), dtype=torch.float64).requires_grad_()
    logits = network(x)
    middle = logits.shape[-1] // 2
    (gradient,) = torch.autograd.grad(logits[0, 0, middle, middle], x)
    seen = gradient[0, 0].nonzero()
    assert torch.equal(seen.amax(0) - seen.amin(0) + 1, torch.tensor([patch, patch]))
    assert gradient[1].abs().max() == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_every_parameter_gets_a_gradient(shape: str) -> None:
    network = build(SHAPES[shape])
    network(torch.randn(8, *SHAPES[shape].dims, generator=seeded(1))).pow(2).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())
    assert not list(network.buffers())


def test_channels_double_up_to_eight_times() -> None:
    assert PatchDiscriminatorConfig(16, 5).widths == (16, 32, 64, 128, 128, 128)


@pytest.mark.parametrize("field", ["channels", "layers"])
def test_a_size_below_one_is_refused_with_its_flag(field: str) -> None:
    with pytest.raises(ValueError, match=f"discriminator_{field} 0 is below 1; set --objective.discriminator-{field}"):
        PatchDiscriminatorConfig(**{field: 0})
