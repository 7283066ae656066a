"""Layers that do not look ahead, and sequences in pieces."""

import pytest
import torch
from torch.autograd import gradcheck

from imagegen_dist.models.res_vae import Decoder, Encoder, ResVAEConfig
from imagegen_dist.nn.attention import SelfAttention
from imagegen_dist.nn.causal import SidedConv, stream
from imagegen_dist.nn.norm import FrameNorm, PositionNorm, group_norm
from imagegen_dist.shape import SampleShape

CLIP = SampleShape(2, (8, 16, 16))
FRAMES = {"attention_over": "frames", "norm_over": "frames"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(1), dtype=torch.float64)


def networks(**settings) -> tuple[Encoder, Decoder]:
    small = {"channels": 8, "multipliers": (1, 2, 2), "blocks": 1, "latent_channels": 3, "strides": ("1x2x2", "2")}
    config = ResVAEConfig(**small, **settings)
    encoder = Encoder(CLIP, 2, config, parameters=2, generator=seeded()).double()
    return encoder, Decoder(CLIP, 2, config, outputs=1, generator=seeded()).double()


@pytest.mark.parametrize("stride", [1, 2])
def test_a_causal_convolution_reads_no_later_position(stride):
    conv = SidedConv(3, 1, 1, 3, stride, causal=True, generator=seeded()).double()
    x = noise(1, 1, 6, 4, 4).requires_grad_()
    for out, frame in enumerate(conv(x)[0, 0]):
        (gradient,) = torch.autograd.grad(frame.sum(), x, retain_graph=True)
        seen = gradient.abs().sum((0, 1, 3, 4)).nonzero().flatten().tolist()
        last = (out + 1) * stride - 1
        assert seen == [frame for frame in range(last - 2, last + 1) if frame >= 0]


@pytest.mark.parametrize("convolutions", ["full", "factorised"])
@pytest.mark.parametrize("norm", ["frames", "positions"])
def test_a_long_clip_in_pieces_is_the_whole(norm, convolutions):
    encoder, decoder = networks(causal=True, attention_over="frames", norm_over=norm, convolutions=convolutions)
    x, label = noise(2, 2, 20, 16, 16), torch.tensor([0, 1])
    with torch.no_grad():
        whole = encoder(x, label)
        assert whole.shape == (2, 6, 10, 4, 4)
        for cuts in ([4] * 5, [8, 2, 10]):
            pieces = torch.cat(list(stream(encoder, x.split(cuts, 2), label)), 2)
            torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-12)
        z = whole[:, :3]
        decoded = decoder(z, label)
        assert decoded.shape == x.shape
        torch.testing.assert_close(torch.cat(list(stream(decoder, z.split(1, 2), label)), 2), decoded)
        other = x.clone()
        other[:, :, 12:] += 1  # later frames change nothing
        torch.testing.assert_close(encoder(other, label)[:, :, :6], whole[:, :, :6])


def test_two_sequences_in_turn_do_not_mix():
    conv = SidedConv(3, 1, 1, 3, causal=True, generator=seeded()).double()
    a, b = noise(1, 1, 4, 2, 2), 2 + noise(1, 1, 4, 2, 2)
    found = zip(stream(conv, a.split(2, 2)), stream(conv, b.split(2, 2)), strict=True)
    first, second = (torch.cat(pieces, 2) for pieces in zip(*found, strict=True))
    torch.testing.assert_close(first, conv(a))
    torch.testing.assert_close(second, conv(b))


def test_a_compiled_network_takes_pieces_as_well():
    conv = SidedConv(3, 1, 1, 3, causal=True, generator=seeded())
    conv.compile(backend="aot_eager")
    x = noise(1, 1, 4, 2, 2).float()
    with torch.no_grad():
        conv(x[:, :, :2])  # compiled for the extent of a piece, with nothing before it
        whole = conv(x)
        torch.testing.assert_close(torch.cat(list(stream(conv, x.split(2, 2))), 2), whole)


def test_normalisation_of_frames_and_of_positions_look_at_these_alone():
    x = noise(2, 8, 3, 4, 4)
    frames = torch.stack([group_norm(8).double()(frame) for frame in x.unbind(2)], 2)
    torch.testing.assert_close(FrameNorm(8).double()(x), frames)
    positions = PositionNorm(8).double()(x)
    torch.testing.assert_close(positions, (x - x.mean(1, True)) / (x.var(1, correction=0, keepdim=True) + 1e-6).sqrt())


def test_attention_per_frame_is_attention_of_each_frame():
    whole, each = (SelfAttention(ndim, 8, ndim == 3, generator=seeded()).double() for ndim in (3, 2))
    with torch.no_grad():
        for name in ("queries_keys_values", "project"):
            getattr(each, name).weight.copy_(getattr(whole, name).weight.squeeze(-1))
    whole.norm = FrameNorm(8).double()
    x = noise(2, 8, 3, 4, 4)
    torch.testing.assert_close(whole(x), torch.stack([each(frame) for frame in x.unbind(2)], 2))
    assert gradcheck(whole, (noise(1, 8, 2, 2, 2).requires_grad_(),), fast_mode=True)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"causal": True}, "norm-over and --model.attention-over to frames"),
        ({"causal": True, "norm_over": "frames"}, "attention-over to frames"),
        ({"norm_over": "positions", "channels": 2}, "--model.channels to 4"),
    ],
)
def test_settings_that_would_look_ahead_are_refused(settings, named):
    with pytest.raises(ValueError, match=named):
        ResVAEConfig(**settings)


@pytest.mark.parametrize(
    "settings", [FRAMES, FRAMES | {"causal": True}, {"convolutions": "factorised"}, {"attention_over": "frames"}]
)
def test_pictures_have_no_frames(settings):
    with pytest.raises(ValueError, match="is for videos and volumes, and the samples have 2 spatial axes"):
        Encoder(SampleShape(1, (8, 8)), 0, ResVAEConfig(**settings), parameters=1, generator=seeded())
