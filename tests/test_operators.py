"""What a step asks of a GPU, on a fake one: operators within a budget, no tensor elsewhere, no wait for the device."""

import json
import subprocess
import sys

import pytest

# The most operators, convolutions among them, and gradients of convolutions of one step: a few more than there are.
BUDGETS = {
    "digits": (600, 30, 25),
    "r3gan-cifar10": (1_500, 168, 137),
    "dcgan": (300, 16, 12),
    "digits-vae": (250, 0, 0),
    "factor-vae-dsprites": (700, 8, 6),
    "beta-tcvae-dsprites": (450, 6, 6),
    "vae-gan": (700, 26, 28),
    "fsq-f8": (1_500, 68, 68),
}

# A process of its own: PyTorch keeps the fake device for as long as a process lives.
SCRIPT = """
import json, sys, torch
from benchmarks import operators
from benchmarks.fake_gpu import fake_gpu

with fake_gpu() as device, operators.Counting() as counting:
    torch.zeros(2, device=device).to("cpu", non_blocking=True)
    torch.zeros(2, device=device).to("cpu")
try:
    with fake_gpu() as device:
        torch.zeros(2, device=device) + torch.zeros(2)
    mixed = ""
except RuntimeError as error:
    mixed = str(error)
found = {name: operators.operators_of_step(name) for name in sys.argv[1:]}
counts = {name: [each.total, each.convolutions, each.gradients] for name, each in found.items()}
stalls = {name: dict(each.stalls) for name, each in found.items()}
blocking = sum(counting.operators().stalls.values())
print(json.dumps({"blocking": blocking, "mixed": mixed, "counts": counts, "stalls": stalls}))
"""


@pytest.fixture(scope="module")
def found() -> dict:
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, *BUDGETS]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_a_blocking_copy_and_a_tensor_elsewhere_are_noticed(found: dict) -> None:
    assert found["blocking"] == 1
    assert "two devices" in found["mixed"]


@pytest.mark.parametrize("preset", BUDGETS)
def test_a_step_keeps_its_budget_and_never_waits_for_the_device(found: dict, preset: str) -> None:
    assert all(count <= most for count, most in zip(found["counts"][preset], BUDGETS[preset], strict=True))
    assert found["stalls"][preset] == {}
