"""Large samples in tiles."""

import pytest
import torch

from imagegen_dist.models.res_vae import Decoder, Encoder, ResVAEConfig
from imagegen_dist.nn.tiles import Tiling, tiled, tilings
from imagegen_dist.shape import SampleShape

VOLUME = SampleShape(1, (8, 8, 8))
LOCAL = {"channels": 4, "multipliers": (1, 1), "blocks": 1, "latent_channels": 2, "attention": False}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(1), dtype=torch.float64)


def networks(**settings) -> tuple[Encoder, Decoder]:
    config = ResVAEConfig(**{**LOCAL, "norm_over": "positions", **settings})
    encoder = Encoder(VOLUME, 0, config, parameters=1, generator=seeded()).double()
    return encoder, Decoder(VOLUME, 0, config, outputs=1, generator=seeded()).double()


@pytest.mark.parametrize("settings", [{}, {"causal": True}, {"strides": ("1x2x2",), "convolutions": "factorised"}])
def test_the_reach_is_as_far_as_gradients_go(settings):
    encoder, decoder = networks(**settings)
    assert len(encoder.reach) == len(decoder.reach) == 3
    for network, decodes in ((encoder, False), (decoder, True)):
        for axis, (furthest, factor) in enumerate(zip(network.reach, network.factors, strict=True)):
            scale_in, scale_out = (1, factor) if decodes else (factor, 1)
            extent = [4] * 3
            extent[axis] = 4 * furthest + 4
            size = [e * (1 if decodes else f) for e, f in zip(extent, network.factors, strict=True)]
            x = noise(1, 2 if decodes else 1, *size).requires_grad_()
            out = network(x).movedim(axis + 2, 0)
            middle = len(out) // 2 // scale_out * scale_out
            found = 0
            for at in range(middle, middle + scale_out):
                (gradient,) = torch.autograd.grad(out[at].sum(), x, retain_graph=True)
                seen = gradient.movedim(axis + 2, 0).flatten(1).abs().sum(1).nonzero().flatten() // scale_in
                found = max(found, int((seen - at // scale_out).abs().max()))
            assert found == furthest, (network, axis)


def test_tiles_with_a_halo_of_the_reach_give_the_whole():
    config, flat = ResVAEConfig(**LOCAL, norm_over="positions"), SampleShape(1, (8, 8))
    encoder = Encoder(flat, 0, config, parameters=1, generator=seeded()).double()
    decoder = Decoder(flat, 0, config, outputs=1, generator=seeded()).double()
    both = ((encoder, noise(1, 1, 64, 56), (2, 2), (1, 1)), (decoder, noise(1, 2, 40, 33), (1, 1), (2, 2)))
    for network, given, *scales in both:
        furthest = max(network.reach)
        with torch.no_grad():
            whole = network(given)
            for less, is_whole in ((0, True), (2, False)):
                halo = furthest - less
                cut = Tiling(2 * halo + 3, halo, 0)
                found = tiled(network, given, [cut, cut], *scales)
                assert torch.allclose(found, whole, rtol=0, atol=1e-12) == is_whole
        assert tilings((4, 4), 2 * furthest + 3, furthest, network.reach) == [Tiling(2 * furthest + 3, furthest, 0)] * 2


def test_networks_that_see_a_whole_sample_are_blended_without_a_step():
    _, decoder = networks(norm_over="all")
    assert decoder.reach == ()
    z = noise(1, 2, 24, 4, 4)
    cuts = tilings((12, 4, 4), None, None, decoder.reach)
    assert cuts[0] == Tiling(12, 1, 3)
    with torch.no_grad():
        whole, found = decoder(z), tiled(decoder, z, cuts, (1,) * 3, (2,) * 3)
    assert (found - whole).abs().mean() < 0.2 * whole.std()

    # What a blend leaves of a seam is no larger than what is between any two neighbours.
    def steps(y):
        return y.diff(dim=2).abs().mean((0, 1, 3, 4))

    assert (steps(found) < 1.5 * steps(whole).max()).all()


def test_a_constant_stays_one_and_its_ends_are_covered():
    x = torch.ones(1, 1, 17, 5)
    for cut in (Tiling(7, 2, 0), Tiling(7, 1, 3), Tiling(7, 0, 0), Tiling(30, 1, 3)):
        torch.testing.assert_close(tiled(lambda part: 2 * part, x, [cut, cut], (1, 1), (1, 1)), 2 * x)


def test_tiles_of_which_nothing_is_left_are_refused():
    with pytest.raises(ValueError, match="take tiles of 10 or more"):
        Tiling(8, 3, 3)
