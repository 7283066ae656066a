"""How a GPU computes: in training, in evaluation and for samples as the experiment says, and as before afterwards."""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from imagegen_dist import load
from imagegen_dist.cli.evaluate.tasks import GeneratedBy, Piece, measure
from imagegen_dist.distributed import World
from imagegen_dist.evaluation import engine
from imagegen_dist.evaluation.requested_classes import RequestedClasses
from imagegen_dist.models.r3gan import R3GANConfig
from imagegen_dist.numerics import Numerics
from imagegen_dist.presets import PRESETS
from imagegen_dist.run import session
from tests.checkpoints import FAMILIES, write_checkpoint
from tests.runs import tiny

EXACT = {"training.tf32": False, "training.cudnn_benchmark": True}


def now() -> tuple[bool, bool, bool]:
    """TensorFloat-32 in convolutions and in products, and cuDNN's search for the fastest algorithm."""
    return (
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.benchmark,
    )


def test_settings_hold_within_a_block_and_are_restored() -> None:
    before = now()
    with Numerics(tf32=False, cudnn_benchmark=True).applied():
        assert now() == (False, False, True)
        with suppress(KeyError), Numerics(tf32=True).applied():
            assert now() == (True, True, True)
            raise KeyError
        assert now() == (False, False, True)
    assert now() == before


def test_deterministic_algorithms_alone_within_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filling the new rows of a resized tensor is one of the operators that differ on the CPU as well."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    training = tiny(training__deterministic=True, training__cudnn_benchmark=True).training
    with training.numerics.applied():
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert torch.empty(4).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_run_computes_as_its_experiment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = now(), []
    monkeypatch.setattr(session, "prepare", lambda *_: seen.append(now()))
    monkeypatch.setattr(session, "_Session", lambda *_: Mock(run=lambda: seen.append(now())))
    changes = {name.replace(".", "__"): value for name, value in EXACT.items()}
    session.execute(tiny(**changes), Mock(), World(), torch.device("cpu"), Mock())
    assert seen == [(False, False, True)] * 2
    assert now() == before


def test_samples_are_computed_as_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES["r3gan"]
    url = write_checkpoint(tmp_path, replace(family, changes={**family.changes, **EXACT}))
    model, seen = load(url), []

    def compute(drawn: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        seen.append(now())
        return model(drawn, label)

    model.compute = compute
    model.sample(2)
    generate = engine.Generated.generate
    monkeypatch.setattr(engine.Generated, "generate", lambda self, ids: seen.append(now()) or generate(self, ids))
    measure(Piece(GeneratedBy(url, 2, 0, RequestedClasses(5), ()), range(1)))
    assert seen == [(False, False, True)] * 2


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("r3gan-") and "small" not in name])
def test_published_r3gan_computes_as_its_code(name: str) -> None:
    """The lowest stage of 32×32 is in float32, of larger samples all but the four highest; no TensorFloat-32."""
    preset = PRESETS[name]
    training, model = preset.experiment.training, preset.experiment.model
    assert training.numerics == Numerics(tf32=False, cudnn_benchmark=True)
    assert isinstance(model, R3GANConfig)
    assert model.bf16_stages == (3 if preset.shape.spatial == (32, 32) else 4)
