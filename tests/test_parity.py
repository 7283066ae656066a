"""benchmarks/parity.py: equal runs have equal hashes, and what differs is named."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.parity import BATCH, CONV_VAE, COURSE, differences, make_data, parts, total, train

BRIEF = {
    **COURSE,
    **CONV_VAE,
    "training.total_images": 2 * BATCH,
    "training.report_every": BATCH,
    "training.listen_every": BATCH,
    "evaluation.samples": 0,
}


def test_the_same_run_twice_is_equal_and_one_bit_of_one_weight_is_named(tmp_path: Path) -> None:
    data = make_data("bars", tmp_path / "data")
    for name in ("first", "second"):
        train("beta-vae-dsprites", BRIEF, data, str(tmp_path / name))
    first, second = parts(tmp_path / "first" / "run"), parts(tmp_path / "second" / "run")
    assert differences("vae", second, first) == []
    assert total(first["weights"]) == total(second["weights"])
    assert any(name.startswith("model/") for name in first["weights"])
    assert any("/exp_avg" in name for name in first["weights"])
    assert "loss/autoencoder" in first["rows"]

    *_, file = sorted((tmp_path / "second").rglob("model.safetensors"))
    tensors = load_file(file)
    name = min(tensors)
    tensors[name].view(-1).view(torch.int32)[0] ^= 1
    save_file(tensors, file)
    [line] = differences("vae", parts(tmp_path / "second" / "run"), first)
    assert line == f"vae: weights differ in 1 of {len(first['weights'])}: model/{name}"


def test_a_metric_that_differs_or_is_missing_is_named_and_a_run_that_was_not_kept(tmp_path: Path) -> None:
    before = {"weights": {}, "rows": {"loss/a": "1", "loss/b": "2"}, "figures": {"eval/frechet": "3"}}
    now = {"weights": {}, "rows": {"loss/a": "9"}, "figures": {"eval/frechet": "3"}}
    assert differences("run", now, before) == ["run: rows differ in 2 of 1: loss/a, loss/b"]
    assert differences("run", now, None) == ["run: is not in the file"]
