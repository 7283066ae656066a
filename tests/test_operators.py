"""What a step asks of a GPU, on a fake one: operators within a budget, no tensor elsewhere, no wait for the device."""

import json
import subprocess
import sys

import pytest

from imagegen_dist.objectives.interface import ObjectiveConfig
from imagegen_dist.objectives.variational import Autoencodes
from imagegen_dist.presets import PRESETS

# The most operators, convolutions among them, and gradients of convolutions of one step: a few more than there are.
BUDGETS = {
    "digits": (670, 31, 28),
    "digits-styled": (680, 31, 28),
    "digits-200": (750, 25, 25),
    "digits-kl": (810, 38, 38),
    "latent-digits": (440, 20, 20),
    "article-gan": (240, 0, 0),
    "dcgan": (280, 16, 12),
    "r3gan-stackedmnist": (1_280, 143, 137),
    "r3gan-stackedmnist-small": (580, 31, 28),
    "r3gan-cifar10": (1_480, 143, 137),
    "r3gan-ffhq64": (1_720, 184, 176),
    "r3gan-latent256": (1_260, 143, 137),
    "r3gan-ffhq256": (2_160, 266, 254),
    "r3gan-imagenet32": (1_480, 143, 137),
    "r3gan-imagenet64": (1_740, 179, 171),
    "moving-digits-gan": (2_950, 72, 86),
    "solids-gan": (840, 15, 15),
    "digits-vae": (230, 0, 0),
    "article-vae": (230, 0, 0),
    "mnist-400": (200, 0, 0),
    "iwae-50": (300, 0, 0),
    "ladder-vae": (2_200, 0, 0),
    "vae-gan": (700, 26, 28),
    "beta-vae-dsprites": (320, 6, 6),
    "annealed-vae-dsprites": (330, 6, 6),
    "factor-vae-dsprites": (680, 8, 6),
    "beta-tcvae-dsprites": (440, 6, 6),
    "kl-f8": (3_040, 157, 96),
    "fsq-f8": (1_990, 68, 68),
    "moving-digits-vae": (680, 19, 19),
    "solids-vae": (250, 6, 6),
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
with fake_gpu() as device, torch.autocast(device.type, torch.bfloat16):
    x = torch.zeros(2, 2, device=device)
    cast = [str(value.dtype) for value in (x @ x, (x @ x).exp())]
found = {name: operators.operators_of_step(name) for name in sys.argv[1:]}
counts = {name: [each.total, each.convolutions, each.gradients] for name, each in found.items()}
stalls = {name: dict(each.stalls) for name, each in found.items()}
uses = {name: {use: dict(each.stalls) for use, each in operators.operators_of_use(name).items()} for name in found}
blocking = sum(counting.operators().stalls.values())
told = {"counts": counts, "stalls": stalls, "uses": uses}
print(json.dumps({"blocking": blocking, "mixed": mixed, "cast": cast, **told}))
"""


@pytest.fixture(scope="module")
def found() -> dict:
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, *BUDGETS]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_a_blocking_copy_and_a_tensor_elsewhere_are_noticed(found: dict) -> None:
    assert found["blocking"] == 1
    assert "two devices" in found["mixed"]
    assert found["cast"] == ["torch.bfloat16", "torch.float32"]


@pytest.mark.parametrize("preset", BUDGETS)
def test_samples_figures_and_codes_are_computed_on_the_device(found: dict, preset: str) -> None:
    """Nothing waits for the device but noise and samples that are sent there, and features that are kept."""
    uses = found["uses"][preset]
    assert uses.pop("sample") == {}
    assert ("encode" in uses) == isinstance(PRESETS[preset].experiment.objective, Autoencodes)
    for use, stalls in uses.items():
        sent = "noise.py" if use == "evaluate" else "evaluation/encoding.py"
        assert {place.partition(" at ")[2].partition(":")[0] for place in stalls} == {sent, "metrics/features.py"}
        assert sum(stalls.values()) == 2


@pytest.mark.parametrize("preset", BUDGETS)
def test_a_step_keeps_its_budget_and_never_waits_for_the_device(found: dict, preset: str) -> None:
    assert all(count <= most for count, most in zip(found["counts"][preset], BUDGETS[preset], strict=True))
    assert found["stalls"][preset] == {}


def test_every_preset_has_a_budget_and_every_objective_is_in_a_preset() -> None:
    assert BUDGETS.keys() == PRESETS.keys()
    kinds = {type(preset.experiment.objective) for preset in PRESETS.values()}
    ours = {each for each in ObjectiveConfig.registered.values() if each.__module__.startswith("imagegen_dist.")}
    assert kinds >= ours
