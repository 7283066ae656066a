"""What every test finds: one thread, a fixed seed, the same examples each time, and no way out to the network."""

import os

import pytest
import torch
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["tests.cluster.tools", "tests.ray.head", "tests.s3.fixtures"]
_RUNS = ("tests/test_vae_runs.py", "tests/test_run.py", "tests/cli/", "tests/sweep/")
_RAY = ("tests/ray/", "tests/cluster/")
_SLOW = (
    *_RAY,
    *_RUNS,
    *("tests/browser/", "tests/extending/", "tests/distributed/", "tests/evaluation/", "tests/gpu/"),
    *(
        f"tests/data/test_{name}.py"
        for name in ("bombs", "damage", "deep", "faults", "packed_videos", "packed_volumes", "s3", "stream")
    ),
    *(f"tests/inference/test_{name}.py" for name in ("exported", "latent_models", "programs", "web")),
    *("tests/metrics/test_wandb.py", "tests/objectives/test_whole_kernels.py", "tests/training/test_passes.py"),
    *("tests/training/test_memory.py", "tests/drawing/test_surfaces.py"),
    *("tests/lineage/test_diffusers.py", "tests/test_conditioned_runs.py", "tests/test_gpu_script.py"),
    *(f"tests/test_{name}.py" for name in ("api", "credentials_come_late", "failing_figures", "hub_urls")),
    "tests/test_clip_and_volume_presets.py",
    *(f"tests/lineage/test_{name}.py" for name in ("beginnings", "forks", "foreign_checkpoints", "init_from")),
    *(f"tests/test_{name}.py" for name in ("literal_names", "modalities", "operators", "prediction")),
)
"""Files of five seconds or more, which `pytest -m quick` leaves out."""

for _name, _value in {
    "WANDB_MODE": "offline",
    "RAY_USAGE_STATS_ENABLED": "0",
    "AWS_EC2_METADATA_DISABLED": "true",
    "HF_HUB_OFFLINE": "1",
}.items():
    os.environ.setdefault(_name, _value)

os.environ["TERM"] = "xterm-256color"  # a dumb terminal has no live display

# A machine that is busy elsewhere makes an example slow, not wrong.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


class _WholeFiles(LoadScopeScheduling):
    """Each of the processes that share the tests takes whole files, and one of them all that start a Ray."""

    def _split_scope(self, nodeid: str) -> str:
        return "ray" if nodeid.startswith(_RAY) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    return _WholeFiles(config, log)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that the processes end together: those that start a Ray, then whole runs.

    All of tests/cluster is marked as its folder says, and `quick` is what no slow file has.
    """
    for item in items:
        if not item.nodeid.startswith(_SLOW):
            item.add_marker(pytest.mark.quick)
        if item.nodeid.startswith("tests/cluster/"):
            item.add_marker(pytest.mark.cluster)
    items.sort(key=lambda item: (not item.nodeid.startswith(_RAY), not item.nodeid.startswith(_RUNS)))


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # before fixtures of a wider scope


@pytest.fixture(autouse=True)
def _no_test_depends_on_another():
    torch.set_num_threads(1)
    torch.manual_seed(0)
