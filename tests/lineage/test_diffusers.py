"""KL autoencoders of diffusers: names and shapes of their tensors, and with diffusers installed, their outputs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from imagegen_dist.cli.encode import main as encode
from imagegen_dist.cli.export import main as export
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.modality import to_float
from imagegen_dist.decoding.decoder import read_decoder
from imagegen_dist.errors import DONE, UsageError
from imagegen_dist.inference.latents import LatentStatistics
from imagegen_dist.inference.loading import build_model, read_trained
from imagegen_dist.lineage.diffusers import Layout, from_diffusers, read_folder, to_diffusers
from imagegen_dist.lineage.source import read_source
from imagegen_dist.models.res_vae import Decoder, Encoder, ResVAEConfig
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store
from imagegen_dist.training.state import below
from tests.checkpoints import Family, write_checkpoint
from tests.inference.test_latent_datasets import dataset

LISTING: dict[str, list[int]] = json.loads(Path(__file__).with_name("autoencoder_kl.json").read_text())
"""Tensors of diffusers 0.42.1's AutoencoderKL with widths 128 and 256, one block a stage and 4 latent channels."""

SETTINGS = {"_class_name": "AutoencoderKL", "block_out_channels": [128, 256], "in_channels": 3, "latent_channels": 4}
LAYOUT = Layout((128, 256), 1, 4, 3)
_RES = {"kind": "resvae", "channels": 128, "multipliers": [1, 2], "blocks": 1, "latent_channels": 4}
FAMILY = Family("digits-vae", {"model": _RES, "objective.likelihood": "gaussian"}, dims=(3, 16, 16))


def networks(latent_channels: int = 4) -> tuple[Encoder, Decoder]:
    settings, shape, random = ResVAEConfig(128, (1, 2), 1, latent_channels), SampleShape(3, (16, 16)), torch.Generator()
    encoder = Encoder(shape, 0, settings, parameters=2, generator=random)
    return encoder, Decoder(shape, 0, settings, outputs=1, generator=random)


def tensors_of(encoder: Encoder, decoder: Decoder) -> dict[str, Tensor]:
    both = {"encoder": encoder, "decoder": decoder}
    return {f"{name}/{key}": value for name, network in both.items() for key, value in network.state_dict().items()}


def test_names_and_shapes_are_those_of_diffusers_and_come_back() -> None:
    ours = tensors_of(*networks())
    theirs = to_diffusers(ours, LAYOUT)
    assert {name: list(tensor.shape) for name, tensor in theirs.items()} == LISTING
    back = from_diffusers(theirs, LAYOUT)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def write_folder(folder: Path, stored: dict[str, Tensor], **changes: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**SETTINGS, "layers_per_block": 1, **changes}))
    save_file(stored, folder / "diffusion_pytorch_model.safetensors")
    return folder


def test_files_of_earlier_versions_pipelines_and_models_without_quant_convolutions_are_read(tmp_path: Path) -> None:
    ours = tensors_of(*networks())
    stored = to_diffusers(ours, LAYOUT)
    for earlier, now in {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}.items():
        for name in [name for name in stored if f".{now}." in name]:
            stored[name.replace(now, earlier)] = stored.pop(name)
    write_folder(tmp_path / "pipeline" / "vae", stored, scaling_factor=0.5)
    source = read_source(str(tmp_path / "pipeline"))
    assert (source.model, source.scaling_factor) == ("resvae", 0.5)
    assert all(torch.equal(source.tensors[name], ours[name]) for name in ours)

    stored = {name: tensor for name, tensor in stored.items() if "quant" not in name}
    folder = write_folder(tmp_path / "without", stored, use_quant_conv=False, use_post_quant_conv=False)
    found = read_source(str(folder))
    x = torch.randn(2, 8, 3, 3)
    convolved = torch.conv2d(x, found.tensors["encoder/quant.weight"], found.tensors["encoder/quant.bias"])
    assert torch.equal(convolved, x)
    assert found.scaling_factor == 0.18215
    assert found.tensors.keys() == ours.keys()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"act_fn": "relu"}, "act_fn is relu; the networks of this package have silu"),
        ({"norm_num_groups": 16}, "norm_num_groups is 16; networks of these widths have 32 here"),
        ({"layers_per_block": 2}, "has no tensor encoder.down_blocks.0.resnets.1.norm1.weight"),
        ({"latent_channels": None}, "does not give the sizes of an autoencoder"),
    ],
)
def test_an_autoencoder_with_other_layers_is_refused(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    folder = write_folder(tmp_path / "other", to_diffusers(tensors_of(*networks()), LAYOUT), **changes)
    with pytest.raises(UsageError) as refused:
        read_folder(Store(folder))
    assert line in str(refused.value)


def test_a_folder_without_safetensors_is_refused_and_nothing_is_unpickled(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pickled", {"x": torch.zeros(1)})
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.bin")
    with pytest.raises(UsageError, match="nothing is unpickled"):
        read_source(str(folder))


@pytest.mark.parametrize(
    ("family", "words", "line"),
    [
        ("r3gan", "", "diffusers has no r3gan"),
        ("conv-vae", "", "diffusers has no convvae"),
        ("fsq", "", "cannot have latents that are no Gaussian"),
        (FAMILY, "", "this model does not say where its training data are: give --scaling-factor"),
        (Family("digits-vae", {"model": _RES}, dims=(3, 16, 16)), "", "outputs are not the sample's values"),
        (FAMILY, "--scaling-factor 0", "--scaling-factor 0: a positive number, with --to diffusers"),
    ],
)
def test_what_diffusers_does_not_have_is_not_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], family: str | Family, words: str, line: str
) -> None:
    place = write_checkpoint(tmp_path / "run", family)
    assert export([place, str(tmp_path / "out"), "--to", "diffusers", *words.split()]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert line in said
    assert not (tmp_path / "out").exists()


def test_an_exported_autoencoder_is_read_as_the_same_one(tmp_path: Path) -> None:
    place = write_checkpoint(tmp_path / "run", FAMILY)
    assert export([place, str(tmp_path / "out"), "--to", "diffusers", "--scaling-factor", "0.7"]) == 0
    found = read_source(str(tmp_path / "out"))
    assert found.scaling_factor == 0.7
    trained = read_trained(place).tensors
    assert all(torch.equal(found.tensors[name], trained[name]) for name in found.tensors)


VERSION = "0.42.1"

MAKES = """
import json, sys, torch
from pathlib import Path
from diffusers import AutoencoderKL
from safetensors.torch import save_file
torch.manual_seed(0)
for name, (z, quant) in json.loads(sys.argv[2]).items():
    folder = Path(sys.argv[1]) / name
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1,
        block_out_channels=(128, 256), latent_channels=z, use_quant_conv=quant, use_post_quant_conv=quant,
        scaling_factor=0.3 + z,
    ).double()
    for weight in model.parameters():
        weight.data += 0.02 * torch.randn_like(weight)
    x, latents = torch.randn(2, 3, 16, 16).double(), torch.randn(2, z, 8, 8).double()
    with torch.no_grad():
        moments, decoded = model.encode(x).latent_dist.parameters, model.decode(latents).sample
    found = {"x": x, "z": latents, "moments": moments.contiguous(), "decoded": decoded.contiguous()}
    model.save_pretrained(folder, safe_serialization=True)
    save_file(found, folder / "outputs")
"""

OPENS = """
import sys, torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
model = AutoencoderKL.from_pretrained(sys.argv[1])
given = load_file(sys.argv[2])
with torch.no_grad():
    mean = model.encode(given["x"]).latent_dist.mean
    save_file({"z": mean.contiguous(), "decoded": model.decode(given["z"]).sample.contiguous()}, sys.argv[3])
print(model.config.scaling_factor)
"""


@pytest.fixture(scope="session")
def with_diffusers() -> Path:
    """The interpreter of an environment with diffusers, which has this one's torch; made on a machine's first use."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imagegen_dist" / "diffusers"
    here = sysconfig.get_path("purelib")
    folder = cache / hashlib.sha256(f"{sys.version} {VERSION} {here}".encode()).hexdigest()[:12]
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        [packages] = folder.glob("lib/python*/site-packages")
        (packages / "parent.pth").write_text(here)
        command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", f"diffusers=={VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
        if done.returncode:
            pytest.skip(f"diffusers cannot be installed: {done.stderr.strip()[-300:]}")
        (folder / "complete").touch()
    return folder / "bin" / "python"


def run(python: Path, program: str, *words: object) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [str(python), "-c", program, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.cluster
@pytest.mark.full
@pytest.mark.timeout(2400)
def test_outputs_equal_those_of_diffusers(with_diffusers: Path, tmp_path: Path) -> None:
    kinds = {"4": (4, True), "8": (8, True), "16": (16, False)}
    run(with_diffusers, MAKES, tmp_path, json.dumps(kinds))
    for name, (z, _) in kinds.items():
        source, expected = read_source(str(tmp_path / name)), load_file(tmp_path / name / "outputs")
        encoder, decoder = (network.double() for network in networks(z))
        encoder.load_state_dict(below(source.tensors, "encoder"))
        decoder.load_state_dict(below(source.tensors, "decoder"))
        assert source.scaling_factor == pytest.approx(0.3 + z)
        torch.testing.assert_close(encoder(expected["x"]), expected["moments"], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(decoder(expected["z"]), expected["decoded"], rtol=1e-12, atol=1e-12)


@pytest.mark.cluster
@pytest.mark.full
@pytest.mark.timeout(2400)
def test_diffusers_opens_what_is_exported(with_diffusers: Path, tmp_path: Path) -> None:
    place = write_checkpoint(tmp_path / "run", FAMILY)
    assert export([place, str(tmp_path / "out"), "--to", "diffusers", "--scaling-factor", "0.7"]) == 0
    given = {"x": torch.rand(3, 3, 16, 16) * 2 - 1, "z": torch.randn(3, 4, 8, 8)}
    save_file(given, tmp_path / "given")
    said = run(with_diffusers, OPENS, tmp_path / "out", tmp_path / "given", tmp_path / "found")
    assert float(said) == 0.7
    model, found = build_model(read_trained(place)), load_file(tmp_path / "found")
    with torch.no_grad():
        z = model.sampler.infer(given["x"]).code()  # type: ignore[attr-defined]
        decoded = model.networks["decoder"](given["z"])
    torch.testing.assert_close(found["z"], z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["decoded"], decoded, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_its_latents_are_those_of_diffusers_weights_and_carry_its_decoder(tmp_path: Path) -> None:
    encoder, decoder = networks()
    folder = write_folder(tmp_path / "vae", to_diffusers(tensors_of(encoder, decoder), LAYOUT))
    data, out = dataset(tmp_path / "data", (3, 16, 16)), Store(tmp_path / "latents")
    assert encode([str(folder), out.url, "--data", data, "--workers", "0"]) == DONE
    stored, _ = Dataset.open(out.url).read(range(4))
    samples, _ = Dataset.open(data).read(range(4))
    x = to_float(samples)
    statistics = LatentStatistics.load(out)
    half_a_step = statistics.span * torch.tensor(statistics.std)[:, None, None] / 255 * 1.01
    z = encoder(x).chunk(2, 1)[0]
    assert ((statistics.restore(stored) - z).abs() <= half_a_step).all()
    found = read_decoder(out)
    assert found is not None
    assert found.shape.dims == (3, 16, 16)
    torch.testing.assert_close(
        found(to_float(stored)), decoder(statistics.restore(stored)).clamp(-1, 1), rtol=0, atol=1e-5
    )
