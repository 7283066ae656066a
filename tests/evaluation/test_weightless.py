"""Distances of videos and volumes that need neither weights nor labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from imagegen_dist.cli.evaluate.command import main
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.pack import pack
from imagegen_dist.data.stream import StreamConfig
from imagegen_dist.distributed import World
from imagegen_dist.errors import DONE, MISUSED
from imagegen_dist.evaluation.evaluator import Evaluator
from imagegen_dist.evaluation.figures import Comparison, check_training_metrics, compare
from imagegen_dist.evaluation.weightless import WEIGHTLESS, weightless_kinds, weightless_network
from imagegen_dist.experiment import build_networks
from imagegen_dist.metrics.features import FeatureNetwork, FeatureSums
from imagegen_dist.records import RunSettings
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store
from tests.runs import Listener, tiny, train_here
from tests.test_vae_runs import tiny as tiny_vae

CPU = torch.device("cpu")
CLIPS = SampleShape(1, (6, 16, 16))
OF_VIDEO = {
    f"{distance}_{kind}{end}"
    for distance in ("frechet", "kernel")
    for kind in ("content", "space_time", "motion")
    for end in ("", "_real")
}


def clips(count: int, seed: int) -> Tensor:
    """A square of 5 × 5 pixels that moves at a speed of its own, float [N, 1, 6, 16, 16]."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.full((count, *CLIPS.dims), -1.0)
    for sample, brightness in zip(x, torch.rand(count, generator=generator).tolist(), strict=True):
        at, speed = torch.randint(3, 9, (2,), generator=generator), torch.randint(-1, 2, (2,), generator=generator)
        for frame in range(6):
            row, column = (at + speed * frame).clamp(0, 11).tolist()
            sample[0, frame, row : row + 5, column : column + 5] = brightness
    return x


def sums(network: FeatureNetwork, x: Tensor) -> FeatureSums:
    found = FeatureSums.empty(network, CPU)
    found.add(network, x, 0)
    return found


def test_content_is_blind_to_time_and_the_others_are_not() -> None:
    real, held_out = clips(150, 1), clips(150, 2)
    generator = torch.Generator().manual_seed(0)
    shuffled = torch.stack([clip[:, torch.randperm(6, generator=generator)] for clip in held_out])
    found = {}
    for kind in weightless_kinds("video", CLIPS):
        network = weightless_network(kind, CLIPS, CPU)
        of = Comparison(sums(network, shuffled), sums(network, real), kind, held_out=sums(network, held_out))
        found |= {figure.name: figure.value for figure in compare([kind], of)}
    assert set(found) == OF_VIDEO
    assert found["frechet_content"] == pytest.approx(found["frechet_content_real"], rel=1e-3)
    assert found["frechet_space_time"] > 2 * found["frechet_space_time_real"]
    assert found["frechet_motion"] > 10 * found["frechet_motion_real"]
    assert found["kernel_motion"] > 10 * found["kernel_motion_real"]


@pytest.mark.parametrize("kind", WEIGHTLESS)
def test_features_do_not_depend_on_the_samples_beside_and_have_one_hash(kind: str) -> None:
    network, again = (weightless_network(kind, CLIPS, CPU) for _ in range(2))
    x = clips(3, 1)
    assert (network.dim, network.sha256) == (again.dim, again.sha256)
    assert network.features(x).shape == (3, network.dim)
    torch.testing.assert_close(network.features(x)[1:2], network.features(x[1:2]), atol=1e-5, rtol=1e-5)


def shards(folder: Path, x: Tensor, modality: str) -> str:
    stored = ((x + 1) * 127.5).round().to(torch.uint8).numpy()
    pack(((sample, {}) for sample in stored), Store(folder), modality, "npy")
    return Store(folder).url


def test_a_run_and_an_evaluation_of_unlabelled_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    urls = [shards(tmp_path / split, clips(60, seed), "video") for seed, split in enumerate(("train", "val"))]
    network = {"kind": "mlp", "hidden": [16], "z_dim": 8}
    experiment = tiny(model=network, training__total_images=48, evaluation__samples=50, evaluation__searched=0)
    where = RunSettings("run", str(tmp_path), "digits", "train_gan", *urls, wandb_mode="disabled")
    where.folder.write(
        "config.json", json.dumps({"data": dict(zip(("url", "validation"), urls, strict=True))}).encode()
    )
    listener = Listener()
    assert train_here(experiment, where, listener).complete
    [row] = [row for row in listener.rows if "eval/frechet_motion" in row]
    assert {f"eval/{name}" for name in OF_VIDEO} <= set(row)
    assert len(listener.messages) == len(set(listener.messages))  # once, not for every distance
    result = json.loads(where.folder.read("result.json"))
    assert result["frechet_motion_real"] == pytest.approx(row["eval/frechet_motion_real"])
    out = tmp_path / "figures.json"
    words = [where.folder.url, "--samples", "50", "--references", "50", "--out", str(out), "--workers", "0"]
    assert main(words) == DONE
    found = json.loads(out.read_text())
    assert found["figures"]["frechet_motion"] == pytest.approx(row["eval/frechet_motion"], rel=1e-4)
    assert found["figures"]["frechet_motion_real"] == pytest.approx(row["eval/frechet_motion_real"], rel=1e-4)
    assert found["figures_of"]["coverage"]["features"] == "space-time"
    capsys.readouterr()
    assert main([*words, "--metrics", "volume"]) == MISUSED
    assert "--metrics volume is of voxels, and the samples are video" in capsys.readouterr().err
    assert main([*words, "--metrics", "fvd"]) == MISUSED
    assert "--features module:PACKAGE.MODULE:FUNCTION" in capsys.readouterr().err


def test_reconstructions_of_volumes_have_distances_and_images_have_none_of_them(tmp_path: Path) -> None:
    of_reconstructions = {"video": {"motion_error", "ssim"}, "voxels": {"dice"}, "image": {"ssim"}}
    for modality, x in (("voxels", clips(40, 1).sign()), ("image", clips(40, 1)[:, :, 0]), ("video", clips(40, 1))):
        dataset = Dataset.open(shards(tmp_path / modality, x, modality), StreamConfig())
        experiment = tiny_vae("vae", evaluation__samples=30)
        networks = build_networks(experiment, dataset.index.shape, None)
        of = dataset, None, Store("memory://weightless"), World(), CPU
        found = Evaluator(networks, experiment, *of, print).figures()
        assert {name for name in found if name in ("dice", "motion_error", "ssim")} == of_reconstructions[modality]
        if modality == "video":
            continue
        kinds = {name for name in found if name.startswith(("frechet", "kernel"))}
        expected = {f"frechet_{kind}_reconstruction" for kind in ("volume", "planes")}
        expected |= {f"{distance}_{kind}" for distance in ("frechet", "kernel") for kind in ("volume", "planes")}
        assert kinds == (expected if modality == "voxels" else set())


def test_what_is_not_measured_of_short_clips_is_refused_in_one_line(tmp_path: Path) -> None:
    index = Dataset.open(shards(tmp_path, clips(2, 1), "video"), StreamConfig()).index
    evaluation = replace(tiny().evaluation, metrics=("fvd",), features="module:mine:network")
    with pytest.raises(ValueError, match="published for clips of 16 frames or more, and these have 6"):
        check_training_metrics(evaluation, index)
    check_training_metrics(replace(evaluation, metrics=("jedi",)), index)
    with pytest.raises(ValueError, match=r"--evaluation.metrics jedi .* --evaluation.features module:"):
        check_training_metrics(replace(evaluation, metrics=("jedi",), features=""), index)
    with pytest.raises(ValueError, match="2 frames or more, not 1"):
        weightless_network("motion", SampleShape(1, (1, 8, 8)), CPU)
