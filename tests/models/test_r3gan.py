"""R3GAN: published parameter counts, initialisation, stages, bfloat16."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from imagegen_dist.models.r3gan import Discriminator, Generator, R3GANConfig
from imagegen_dist.nn.conv import Conv
from imagegen_dist.shape import SampleShape

PUBLISHED = {
    "cifar10": (32, 10, R3GANConfig(), "20.78", "21.28"),
    "ffhq64": (64, 0, R3GANConfig(widths=(768, 768, 768, 768, 384)), "22.43", "22.38"),
    "ffhq256": (256, 0, R3GANConfig(widths=(768, 768, 768, 768, 384, 192, 96)), "23.06", "23.01"),
    "imagenet64": (64, 1000, R3GANConfig(widths=(1536,) * 5, group_channels=32), "103.57", "107.21"),
}
DIGITS = R3GANConfig(widths=(48,), group_channels=0, patch=4, patch_kernel=8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def millions(network: nn.Module) -> str:
    return f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f}"


@pytest.mark.parametrize("preset", PUBLISHED)
def test_parameter_counts_are_those_published(preset):
    extent, classes, config, generator_millions, discriminator_millions = PUBLISHED[preset]
    shape = SampleShape(3, (extent, extent))
    with FakeTensorMode():
        assert millions(Generator(shape, classes, config, generator=seeded())) == generator_millions
        assert millions(Discriminator(shape, classes, config, generator=seeded())) == discriminator_millions


@pytest.mark.parametrize("preset", PUBLISHED)
def test_published_networks_start_from_4x4(preset):
    extent, _, config, *_ = PUBLISHED[preset]
    assert config.base(SampleShape(3, (extent, extent))) == (4, 4)


def test_imagenet_networks_keep_96_groups():
    config = PUBLISHED["imagenet64"][2]
    with FakeTensorMode():
        network = Generator(SampleShape(3, (64, 64)), 1000, config, generator=seeded())
    assert {stage[0].mix.groups for stage in network.stages} == {96}


def test_initial_scales_follow_the_paper():
    config = R3GANConfig(widths=(256, 256, 64), group_channels=16)
    generator = Generator(SampleShape(3, (16, 16)), 100, config, generator=seeded())
    discriminator = Discriminator(SampleShape(3, (16, 16)), 100, config, generator=seeded())
    gain = (2 / 1.04) ** 0.5 * 6**-0.25
    expected = {
        generator.basis: 1,
        generator.modulate.weight: 128**-0.5,
        generator.embed.weight: 100**-0.5,
        generator.transitions[2].weight: 256**-0.5,
        generator.stages[0][0].expand.weight: gain * 256**-0.5,
        generator.stages[0][1].mix.weight: gain * (16 * 9) ** -0.5,
        discriminator.transitions[0].weight: 64**-0.5,
        discriminator.reduce.weight: 16**-0.5,
        discriminator.head.weight: 256**-0.5,
        discriminator.embed.weight: (100 * 256) ** -0.5,
    }
    for weight, std in expected.items():
        assert weight.std().item() == pytest.approx(std, rel=0.05)
    for network in (generator, discriminator):
        for stage in network.stages:
            assert all(block.project.weight.abs().sum() == 0 for block in stage)
        assert all(parameter.abs().sum() == 0 for name, parameter in network.named_parameters() if "bias" in name)


def test_generator_at_the_start_is_linear_in_z():
    generator = Generator(SampleShape(3, (16, 16)), 0, R3GANConfig(widths=(32, 16, 16)), generator=seeded()).double()
    z = torch.randn(2, 64, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(generator(2 * z[:1] - z[1:]), 2 * generator(z[:1]) - generator(z[1:]))


@pytest.mark.parametrize("config", [R3GANConfig(widths=(32, 16, 16)), R3GANConfig(widths=(32, 16, 16), resample="box")])
def test_stages_double_from_the_lowest_resolution_up(config):
    extents: list[tuple[int, ...]] = []
    generator = Generator(SampleShape(3, (8, 16)), 0, config, generator=seeded())
    discriminator = Discriminator(SampleShape(3, (8, 16)), 0, config, generator=seeded())
    for network in (generator, discriminator):
        for stage in network.stages:
            stage.register_forward_hook(lambda _, inputs, output: extents.append(tuple(output.shape[1:])))
    discriminator(generator(torch.zeros(1, 64)))
    assert extents == [(32, 2, 4), (16, 4, 8), (16, 8, 16), (16, 8, 16), (16, 4, 8), (32, 2, 4)]


def test_patches_work_at_7x7_for_digits():
    shape = SampleShape(1, (28, 28))
    assert DIGITS.base(shape) == (7, 7)
    generator = Generator(shape, 10, DIGITS, generator=seeded())
    discriminator = Discriminator(shape, 10, DIGITS, generator=seeded())
    assert generator.stages[0][0].mix.groups == 1
    assert discriminator.reduce.kernel == (7, 7)
    label = torch.arange(10)
    assert discriminator(generator(torch.zeros(10, 64), label), label).shape == (10,)


@pytest.mark.parametrize("bf16_stages", [1, 3])
def test_bf16_runs_the_highest_stages_only_and_stays_close(bf16_stages):
    shape, widths = SampleShape(3, (8, 8)), (16, 16, 16)
    types: list[torch.dtype] = []

    def networks(stages: int):
        config = R3GANConfig(widths=widths, bf16_stages=stages)
        return Generator(shape, 4, config, generator=seeded()), Discriminator(shape, 4, config, generator=seeded())

    z, label = torch.randn(2, 64, generator=seeded()), torch.arange(2)
    results = []
    for stages in (0, bf16_stages):
        generator, discriminator = networks(stages)
        for network in (generator, discriminator):
            for stage in network.stages:
                stage.register_forward_hook(lambda _, inputs, output: types.append(output.dtype))
        with torch.no_grad():
            x = generator(z, label)
        x.requires_grad_()
        logits = discriminator(x, label)
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        gradient.square().sum().backward()
        assert x.dtype == logits.dtype == gradient.dtype == torch.float32
        results.append((x.detach(), gradient.detach(), discriminator.from_pixels.weight.grad))
    high, low = [torch.bfloat16] * bf16_stages, [torch.float32] * (3 - bf16_stages)
    assert types == [torch.float32] * 6 + low + high + high + low
    for exact, rounded in zip(*results, strict=True):
        assert (exact - rounded).norm() / exact.norm() < 0.03


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ({"widths": ()}, "--model.widths"),
        ({"widths": (16, 0)}, "--model.widths"),
        ({"widths": (12,)}, "--model.group-channels"),
        ({"group_channels": -1}, "--model.group-channels"),
        ({"blocks_per_stage": 0}, "--model.blocks-per-stage"),
        ({"z_dim": 0}, "--model.z-dim"),
        ({"patch": 4, "patch_kernel": 7}, "--model.patch-kernel"),
        ({"patch": 4, "patch_kernel": 2}, "--model.patch-kernel"),
        ({"pixel_channels": -1}, "--model.pixel-channels"),
        ({"mapping_units": -1}, "--model.mapping-units"),
        ({"head_units": -1}, "--model.head-units"),
        ({"bf16_stages": -1}, "--model.bf16-stages"),
        ({"resample": "cubic"}, "--model.resample"),
    ],
)
def test_configs_that_contradict_themselves_are_refused_in_one_line(fields, flag):
    with pytest.raises(ValueError) as error:
        R3GANConfig(**fields)
    assert flag in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_shapes_that_do_not_divide_are_refused_in_one_line(network):
    with pytest.raises(ValueError, match=r"\(28, 28\) is not divisible by 8 .* --model.widths"):
        network(SampleShape(1, (28, 28)), 0, R3GANConfig(), generator=seeded())


def test_a_discriminator_of_single_frames_is_added():
    settings = {"widths": (8,), "blocks_per_stage": 1, "group_channels": 0, "expansion": 1, "patch": (2, 4, 4)}
    config = R3GANConfig(**settings, patch_kernel=(4, 6, 6), pixel_channels=3, judged_frames=2)
    clips = SampleShape(1, (8, 8, 8))
    both = Discriminator(clips, 3, config, generator=seeded())
    assert both.frames is not None
    assert isinstance(both.from_pixels, Conv)
    assert both.frames.shape == SampleShape(1, (8, 8))
    x, labels = torch.randn(4, 1, 8, 8, 8, generator=seeded(1)), torch.tensor([0, 1, 2, 1])
    frames = torch.stack([both.frames(x[:, :, at], labels) for at in (2, 6)])
    whole = Discriminator(clips, 3, replace(config, judged_frames=0, pixel_channels=0), generator=seeded())
    whole.load_state_dict({name: value for name, value in both.state_dict().items() if not name.startswith("frames.")})
    torch.testing.assert_close(both(x, labels), whole(x, labels) + frames.mean(0))
    weights = torch.nn.functional.one_hot(labels, 3).float()
    torch.testing.assert_close(both(x, weights), both(x, labels))
    (stage,) = both.stages_from_input()
    assert {id(both.from_pixels), id(both.frames.from_pixels)} <= {id(module) for module in stage}


def test_profiles_over_time_are_judged_as_pictures_of_their_own():
    settings = {"widths": (8, 8), "blocks_per_stage": 1, "group_channels": 0, "expansion": 1, "patch": (1, 2, 4)}
    config = R3GANConfig(**settings, pixel_channels=3, patch_kernel=(3, 4, 6), strides=("2x2x1",), judged_frames=1)
    clips = SampleShape(2, (4, 8, 12))
    both = Discriminator(clips, 3, replace(config, judged_profiles=True), generator=seeded())
    x, labels = torch.randn(5, 2, 4, 8, 12, generator=seeded(1)), torch.tensor([0, 1, 2, 1, 0])
    profiles = x.mean(3) * 8**0.5, x.mean(4) * 12**0.5
    centred = [each - each.mean((1, 2, 3), keepdim=True) for each in profiles]
    flat = {"widths": (8, 8), "blocks_per_stage": 1, "group_channels": 0, "expansion": 1, "pixel_channels": 3}
    of_columns = R3GANConfig(**flat, patch=(1, 4), patch_kernel=(3, 6), strides=("2x1",))
    of_rows = R3GANConfig(**flat, patch=(1, 2), patch_kernel=(3, 4), strides=("2x2",))
    expected = []
    for spatial, its, judge, profile in zip(
        [(4, 12), (4, 8)], [of_columns, of_rows], both.profiles, centred, strict=True
    ):
        alone = Discriminator(SampleShape(2, spatial), 3, its, generator=seeded())
        alone.load_state_dict(judge.state_dict())
        expected.append(alone(profile, labels))
    without = Discriminator(clips, 3, config, generator=seeded())
    kept = {name: value for name, value in both.state_dict().items() if not name.startswith("profiles.")}
    without.load_state_dict(kept)
    torch.testing.assert_close(both(x, labels), without(x, labels) + torch.stack(expected).mean(0))
    highest, _ = both.stages_from_input()
    assert {id(judge.from_pixels) for judge in both.profiles} <= {id(module) for module in highest}


@pytest.mark.parametrize(
    ("shape", "message"), [((8, 8), "is for videos"), ((1, 8, 8), "set --model.judged-frames to fewer")]
)
def test_frames_that_there_are_not_cannot_be_judged(shape, message):
    config = R3GANConfig(widths=(16,), judged_frames=2)
    with pytest.raises(ValueError, match=message):
        Discriminator(SampleShape(1, shape), 0, config, generator=seeded())


def test_a_discriminator_can_have_other_widths_and_fewer_blocks_than_its_generator():
    shape, config = SampleShape(1, (16, 16)), R3GANConfig(widths=(32, 16), discriminator_ratio=0.5, group_channels=0)
    config = replace(config, discriminator_blocks=1)
    alike = replace(config, widths=(16, 8), discriminator_ratio=1.0, blocks_per_stage=1)
    generator, discriminator = (network(shape, 3, config, generator=seeded()) for network in (Generator, Discriminator))
    assert generator.basis.shape[0] == 32
    assert [len(stage) for stage in generator.stages] == [2, 2]
    expected = Discriminator(shape, 3, alike, generator=seeded()).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in discriminator.state_dict().items())


@pytest.mark.parametrize("ratio", [0.0, -1.0, 0.01])
def test_each_stage_of_a_discriminator_has_channels(ratio):
    with pytest.raises(ValueError, match=r"discriminator_ratio .*--model\.discriminator-ratio"):
        R3GANConfig(widths=(32, 16), discriminator_ratio=ratio, group_channels=0)
