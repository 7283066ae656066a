"""How fast a training would be, where a step takes milliseconds and where it takes minutes."""

from __future__ import annotations

from itertools import count

import pytest
import torch

from imagegen_dist import config
from imagegen_dist.cli import estimate
from imagegen_dist.cli.estimate import _measured_speed
from imagegen_dist.experiment import Experiment
from imagegen_dist.presets import find_preset

INDEX = find_preset("digits").imagined_index()
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    changes = {"training.microbatch_size": 4, "training.batch_size": 8, "model.widths": (8,)}
    return config.overrides(find_preset("digits").experiment, changes.items())


def test_steps_are_measured_after_some_that_are_not(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "PATIENCE_S", float("inf"))
    ticks = count()
    assert 0 < _measured_speed(experiment, INDEX, CPU, lambda: next(ticks) * 0.01) < 400


@pytest.mark.parametrize("seconds_a_module", [0.5, 60.0])
def test_a_step_that_takes_too_long_is_given_up(seconds_a_module: float, experiment: Experiment) -> None:
    ticks, called = count(), []
    hook = torch.nn.modules.module.register_module_forward_pre_hook(lambda *_: called.append(1))
    try:
        assert _measured_speed(experiment, INDEX, CPU, lambda: next(ticks) * seconds_a_module) == 0
    finally:
        hook.remove()
    assert len(called) <= 1 + 10 / seconds_a_module
    torch.nn.Linear(1, 1)(torch.zeros(1, 1))  # its own hook is gone
