"""A run whose classifier learns nothing says so wherever its figures are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from imagegen_dist.cli.evaluate.command import main
from imagegen_dist.data.pack import pack
from imagegen_dist.errors import DONE
from imagegen_dist.records import RunSettings
from imagegen_dist.storage import Store
from tests.runs import Listener, tiny, train_here


def noise(folder: Path, seed: int) -> str:
    """URL of noise whose labels mean nothing."""
    random = np.random.default_rng(seed)
    samples = ((random.integers(0, 256, (1, 8, 8), np.uint8), int(random.integers(10))) for _ in range(200))
    pack(samples, Store(folder), classes=10)
    return Store(folder).url


def test_a_classifier_near_chance_is_named_in_console_result_report_and_evaluation(tmp_path: Path) -> None:
    urls = [noise(tmp_path / split, seed) for seed, split in enumerate(("train", "val"))]
    network = {"kind": "mlp", "hidden": [16], "z_dim": 8}
    sizes = {"evaluation__samples": 50, "evaluation__searched": 0, "evaluation__classifier_images": 64}
    where = RunSettings("run", str(tmp_path), "digits", "train_gan", *urls, wandb_mode="disabled")
    where.folder.write("config.json", json.dumps({"data": {"url": urls[0], "validation": urls[1]}}).encode())
    listener = Listener()
    assert train_here(tiny(model=network, training__total_images=48, **sizes), where, listener).complete
    [line] = [message for message in listener.messages if "most frequent class" in message]
    assert "say nothing of these samples; raise --evaluation.classifier-images" in line
    result = json.loads(where.folder.read("result.json"))
    assert result["warnings"] == [line]
    assert result["classifier_chance"] < 0.2
    assert '<p class="warning card">the classifier recognises' in where.folder.read("report.html").decode()
    out = tmp_path / "figures.json"
    words = ["--metrics", "agreement", "--samples", "50", "--out", str(out), "--workers", "0"]
    assert main([where.folder.url, *words]) == DONE
    found = json.loads(out.read_text())
    assert found["warnings"] == [line]
    assert found["figures"]["classifier_accuracy"] == result["classifier_accuracy"]
