"""What every test finds: one thread, a fixed seed, the same examples each time, and no way out to the network."""

import os
from pathlib import Path

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


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the two processes that share the tests, one begins with those that start a Ray, one Ray at a time."""
    for item in items:
        uses_ray = "ray" in item.path.relative_to(Path(__file__).parent).parts
        item.add_marker(pytest.mark.xdist_group("ray" if uses_ray else str(item.path)))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group").args[0] != "ray")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_global_seed():
    torch.manual_seed(0)
