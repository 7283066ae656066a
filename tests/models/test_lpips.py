"""LPIPS from a file: the published shift and scale, and one line for a file that is not the one that was named."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from imagegen_dist.models.lpips import check_lpips, load_lpips
from imagegen_dist.models.vgg import VGG, VGGConfig
from imagegen_dist.shape import SampleShape

NARROW = VGGConfig(widths=(4, 6, 8, 8, 8))


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = dict(VGG(2, 3, NARROW, generator=generator).state_dict())
    return found | {
        f"channel_weights.{i}": torch.rand(width, generator=generator) for i, width in enumerate(NARROW.widths)
    }


def saved(path: Path, content: dict[str, Tensor]) -> tuple[str, str]:
    """(path, sha256) of a file with these tensors."""
    save_file(content, path)
    return str(path), hashlib.sha256(path.read_bytes()).hexdigest()


def test_features_and_channel_weights_are_those_of_the_file(tmp_path: Path) -> None:
    content = tensors()
    features, weights = load_lpips(*saved(tmp_path / "lpips.safetensors", content), NARROW)
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    shift, scale = (torch.tensor(values).reshape(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for ours, theirs in zip(features(x), features.vgg(((x + 1) / 2 - shift) / scale), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=5e-3, atol=5e-3)  # LPIPS rounds both to three digits
    assert all(torch.equal(found, content[f"channel_weights.{stage}"]) for stage, found in enumerate(weights))
    assert torch.equal(features.vgg.convolutions[12].bias, content["convolutions.12.bias"])


def test_grey_is_red_green_and_blue_alike(tmp_path: Path) -> None:
    features, _ = load_lpips(*saved(tmp_path / "lpips.safetensors", tensors()), NARROW)
    x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for grey, coloured in zip(features(x), features(x.expand(2, 3, 28, 28)), strict=True):
        assert torch.equal(grey, coloured)


def test_a_relative_path_and_a_url_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, sha256 = saved(tmp_path / "lpips.safetensors", tensors())
    monkeypatch.chdir(tmp_path)
    for url in ("lpips.safetensors", "./lpips.safetensors", f"file://{path}"):
        assert len(load_lpips(url, sha256.upper(), NARROW)[1]) == 5


def refusal(url: str, sha256: str) -> str:
    with pytest.raises(ValueError) as caught:
        load_lpips(url, sha256, NARROW)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_not_the_named_file_is_refused_in_one_line(tmp_path: Path) -> None:
    path, sha256 = saved(tmp_path / "lpips.safetensors", tensors())
    assert "set --objective.lpips-weights" in refusal("", "")
    assert "does not exist" in refusal(f"{tmp_path}/nowhere.safetensors", sha256)
    assert f"set --objective.lpips-sha256 (it has {sha256})" in refusal(path, "")
    assert f"has the SHA-256 {sha256}, not {'0' * 64}" in refusal(path, "0" * 64)


def test_a_hash_is_checked_before_the_file_is_understood(tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"\x80\x04no tensors")
    sha256 = hashlib.sha256(junk.read_bytes()).hexdigest()
    assert "has the SHA-256" in refusal(str(junk), "0" * 64)
    assert "is not a safetensors file" in refusal(str(junk), sha256)


@pytest.mark.parametrize("name", ["convolutions.12.bias", "channel_weights.4"])
def test_a_missing_tensor_and_one_of_another_size_are_named(name: str, tmp_path: Path) -> None:
    whole = tensors()
    without = {key: value for key, value in whole.items() if key != name}
    assert f"lacks the tensor {name} [8]" in refusal(*saved(tmp_path / "a.safetensors", without))
    longer = whole | {name: torch.zeros(9)}
    assert f"the tensor {name} is [9], not [8]" in refusal(*saved(tmp_path / "b.safetensors", longer))


@pytest.mark.parametrize(
    "shape",
    [SampleShape(3, (4, 16, 16)), SampleShape(1, (16, 16, 16)), SampleShape(2, (32, 32)), SampleShape(3, (8, 64))],
)
def test_samples_that_lpips_does_not_know_are_refused(shape: SampleShape) -> None:
    with pytest.raises(ValueError, match=f"not {shape}; set --objective.perceptual to random or none"):
        check_lpips(shape)


def test_images_that_it_knows_pass() -> None:
    check_lpips(SampleShape(3, (256, 256)))
    check_lpips(SampleShape(1, (28, 28)))
