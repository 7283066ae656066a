"""What lies in cluster/ beside aws.yaml: manifests for Kubernetes, the image, the lock, and what the README says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from imagegen_dist.cli.train_options import parse
from imagegen_dist.ray.environment import JOB_STOP_WAIT, JOB_STOP_WAIT_S, set_ray_environment
from tests.ray.jobs import ROOT

CLUSTER = ROOT / "cluster"
README = (CLUSTER / "README.md").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
POD = """
import json, sys
import kubernetes_validate
for document in json.load(sys.stdin):
    kubernetes_validate.validate(document, sys.argv[1], strict=True)
"""


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CLUSTER / "kuberay" / name).read_text()))


def cluster_spec() -> dict[str, Any]:
    [cluster] = documents("raycluster.yaml")
    return cluster["spec"]


def pods() -> dict[str, dict[str, Any]]:
    spec = cluster_spec()
    workers = {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"], **workers}


def locked() -> dict[str, tuple[str, int]]:
    """Version and number of hashes of each package in the lock."""
    found: dict[str, tuple[str, int]] = {}
    name = ""
    for line in (CLUSTER / "requirements.lock").read_text().splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==(\S+)", line):
            name = canonicalize_name(match[1])
            found[name] = (match[2], 0)
        elif re.match(r"\s+--hash=sha256:[0-9a-f]{64}", line):
            found[name] = (found[name][0], found[name][1] + 1)
        else:
            assert not line.strip() or line.lstrip().startswith("#"), line
    return found


def constraints() -> dict[str, str]:
    lines = (CLUSTER / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_pods_and_access_are_what_kubernetes_knows(tools: Path) -> None:
    """A RayCluster's pods are Kubernetes's own, checked as such; strict: an unknown field is an error."""
    wrapped = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **template.get("metadata", {})}, **template}
        for name, template in pods().items()
    ]
    for entry in wrapped:
        entry["metadata"] = {"name": entry["metadata"]["name"]}
    command = [tools / "python", "-c", POD, "1.31"]
    checked = json.dumps([*wrapped, *documents("access.yaml")])
    done = subprocess.run(command, input=checked, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_fields_of_raycluster_and_rayjob_are_those_of_their_reference() -> None:
    """KubeRay's API reference, v1; what is below a template is Kubernetes's."""
    assert cluster_spec().keys() <= {
        "rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions",
        "headGroupSpec", "workerGroupSpecs",
    }  # fmt: skip
    assert cluster_spec()["headGroupSpec"].keys() == {"rayStartParams", "template"}
    for group in cluster_spec()["workerGroupSpecs"]:
        assert group.keys() == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    [job] = documents("rayjob.yaml")
    assert job["spec"].keys() == {
        "entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
        "rayClusterSpec",
    }  # fmt: skip
    assert job["spec"]["rayClusterSpec"] == cluster_spec()
    [service] = documents("rayservice.yaml")
    assert service["spec"].keys() == {"serveConfigV2", "rayClusterConfig"}
    assert service["spec"]["rayClusterConfig"] == cluster_spec()
    assert yaml.safe_load(service["spec"]["serveConfigV2"]) == yaml.safe_load((CLUSTER / "serve.yaml").read_text())


def test_a_cluster_on_kubernetes_wants_a_token_and_keeps_secrets_in_secrets() -> None:
    assert cluster_spec()["authOptions"] == {"mode": "token"}
    for template in pods().values():
        [container] = template["spec"]["containers"]
        for variable in container["env"]:
            assert variable.keys() == {"name", "valueFrom"}
            assert variable["valueFrom"].keys() == {"secretKeyRef"}
        security = container["securityContext"]
        assert security["runAsNonRoot"]
        assert not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}


def test_a_worker_pod_is_a_spot_machine_that_drains_before_it_goes() -> None:
    spec = pods()["spot-gpu"]["spec"]
    assert {"key": "spot", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    [container] = spec["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    hook = container["lifecycle"]["preStop"]["exec"]["command"]
    assert hook[0] in PYPROJECT["project"]["scripts"]
    assert int(hook[-1]) < spec["terminationGracePeriodSeconds"] == 120
    assert pods()["head"]["spec"]["nodeSelector"] != spec["nodeSelector"]
    assert cluster_spec()["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_every_node_has_the_environment_that_a_ray_of_our_own_has() -> None:
    """A driver's environment reaches its own Ray's workers, but not a cluster's: its nodes have it themselves."""
    with mock.patch.dict(os.environ, clear=True):
        set_ray_environment()
        ours = dict(os.environ)
    lines = [line for line in (CLUSTER / "node.env").read_text().splitlines() if not line.startswith("#")]
    node = dict(line.split("=", 1) for line in lines)
    cloud = {name: int(node[name]) for name in node if name.startswith("AWS_METADATA_SERVICE_")}
    assert cloud == {"AWS_METADATA_SERVICE_TIMEOUT": 5, "AWS_METADATA_SERVICE_NUM_ATTEMPTS": 4}
    of_nodes = {"RAY_AUTH_MODE", JOB_STOP_WAIT, *cloud}  # what is read on a cluster's nodes alone
    assert {name: node[name] for name in node if name not in of_nodes}.items() <= ours.items()
    reaching_workers = {name for name in ours if name.startswith("MALLOC_")} | {"RAY_worker_niceness"}
    assert reaching_workers <= node.keys()
    [pod_environment] = [document["data"] for document in documents("access.yaml") if document["kind"] == "ConfigMap"]
    assert pod_environment == {name: value for name, value in node.items() if name != "RAY_AUTH_MODE"}
    sent = yaml.safe_load((CLUSTER / "runtime_env.yaml").read_text())["env_vars"]
    assert node[JOB_STOP_WAIT] == pod_environment[JOB_STOP_WAIT] == sent[JOB_STOP_WAIT] == str(JOB_STOP_WAIT_S)


def test_the_image_has_no_fault_that_hadolint_knows(tools: Path) -> None:
    done = subprocess.run([tools / "hadolint", CLUSTER / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_lock_pins_and_hashes_everything() -> None:
    packages = locked()
    assert len(packages) > 100
    assert all(hashes > 0 for _, hashes in packages.values())


def test_the_lock_has_the_versions_that_the_tests_passed_with() -> None:
    tested = constraints()
    both = {name: version for name, (version, _) in locked().items() if name in tested}
    assert both == {name: tested[name] for name in both}
    assert {"torch", "ray", "numpy", "s3fs", "wandb"} <= both.keys()


def test_the_lock_has_all_that_the_package_needs() -> None:
    project = PYPROJECT["project"]
    wanted = [*project["dependencies"]]
    for extra in ("aws", "gcp", "demo", "vae", "sweep", "serve", "video", "volume"):
        wanted += project["optional-dependencies"][extra]
    packages = locked()
    for text in wanted:
        requirement = Requirement(text)
        assert requirement.specifier.contains(packages[canonicalize_name(requirement.name)][0]), text
    build = Requirement(PYPROJECT["build-system"]["requires"][0])  # install.sh builds the package without a download
    assert build.specifier.contains(packages[canonicalize_name(build.name)][0])


def test_kubernetes_runs_the_ray_of_the_lock() -> None:
    assert cluster_spec()["rayVersion"] == locked()["ray"][0]


def commands() -> list[list[str]]:
    """The README's indented commands, a continued line as one."""
    blocks = re.findall(r"(?:^ {4,}.*\n)+", README, re.MULTILINE)
    return [shlex.split(line, comments=True) for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def test_what_the_readme_types_is_understood() -> None:
    typed = [words for words in commands() if "jobs/train_gan.py" in words]
    assert len(typed) == 4
    for words in typed:
        rest = words[words.index("jobs/train_gan.py") + 1 :]
        if "..." not in rest:
            parse("train_gan", rest)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"cluster/[\w./-]+\.\w+", README))))
def test_a_file_that_the_readme_names_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


def test_ten_commands_lead_to_a_model() -> None:
    start = README.index("## From nothing")
    block = re.search(r"(?:^ {4,}.*\n)+", README[start:], re.MULTILINE)
    assert block is not None
    assert len(block[0].replace("\\\n", " ").splitlines()) == 10
