"""Exported programs: every part of every family computes what PyTorch does, for any batch."""

import json
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from imagegen_dist import load
from imagegen_dist.cli.export import main
from imagegen_dist.errors import DONE
from imagegen_dist.inference.convert import ExportError, to_onnx
from imagegen_dist.inference.engines import use_engine_
from imagegen_dist.inference.programs import Program, programs, weighted
from tests.checkpoints import FAMILIES, write_checkpoint

PARTS = {
    "ladder": {"encoder", "decoder", "sampler"},
    "vae-gan": {"encoder", "decoder", "discriminator"},
    "dcgan": {"generator", "discriminator"},
    "moving-digits-vae": {"encoder", "decoder", "sampler"},
}


def exported(family: str, form: str, tmp_path: Path) -> tuple[dict[str, Program], Path]:
    """(the parts of a model in PyTorch, the folder of its exported programs)."""
    url, dest = write_checkpoint(tmp_path / "run", family), tmp_path / form
    more = ["--discriminator"] if "discriminator" in PARTS.get(family, ()) else []
    assert main([url, "--to", form, str(dest), *more]) == DONE
    parts = programs(load(url, discriminator=bool(more)))
    if form == "onnx":
        parts = {name: part if name == "discriminator" else weighted(part) for name, part in parts.items()}
    return parts, dest


FAST = ("r3gan", "conv-vae")
"""An export takes seconds: those of the other families are left to `pytest -m cluster`."""

every_family = pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in FAST else pytest.mark.cluster) for name in FAMILIES]
)


def assert_says_what_goes_in(session: onnxruntime.InferenceSession, part: Program) -> None:
    """The file alone says names, shapes, ranges and distributions, and a label that is none is refused."""
    told = session.get_modelmeta().custom_metadata_map
    inputs = json.loads(told["inputs"])
    assert [each["name"] for each in inputs] == [value.name for value in part.inputs]
    assert [each["shape"][1:] for each in inputs] == [list(value.dims) for value in part.inputs]
    about = {each["name"]: each["about"] for each in [*inputs, json.loads(told["output"])]}
    distributions = "standard normal", "drawn uniformly", "use the sampler"  # of codes of fsq; of a ladder's levels
    assert any(words in about.get("z", "standard normal") for words in distributions)
    assert "from -1 to 1" in about.get("samples", "from -1 to 1")
    if part.inputs[-1].classes:
        classes = part.inputs[-1].classes
        assert f"from 0 to {classes - 1}" in about["label"]
        given = {value.name: tensor.numpy() for value, tensor in zip(part.inputs, part.examples(2), strict=True)}
        for wrong in (-1, -classes, classes):
            with pytest.raises(InvalidArgument, match="out of data bounds"):
                session.run(None, given | {"label": np.array([0, wrong])})


@every_family
def test_onnx_models_agree_with_pytorch_for_batches_that_were_not_tried(family: str, tmp_path: Path) -> None:
    parts, folder = exported(family, "onnx", tmp_path)
    assert family not in PARTS or set(parts) == PARTS[family]
    document = json.loads((folder / "export.json").read_text())
    described, names = document["programs"], FAMILIES[family].class_names
    assert document["class_names"] == (list(names) if names else None)
    assert described.keys() == parts.keys()
    for name, part in parts.items():
        session = onnxruntime.InferenceSession(folder / described[name]["file"])
        kept = session.get_modelmeta().custom_metadata_map.get("class_names")
        assert json.loads(kept or "null") == document["class_names"]
        assert [value.name for value in session.get_inputs()] == [value.name for value in part.inputs]
        assert [value["name"] for value in described[name]["inputs"]] == [value.name for value in part.inputs]
        assert_says_what_goes_in(session, part)
        for batch in (3, 16):
            inputs = part.examples(batch, seed=100 + batch)
            given = {value.name: tensor.numpy() for value, tensor in zip(part.inputs, inputs, strict=True)}
            [found] = session.run(None, given)
            expected = part.module(*inputs)
            assert list(found.shape) == [batch, *described[name]["output"]["shape"][1:]]
            torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-4)


_OTHERS = ("ladder", "moving-digits-gan", "moving-digits-vae", "solids-gan", "solids-vae")


@pytest.mark.parametrize("family", ["r3gan", *(pytest.param(name, marks=pytest.mark.cluster) for name in _OTHERS)])
def test_torch_programs_agree_with_pytorch_and_hold_no_pickle_but_their_example(family: str, tmp_path: Path) -> None:
    parts, folder = exported(family, "torch", tmp_path)
    for name, part in parts.items():
        program = torch.export.load(folder / f"{name}.pt2").module()
        for batch in (1, 7):
            inputs = part.examples(batch, seed=batch)
            torch.testing.assert_close(program(*inputs), part.module(*inputs), rtol=0, atol=1e-6)
        with zipfile.ZipFile(folder / f"{name}.pt2") as archive:
            for member in archive.namelist():
                if member.endswith("_config.json"):
                    payloads = json.loads(archive.read(member)).get("config", {}).values()
                    assert not any(payload["use_pickle"] for payload in payloads), member


def test_the_onnx_runtime_engine_gives_the_samples_of_pytorch_within_a_grey_level(tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, "r3gan"))
    eager = model.sample(11, seed=4).int()
    use_engine_(model, "onnxruntime")
    assert (model.sample(11, seed=4).int() - eager).abs().max() <= 1
    blended = model.sample(1, classes={0: 0.5, 1: 0.5}).int()
    use_engine_(model, "eager")
    assert (model.sample(1, classes={0: 0.5, 1: 0.5}).int() - blended).abs().max() <= 1


def test_a_program_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from imagegen_dist.inference import convert

    part = programs(load(write_checkpoint(tmp_path, "mlp")))["generator"]
    right = convert.onnx_function
    monkeypatch.setattr(convert, "onnx_function", lambda *given: lambda *x: right(*given)(*x) + 2e-4)
    with pytest.raises(ExportError, match=r"generator: its ONNX model in ONNX Runtime differs from PyTorch by 0\.0002"):
        to_onnx(part)


def test_programs_compute_in_float32_and_leave_the_model_alone(tmp_path: Path) -> None:
    from dataclasses import replace

    family = FAMILIES["r3gan"]
    family = replace(family, changes={"model": {**family.changes["model"], "bf16_stages": 2}})
    model = load(write_checkpoint(tmp_path, family))
    part = programs(model)["generator"]
    assert model.generator.bf16_stages == 2
    plain, rounded = part.module(*part.examples(4)), model(*part.examples(4))
    assert 0 < (plain - rounded).abs().max() < 0.5
    model.generator.bf16_stages = 0
    torch.testing.assert_close(plain, model(*part.examples(4)))
