"""What every test finds: one thread, a fixed seed, the same examples each time, and no way out to the network."""

import os

import pytest
import torch
from hypothesis import settings

pytest_plugins = ["tests.s3.fixtures"]

for _name, _value in {
    "WANDB_MODE": "offline",
    "RAY_USAGE_STATS_ENABLED": "0",
    "AWS_EC2_METADATA_DISABLED": "true",
    "HF_HUB_OFFLINE": "1",
}.items():
    os.environ.setdefault(_name, _value)

# A machine that is busy elsewhere makes an example slow, not wrong.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_global_seed():
    torch.manual_seed(0)
