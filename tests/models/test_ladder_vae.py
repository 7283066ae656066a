"""The ladder's encoder and decoder, with levels of maps and of vectors in every number of spatial dimensions."""

import pytest
import torch
from torch import Tensor

from imagegen_dist.models.ladder_vae import Decoder, Encoder, LadderVAEConfig
from imagegen_dist.shape import SampleShape

SHAPES = {
    "sequence": SampleShape(2, (16,)),
    "digit": SampleShape(1, (28, 28)),
    "video": SampleShape(3, (4, 8, 12)),
    "voxels": SampleShape(1, (8, 8, 8)),
}
SMALL = SampleShape(1, (8, 8))
CONFIGS = {
    "map-on-top": LadderVAEConfig((8, 8), (2, 3), units=(), vectors=()),
    "vector-on-top": LadderVAEConfig((8, 8), (0, 3), units=(12, 6), vectors=(0, 4)),
    "vectors-alone": LadderVAEConfig((), (), units=(16, 12, 8), vectors=(5, 4, 3), blocks=2),
}
every_config = pytest.mark.parametrize("name", CONFIGS)
ZEROS = {"project", "prior"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*size: int) -> Tensor:
    return torch.randn(size, generator=seeded(1))


def build(name: str, shape: SampleShape = SMALL, classes: int = 3, seed: int = 0) -> tuple[Encoder, Decoder]:
    config, generator = CONFIGS[name], seeded(seed)
    encoder = Encoder(shape, classes, config, parameters=2, generator=generator)
    return encoder, Decoder(shape, classes, config, outputs=2, generator=generator)


def moved(network: torch.nn.Module) -> torch.nn.Module:
    """The network with weights where it starts with zeros, so that every part has a say."""
    for path, parameter in network.named_parameters():
        if ZEROS & set(path.split(".")):
            parameter.data = torch.randn(parameter.shape, generator=seeded(2)) / 4
    return network


class Given:
    """Latents that are known, level by level; keeps what the decoder says of their priors."""

    def __init__(self, levels: list[Tensor]) -> None:
        self.levels, self.priors = levels, []

    def __call__(self, level: int, prior: Tensor | None) -> Tensor:
        assert level == len(self.priors)
        self.priors.append(prior)
        return self.levels[level]


def latents(network: Encoder | Decoder, count: int) -> list[Tensor]:
    return [noise(count, *dims) for dims in network.group_dims]


@every_config
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("classes", [0, 5])
def test_shapes_of_every_level_and_of_the_sample(name, shape, classes):
    shape = SHAPES[shape]
    encoder, decoder = build(name, shape, classes)
    label = torch.tensor([0, 4, 2]) if classes else None
    raw, given = encoder(noise(3, *shape.dims), label), Given(latents(decoder, 3))
    x = decoder(given, label)
    assert [tuple(level.shape[1:]) for level in raw] == [(2 * z, *size) for z, *size in encoder.group_dims]
    assert given.priors[0] is None
    assert [tuple(p.shape[1:]) for p in given.priors[1:]] == [(2 * z, *size) for z, *size in decoder.group_dims[1:]]
    assert x.shape == (3, 2 * shape.channels, *shape.spatial)
    assert x.isfinite().all()
    assert 0.1 < x.std() < 3


def test_levels_are_those_of_the_config_from_the_highest_down():
    assert LadderVAEConfig((8, 8, 8), (2, 0, 3), (4,), (5,)).group_dims(SampleShape(1, (16, 8))) == (
        (5,),
        (3, 2, 1),
        (2, 8, 4),
    )


@every_config
def test_priors_start_standard_and_depend_on_every_level_above(name):
    decoder = build(name, classes=0)[1]
    given = Given(latents(decoder, 2))
    decoder(given)
    assert not any(prior.any() for prior in given.priors[1:])
    moved(decoder)
    for changed in range(len(decoder.group_dims)):
        before, after = Given(latents(decoder, 2)), Given(latents(decoder, 2))
        after.levels[changed] = after.levels[changed] + 1
        x, y = decoder(before), decoder(after)
        differ = [not torch.equal(p, q) for p, q in zip(before.priors[1:], after.priors[1:], strict=True)]
        assert differ == [level > changed for level in range(1, len(decoder.group_dims))]
        assert not torch.equal(x, y)


@every_config
def test_outputs_do_not_depend_on_the_rest_of_the_batch(name):
    encoder, decoder = (moved(network).double() for network in build(name))
    label, x = torch.tensor([0, 1, 2, 0]), noise(4, 1, 8, 8).double()
    for whole, alone in zip(encoder(x, label), encoder(x[1:2], label[1:2]), strict=True):
        torch.testing.assert_close(alone, whole[1:2])
    z = [level.double() for level in latents(decoder, 4)]
    alone = decoder(Given([level[1:2] for level in z]), label[1:2])
    torch.testing.assert_close(alone, decoder(Given(z), label)[1:2])
    assert not list(encoder.buffers()) + list(decoder.buffers())


@every_config
def test_the_class_reaches_every_level(name):
    encoder, decoder = (moved(network) for network in build(name))
    label = torch.tensor([0, 1])
    for level in encoder(noise(1, 1, 8, 8).expand(2, 1, 8, 8), label):
        assert not torch.equal(level[0], level[1])
    given = Given([level[:1].expand_as(level) for level in latents(decoder, 2)])
    a, b = decoder(given, label)
    assert not torch.equal(a, b)
    assert all(not torch.equal(prior[0], prior[1]) for prior in given.priors[1:])
    with pytest.raises(ValueError, match="needs a label"):
        encoder(noise(2, 1, 8, 8))


@every_config
def test_every_parameter_gets_a_gradient(name):
    encoder, decoder = (moved(network) for network in build(name))
    label, given = torch.tensor([0, 1, 2]), Given(latents(decoder, 3))
    sum(level.pow(3).sum() for level in encoder(noise(3, 1, 8, 8), label)).backward()
    x = decoder(given, label)
    (x.pow(3).sum() + sum(prior.pow(3).sum() for prior in given.priors[1:])).backward()
    for network in (encoder, decoder):
        for path, parameter in network.named_parameters():
            assert parameter.grad is not None, path
            assert parameter.grad.abs().sum() > 0, path


@every_config
def test_one_generator_state_gives_one_network_and_none_draws_from_the_global_one(name):
    before = torch.get_rng_state()
    for first, again in zip(build(name, seed=5), build(name, seed=5), strict=True):
        assert all(torch.equal(p, q) for p, q in zip(first.parameters(), again.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"channels": (8,)}, r"channels \(8,\) and latents \(0, 4\): .* --model.channels and --model.latents"),
        ({"vectors": (-1,)}, "--model.units and --model.vectors"),
        ({"vectors": (0,)}, r"vectors \(0,\): the highest stage needs latents, by --model.vectors"),
        ({"units": (), "vectors": (), "latents": (4, 0)}, "highest stage needs latents, by --model.latents"),
        ({"channels": (), "latents": (), "units": (), "vectors": ()}, "highest stage needs latents"),
        ({"blocks": 0}, "blocks 0 is below 1; set --model.blocks to 1 or more"),
    ],
)
def test_settings_that_make_no_network_are_refused_with_the_flag(fields, words):
    with pytest.raises(ValueError, match=words):
        LadderVAEConfig(**fields)


def test_a_shape_that_cannot_be_halved_so_often_is_refused():
    with pytest.raises(
        ValueError, match=r"\(28, 28\) is not divisible by 8 = the strides of the stages: give fewer than 3"
    ):
        LadderVAEConfig((8, 8, 8), (0, 0, 2), (), ()).group_dims(SampleShape(1, (28, 28)))
