"""cluster/gcp.yaml by Ray's own schema and bootstrap, and gs:// URLs by gcsfs, against servers on loopback."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import loopback
from tests.cluster.test_aws import table
from tests.ray.jobs import ROOT

pytest.importorskip("googleapiclient", reason="Ray's provider for Google Cloud needs it: pip install -e '.[gcp]'")

from tests.cluster.gcp_api import PROJECT, Cloud, serving_gcp

TEXT = (ROOT / "cluster" / "gcp.yaml").read_text()
YAML = yaml.safe_load(TEXT)
AWS = yaml.safe_load((ROOT / "cluster" / "aws.yaml").read_text())
KINDS = YAML["available_node_types"]
WORKERS = [name for name in KINDS if name != YAML["head_node_type"]]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with pytest.MonkeyPatch.context() as patch, serving_gcp() as found:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # Ray keeps the key pair in ~/.ssh
        yield found


@pytest.fixture(scope="module")
def bootstrapped(cloud: Cloud) -> dict[str, Any]:
    """The config as `ray up` sends it to the head: validated, filled in, its account, key pair and network found."""
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.util import prepare_config, validate_config

    written = yaml.safe_load(TEXT.replace("YOUR-PROJECT", PROJECT))
    written["provider"]["gcp_credentials"] = {"type": "credentials_token", "credentials": "made-up"}
    config = prepare_config(written)
    validate_config(config)
    return _bootstrap_config(config, no_config_cache=True)


@pytest.fixture(scope="module")
def instances(bootstrapped: dict[str, Any], cloud: Cloud) -> dict[str, dict[str, Any]]:
    """What Ray's provider asks Compute Engine for: one machine of each node type."""
    from ray.autoscaler._private.providers import _get_node_provider

    provider = _get_node_provider(bootstrapped["provider"], bootstrapped["cluster_name"])
    for name, kind in bootstrapped["available_node_types"].items():
        is_head = name == bootstrapped["head_node_type"]
        node_config = {**(bootstrapped["head_node"] if is_head else {}), **kind["node_config"]}
        tags = {"ray-node-type": "head" if is_head else "worker", "ray-user-node-type": name}
        provider.create_node(node_config, {**tags, "ray-launch-config": "0", "ray-node-name": f"ray-{name}"}, 1)
    assert cloud.refused == []
    return {each["labels"]["ray-user-node-type"]: each for each in cloud.instances}


def test_the_machines_are_those_that_the_readme_says(instances: dict[str, dict[str, Any]]) -> None:
    said = {row["node type on Google Cloud"]: row for row in table("node type on Google Cloud")}
    assert said.keys() == instances.keys()
    for name, instance in instances.items():
        assert instance["machineType"].rpartition("/")[2] == said[name]["machine"]
        assert instance["labels"]["ray-cluster-name"] == YAML["cluster_name"]
        spot = instance.get("scheduling", {}).get("provisioningModel") == "SPOT"
        assert spot == (said[name]["bought"] == "spot") == (name in WORKERS)
        assert str(KINDS[name]["resources"]["GPU"]) == said[name]["GPUs for work"]
        [disk] = instance["disks"]
        assert disk["autoDelete"]
        assert instance["tags"] == {"items": ["imagegen"]}


def test_a_worker_has_its_own_account_and_the_head_that_of_ray(
    instances: dict[str, dict[str, Any]], cloud: Cloud
) -> None:
    for name, instance in instances.items():
        [account] = instance["serviceAccounts"]
        expected = "imagegen-worker" if name in WORKERS else "ray-autoscaler-sa-v1"
        assert account["email"] == f"{expected}@{PROJECT}.iam.gserviceaccount.com"
    rays = f"serviceAccount:ray-autoscaler-sa-v1@{PROJECT}.iam.gserviceaccount.com"
    roles = {binding["role"] for binding in cloud.policy["bindings"] if rays in binding["members"]}
    readme = (ROOT / "cluster" / "README.md").read_text()
    assert roles
    assert all(f"`{role}`" in readme for role in roles)


def test_workers_go_from_none_to_the_number_at_the_top(bootstrapped: dict[str, Any]) -> None:
    kinds = bootstrapped["available_node_types"]
    assert all(kinds[name]["min_workers"] == 0 for name in WORKERS)
    assert all(kinds[name]["max_workers"] == YAML["max_workers"] for name in WORKERS)
    assert (kinds["head"]["resources"]["CPU"], kinds["head"]["resources"]["GPU"]) == (0, 0)


def test_nodes_start_as_those_of_aws_do() -> None:
    """But for the watcher of spot machines, the secret store, and EFA."""
    for key in ("file_mounts", "rsync_exclude", "rsync_filter", "head_setup_commands", "head_start_ray_commands"):
        assert YAML[key] == AWS[key], key
    assert YAML["setup_commands"][:-1] == AWS["setup_commands"][:-1]
    efa = "if [ -e /dev/infiniband/uverbs0 ]; then . cluster/efa.env; fi; "
    assert YAML["worker_start_ray_commands"][:2] == [
        command.replace(efa, "") for command in AWS["worker_start_ray_commands"][:2]
    ]


class Metadata(loopback.Handler):
    """`preempted` as the metadata service has it, which answers with its change alone."""

    answers: list[bytes]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(f"{self.path} {self.headers['Metadata-Flavor']}")
        self.answer(200, self.answers.pop(0))


def test_the_watcher_drains_the_node_once_the_machine_is_preempted(tmp_path: Path) -> None:
    watch = tmp_path / "imagegen-spot-watch"
    watch.write_text('#!/bin/sh\necho "$@"\n')
    watch.chmod(0o755)
    asked: list[str] = []
    with loopback.serving(Metadata, answers=[b"FALSE", b"TRUE"], asked=asked) as url:
        environment = {
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "GCE_METADATA_HOST": url[len("http://") :],
        }
        command = ["bash", ROOT / "cluster" / "gcp_preempted.sh"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert done.stdout == "--now --grace 25\n"
    assert asked == ["/computeMetadata/v1/instance/preempted?wait_for_change=true Google"] * 2


def test_the_wandb_key_may_come_on_standard_input(tmp_path: Path) -> None:
    key = "0123456789abcdef0123456789abcdef01234567"
    pipe = YAML["setup_commands"][-1].partition("|")[2].replace("~/imagegen_dist", str(ROOT)).replace("~/venv/bin/", "")
    environment = {**os.environ, "HOME": str(tmp_path)}
    for given, said in (("", "kept offline"), (key, "written"), (key, "already")):
        done = subprocess.run(
            pipe, shell=True, env=environment, input=given, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert said in done.stdout + done.stderr
    assert f"password {key}" in (tmp_path / ".netrc").read_text()
