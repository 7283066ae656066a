"""Exported models: the same samples bit for bit after a round trip, and nothing but safetensors and JSON to read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from imagegen_dist import load
from imagegen_dist.cli.export import main
from imagegen_dist.errors import DONE
from imagegen_dist.inference.folder import card_of, write_folder
from imagegen_dist.inference.hub import HubModel, for_hub
from imagegen_dist.run_folder import CheckpointError
from imagegen_dist.storage import Store
from tests.checkpoints import FAMILIES, write_checkpoint
from tests.runs import settings, tiny, train_on


def export(url: str, dest: Path, *more: str) -> str:
    assert main([url, str(dest), *more]) == DONE
    return str(dest)


@pytest.mark.parametrize("family", FAMILIES)
def test_exported_and_loaded_gives_the_same_bits(family: str, tmp_path: Path) -> None:
    url = write_checkpoint(tmp_path / "run", family)
    before, after = load(url), load(export(url, tmp_path / "hf"))
    assert torch.equal(after.sample(9, seed=2), before.sample(9, seed=2))
    assert after.images == before.images == 480
    assert after.modality == FAMILIES[family].modality
    if not hasattr(before, "generator"):
        samples, label = before.sample(3), before.labels(3)
        assert torch.equal(after.encode(samples, label), before.encode(samples, label))
        assert torch.equal(after.reconstruct(samples, label), before.reconstruct(samples, label))


def test_a_checkpoint_of_two_workers_loads_and_is_exported(tmp_path: Path) -> None:
    where = settings(tmp_path, "run", tmp_path / "data")
    train_on(2, tiny(training__total_images=48), where, tmp_path / "meeting")
    again = load(export(where.folder.url, tmp_path / "hf"))
    assert torch.equal(again.sample(5), load(where.folder.url).sample(5))
    assert again.facts["world_size"] == 2


def test_a_card_has_the_figures_of_its_checkpoint_and_no_place_of_its_user(tmp_path: Path) -> None:
    places = {"data.url": "/home/me/secret/faces", "data.cache.directory": "/home/me/cache"}
    family = replace(FAMILIES["r3gan"], changes=FAMILIES["r3gan"].changes | places)
    url = write_checkpoint(tmp_path / "run", family)
    rows = [
        {"images": 240, "eval/frechet": 30.0, "eval/label_agreement": 0.5},
        {"images": 480, "eval/frechet": 12.5},
        {"images": 960, "eval/frechet": 3.0},  # of a later checkpoint
    ]
    Store(url).write("metrics.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    export(url, tmp_path / "hf", "--license", "cc-by-4.0")
    card = (tmp_path / "hf" / "README.md").read_text()
    for said in (
        "license: cc-by-4.0",
        "library_name: imagegen_dist",
        "| Fréchet distance | 12.50 | lower is better |",
        "takes for the requested class | 50.0% | higher is better |",
        "they are not FIDs",
        "`faces`",
        "480 images seen",
        "The classes, numbered from 0: `ant`, `bee`, `cat`, `dog`, `eel, electric`.",
        'model.sample(16, classes=["ant", "bee"], seed=0)',
        "0:12 of training on 2 workers.",
    ):
        assert said in card
    document = (tmp_path / "hf" / "config.json").read_text()
    assert json.loads(document)["figures"] == {"frechet": 12.5, "label_agreement": 0.5}
    assert "/home/me" not in document + card
    assert load(tmp_path / "hf").images == 480
    assert load(tmp_path / "hf").class_names == ("ant", "bee", "cat", "dog", "eel, electric")


def test_an_exported_model_is_exported_again_with_what_its_card_says(tmp_path: Path) -> None:
    url = write_checkpoint(tmp_path / "run", "r3gan")
    first = export(url, tmp_path / "first", "--license", "mit")
    second = export(first, tmp_path / "second")
    for name in ("README.md", "config.json", "model.safetensors", "samples.png"):
        assert (Path(second) / name).read_bytes() == (Path(first) / name).read_bytes()


def test_the_discriminator_goes_along_when_it_is_asked_for(tmp_path: Path) -> None:
    url = write_checkpoint(tmp_path / "run", "r3gan")
    plain, whole = export(url, tmp_path / "plain"), export(url, tmp_path / "whole", "--discriminator")
    x, label = torch.zeros(2, 1, 12, 12), torch.tensor([0, 4])
    ours, theirs = (load(place, discriminator=True).networks["discriminator"] for place in (url, whole))
    assert torch.equal(ours(x, label), theirs(x, label))
    assert torch.equal(load(plain).sample(3), load(whole).sample(3))
    with pytest.raises(CheckpointError, match="exported without its discriminator"):
        load(plain, discriminator=True)


def test_a_folder_lies_at_any_url(tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, "mlp"))
    write_folder(model, card_of(model), Store("memory://exported/mlp"))
    assert torch.equal(load("memory://exported/mlp").sample(3), model.sample(3))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-1], "bytes, not"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "does not have the sha256"),
    ],
)
def test_damaged_weights_are_named(damage, said: str, tmp_path: Path) -> None:
    place = export(write_checkpoint(tmp_path / "run", "mlp"), tmp_path / "hf")
    weights = tmp_path / "hf" / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(CheckpointError, match=said):
        load(place)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not of a model that jobs/export.py wrote"),
        ('{"architectures": ["BertModel"]}', "is not of a model that jobs/export.py wrote"),
        ('{"format": 99}', "format 99 is not known"),
    ],
)
def test_a_config_of_something_else_is_named(content: str, said: str, tmp_path: Path) -> None:
    place = export(write_checkpoint(tmp_path / "run", "mlp"), tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=said):
        load(place)


@pytest.mark.parametrize("family", ["r3gan", "ladder"])
def test_the_hubs_mixin_saves_and_loads_the_same_folder(family: str, tmp_path: Path) -> None:
    url = write_checkpoint(tmp_path / "run", family)
    place, model = export(url, tmp_path / "hf"), load(url)
    fetched = HubModel.from_pretrained(place)
    assert torch.equal(fetched.sample(3), model.sample(3))
    fetched.save_pretrained(tmp_path / "again")
    for name in ("README.md", "config.json", "model.safetensors", "samples.png"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "hf" / name).read_bytes()
    for_hub(model).save_pretrained(tmp_path / "third")
    assert torch.equal(load(tmp_path / "third").sample(3), model.sample(3))
