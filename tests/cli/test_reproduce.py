"""`imagegen reproduce`: every printed command parses, data are prepared as published, and a mistake gets one line."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from safetensors.torch import load_file

from imagegen_dist.cli.data import main as pack
from imagegen_dist.cli.published import INCEPTION, PUBLISHED, preset_named
from imagegen_dist.cli.reproduce import inception, main, parse, script, steps
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.errors import DONE, MISUSED
from imagegen_dist.prediction.counting import Kernel, StepCount
from imagegen_dist.prediction.gpus import GPU_TYPES
from imagegen_dist.prediction.predict import Forecast, Samples
from imagegen_dist.presets import PRESETS
from tests.pages import commands
from tests.test_docs import PARSERS


def printed(preset: str, *words: str) -> list[tuple[str, tuple[str, ...]]]:
    """(sub-command, arguments) of every command of this package in the script."""
    lines = "\n".join(steps(parse([preset, *words]))).replace("python -m imagegen_dist", "imagegen")
    text = lines.replace('"$(sha256sum inception.safetensors | cut -c-64)"', "0" * 64)
    return list(commands("\n".join(f"    {line}" for line in text.splitlines() if not line.startswith("#")) + "\n"))


@pytest.fixture(autouse=True)
def called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["imagegen"])


@pytest.mark.parametrize("words", [(), ("--storage", "s3://mine/here", "--workers", "4")], ids=["default", "placed"])
@pytest.mark.parametrize("preset", PUBLISHED)
def test_every_printed_command_is_understood(
    preset: str, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = printed(preset, *words)
    assert [name for name, _ in found] == ["data pack", "data check", "train", "evaluate"]
    for name, given in found:
        PARSERS[name](list(given))
    (_, packing), (_, checking), (_, training), (_, measuring) = found
    assert packing[1] == checking[0] == training[training.index("--data") + 1]
    settings = dict(zip(training[1::2], training[2::2], strict=True))
    assert measuring[0] == f"{settings['--storage']}/{settings['--run']}"
    PRESETS[preset].experiment.training.batching.check_workers(int(settings["--workers"]))


@pytest.mark.parametrize("preset", PUBLISHED)
def test_the_figure_is_that_of_the_preset_and_the_shards_have_its_shape(preset: str) -> None:
    value = re.search(r"\d\.\d\d", PUBLISHED[preset].figure)
    assert value is not None
    assert f"FID-50k {value[0]} on" in PRESETS[preset].source
    assert PUBLISHED[preset].paper in PRESETS[preset].source
    flags = PUBLISHED[preset].pack
    side = PRESETS[preset].shape.spatial[0]  # type: ignore[union-attr]
    assert ("--size" not in flags) or flags[flags.index("--size") + 1] == f"{side}x{side}"


def forecast(preset: str, peak: int = 20 << 30) -> Forecast:
    """Of a pass that is imagined."""
    kernels = Counter({Kernel(10**12, torch.bfloat16, 10**9): 100})
    count = StepCount(64, 2, kernels, 100, 0, 1 << 30, peak, (40, 40), {"generator": 400_000_000})
    found = PRESETS[preset]
    assert found.shape is not None
    samples = Samples.of_preset(found.shape, found.classes, "")
    return Forecast(found.experiment, samples, GPU_TYPES["h100"], count, 64)


@pytest.mark.parametrize("preset", PUBLISHED)
def test_the_script_is_shell_of_80_columns_and_states_machines_and_disk(preset: str, tmp_path: Path) -> None:
    text = script(parse([preset, "--workers", "8"]), forecast(preset, 60 << 30))
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"# 8 x h200 .* \$[\d,]+ +\$[\d,]+  1 x p5en.48xlarge\n", text)
    assert re.search(r"# 8 x l40s .* too little memory\n", text)
    assert "6.4 GB" in text  # four checkpoints of 16 bytes for each of 100 million weights


def picture(top: int, left: int, height: int, width: int) -> Image.Image:
    return Image.fromarray(skimage.data.astronaut()[top : top + height, left : left + width])


def prepared(preset: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """What the printed preparation makes in a folder that has the source."""
    monkeypatch.chdir(folder)
    [words] = [words for name, words in printed(preset, "--workers", "8") if name == "data pack"]
    assert pack([*words, "--workers", "0"]) == DONE
    return Dataset.open(words[1])


@pytest.mark.parametrize("preset", ["r3gan-ffhq64", "r3gan-ffhq256"])
def test_ffhq_is_resized_as_published(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "ffhq-dataset" / "images1024x1024"
    pictures = {f"{number:05}": picture(number, number, 500, 500) for number in (0, 1, 7)}
    for number, (name, each) in enumerate(pictures.items()):
        (source / f"{number * 1000:05}").mkdir(parents=True)
        each.save(source / f"{number * 1000:05}" / f"{name}.png")
    (source / "LICENSE.txt").write_text("Creative Commons")
    dataset = prepared(preset, tmp_path, monkeypatch)
    side = PRESETS[preset].shape.spatial[0]  # type: ignore[union-attr]
    expected = [np.asarray(each.resize((side, side), Image.Resampling.LANCZOS)) for each in pictures.values()]
    assert same(dataset, expected)
    assert dataset.index.classes is None


@pytest.mark.parametrize("preset", ["r3gan-imagenet32", "r3gan-imagenet64"])
def test_imagenet_is_cropped_and_resized_as_published(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures of any proportions, one grey and one that is a PNG by its bytes, below a folder for each class."""
    source = tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "train"
    for name in ("n01440764", "n01443537"):
        (source / name).mkdir(parents=True)
    picture(0, 0, 375, 500).save(source / "n01440764" / "n01440764_18.JPEG", quality=95)
    picture(0, 0, 501, 334).convert("L").save(source / "n01440764" / "n01440764_36.JPEG", quality=95)
    picture(9, 9, 300, 400).save(source / "n01443537" / "n01443537_2.JPEG", "PNG")
    side = PRESETS[preset].shape.spatial[0]  # type: ignore[union-attr]
    expected = []
    for file in sorted(source.rglob("*.JPEG")):
        pixels = np.asarray(Image.open(file).convert("RGB"))
        height, width = pixels.shape[:2]
        crop = min(height, width)
        middle = pixels[
            (height - crop) // 2 : (height + crop) // 2, (width - crop) // 2 : (width + crop) // 2
        ]  # in whole pixels, as dataset_tool.py of EDM does
        expected.append(np.asarray(Image.fromarray(middle).resize((side, side), Image.Resampling.LANCZOS)))
    dataset = prepared(preset, tmp_path, monkeypatch)
    assert same(dataset, expected)
    assert dataset.index.class_names == ("n01440764", "n01443537")


def same(dataset: Dataset, expected: list[np.ndarray]) -> bool:
    """True if the samples are these pictures [H, W, C], in any order."""
    samples, _ = dataset.read(range(dataset.index.samples))
    found = {np.moveaxis(each, 0, -1).tobytes() for each in samples.numpy()}
    return len(samples) == len(expected) and found == {each.tobytes() for each in expected}


def test_inceptions_weights_are_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a.weight": torch.arange(3.0), "a.num_batches_tracked": torch.tensor(1)}, tmp_path / INCEPTION)
    text = "\n".join(inception())
    code = re.findall(r"<<'END'\n(.*)\nEND", text, re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["-", INCEPTION])
    exec(code, {})
    found = load_file(tmp_path / "inception.safetensors")
    assert found.keys() == {"a.weight"}
    assert torch.equal(found["a.weight"], torch.arange(3.0))


def test_names_without_the_family_and_with_other_hyphens() -> None:
    assert preset_named("ffhq-64") == preset_named("FFHQ64") == preset_named("r3gan-ffhq-64") == "r3gan-ffhq64"
    assert preset_named("imagenet-32") == "r3gan-imagenet32"
    assert preset_named("cifar-10") == "r3gan-cifar10"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", "PRESET is needed: one of r3gan-cifar10"),
        ("ffhq-65", "there is no preset 'ffhq-65' with a published figure; did you mean r3gan-ffhq6"),
        ("nonsense", "there is no preset 'nonsense' with a published figure; there are r3gan-cifar10"),
        ("digits", "digits has no published figure"),
        ("r3gan-cifar10 --workers 0", "--workers 0: a number of GPUs from 1"),
        ("r3gan-cifar10 --workers 9", "9 workers"),
        ("r3gan-cifar10 --storage s3://key:secret@bucket", "password"),
    ],
)
def test_a_mistake_gets_one_line(words: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(words)) == MISUSED
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("imagegen reproduce: ")
    assert line in said.err
    assert said.err.count("\n") == 1
