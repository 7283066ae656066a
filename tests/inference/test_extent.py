"""Samples of another extent than those trained on."""

from pathlib import Path

import pytest
import torch

from imagegen_dist import load
from tests.checkpoints import FAMILIES, Family, write_checkpoint

_VOLUMES = {
    "model": {"kind": "resvae", "channels": 4, "multipliers": [1, 1], "blocks": 1, "latent_channels": 2},
    "model.attention": False,
    "objective.likelihood": "gaussian",
}
LOCAL = Family("digits-vae", {**_VOLUMES, "model.norm_over": "positions"}, dims=(1, 8, 8, 8), modality="voxels")


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def test_clips_longer_than_trained_are_encoded_and_decoded_in_pieces(tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, "video-vae"))
    assert model.shape.spatial == (4, 8, 8)
    clips = noise(2, 1, 14, 8, 8)
    lengths: list[int] = []
    model.networks["encoder"].register_forward_hook(lambda _, given, output: lengths.append(given[0].shape[2]))
    z = model.encode(clips)
    assert z.shape == (2, 3, 7, 2, 2)
    assert lengths == [4, 4, 4, 2]
    with torch.inference_mode():
        whole = model.autoencoder.infer(clips / 127.5 - 1).code()
        decoded = model.autoencoder.decode(z)
    torch.testing.assert_close(z, whole, rtol=0, atol=1e-5)
    assert ((model.decode(z) / 127.5 - 1) - decoded).abs().max() < 1 / 127.5
    assert model.reconstruct(clips).shape == clips.shape
    torch.testing.assert_close(torch.cat(list(model.stream_encode(clips.split(2, 2))), 2), z, rtol=0, atol=1e-5)
    streamed = torch.cat(list(model.stream_decode(z.split(3, 2))), 2)
    assert (streamed.int() - model.decode(z).int()).abs().max() <= 1


def test_volumes_larger_than_trained_are_encoded_and_decoded_in_tiles(tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, LOCAL))
    encoder, decoder = model.networks["encoder"], model.networks["decoder"]
    volume = noise(1, 1, 48, 4, 4)
    z = model.encode_tiled(volume, tile=(2 * encoder.reach[0] + 2, 2, 2), halo=(encoder.reach[0], 0, 0))
    with torch.inference_mode():
        torch.testing.assert_close(z, model.autoencoder.infer(volume / 127.5 - 1).code(), rtol=0, atol=1e-5)
        whole = ((model.autoencoder.decode(z) + 1) * 127.5).round()
    for given in ({"tile": (2 * decoder.reach[0] + 2, 2, 2), "halo": (decoder.reach[0], 0, 0)}, {}):
        found = model.decode_tiled(z, **given)
        assert found.shape == volume.shape
        assert found.dtype is torch.uint8
        # By default, tiles are those of training, too small for the reach, and blended.
        assert (found.float() - whole).abs().max() <= 1 or not given
        assert (found.float() - whole).abs().mean() < 0.7 * whole.std()


@pytest.mark.parametrize("family", ["res-vae", "conv-vae"])
def test_what_a_model_cannot_take_is_refused_in_one_line(family: str, tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, family))
    label = model.labels(1)
    with pytest.raises(ValueError, match=r"trained with --model\.causal true takes them in pieces"):
        model.stream_encode([], label)
    if family == "conv-vae":
        with pytest.raises(ValueError, match="only autoencoders of resvae take larger ones"):
            model.decode_tiled(torch.zeros(1, 4), label)
    else:
        with pytest.raises(ValueError, match=r"\[1, 3, 9, 8\]: \[B, 3, 8, 8\] is needed"):
            model.encode_tiled(noise(1, 3, 9, 8))
        with pytest.raises(ValueError, match="take tiles of 9 or more"):
            model.encode_tiled(noise(1, 3, 16, 8), halo=4)


def test_a_clip_of_half_a_latent_is_refused(tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, "video-vae"))
    assert FAMILIES["video-vae"].dims == (1, 4, 8, 8)
    with pytest.raises(ValueError, match=r"\[1, 1, 5, 8, 8\]: \[B, 1, 4, 8, 8\] is needed"):
        model.encode(noise(1, 1, 5, 8, 8))
