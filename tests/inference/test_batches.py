"""Samples at once on a GPU: as many as a part of its memory is predicted to take, and 8 on the CPU."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import nn

from imagegen_dist.experiment import build_networks
from imagegen_dist.noise import SampleNoise
from imagegen_dist.objectives.interface import Sampler
from imagegen_dist.prediction.counting import OperatorCounter
from imagegen_dist.prediction.sampling import chunks_at_once, fitting_samples, samples_at_once
from imagegen_dist.presets import find_preset
from tests.runs import CPU


def sampler_of(name: str) -> Sampler:
    preset = find_preset(name)
    networks: Mapping[str, nn.Module] = build_networks(preset.experiment, preset.shape, preset.classes or None)
    return preset.experiment.objective.sampler({role: network.eval() for role, network in networks.items()})


@torch.no_grad()
def measured_bytes(sampler: Sampler, classes: int, count: int) -> int:
    drawn = sampler.prior(count, SampleNoise.of(0, range(count)))
    label = torch.zeros(count, dtype=torch.int64) if classes else None
    with OperatorCounter() as counter, counter.counting():
        sampler.generate(drawn, label)
    return counter.peak_bytes


@pytest.mark.parametrize("name", ["digits", "ladder-vae"])
def test_a_batch_is_doubled_while_its_measured_memory_fits(name: str) -> None:
    sampler, classes = sampler_of(name), find_preset(name).classes
    for count in (8, 16, 32):
        room = 1.05 * measured_bytes(sampler, classes, count)
        assert fitting_samples(sampler, classes, room, CPU, least=8, most=64) == count
    assert fitting_samples(sampler, classes, 1e12, CPU, least=8, most=64) == 64
    assert fitting_samples(sampler, classes, 1, CPU, least=8, most=64) == 8


def test_on_the_cpu_batches_stay_as_they_are() -> None:
    sampler = sampler_of("digits")
    assert samples_at_once(sampler, 10, CPU, 8, 64) == 8
    assert chunks_at_once(sampler, 10, CPU, 50) == 1
