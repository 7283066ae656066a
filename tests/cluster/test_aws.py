"""cluster/aws.yaml and iam.yaml by Ray's own schema and bootstrap, against a server that answers as AWS does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.loopback import wait_for
from tests.ray.jobs import ROOT
from tests.s3.server import free_port

boto3 = pytest.importorskip("boto3", reason="Ray's AWS provider is boto3: pip install -e '.[aws]'")

BUCKET, PREFIX, SSH_FROM = "faces", "imagegen", "203.0.113.7/32"
README = (ROOT / "cluster" / "README.md").read_text()
YAML = yaml.safe_load((ROOT / "cluster" / "aws.yaml").read_text())
WORKERS = [name for name in YAML["available_node_types"] if name != YAML["head_node_type"]]
SEVERAL_GPUS = {"g6e-12xlarge": 4, "p5-48xlarge": 8}
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def cloud(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server of EC2, IAM, CloudFormation and SSM, which the environment's credentials reach."""
    url = f"http://127.0.0.1:{free_port()}"
    home = tmp_path_factory.mktemp("home")
    log = (home / "moto.log").open("wb")
    server = subprocess.Popen([tools / "moto_server", "-p", url.rpartition(":")[2]], stdout=log, stderr=log)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(home))  # Ray keeps the key pair in ~/.ssh
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ACCESS_KEY_ID", "made-up")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "made-up")
        patch.setenv("AWS_DEFAULT_REGION", YAML["provider"]["region"])
        try:
            wait_for(f"{url}/moto-api/data.json", server, seconds=60)
            yield url
        finally:
            server.terminate()
            server.wait(timeout=10)
            log.close()


@pytest.fixture(scope="module")
def stack(cloud: str) -> dict[str, Rows]:
    """The policies of each role, as the stack of iam.yaml has made them."""
    parameters = {"Bucket": BUCKET, "Prefix": PREFIX, "SshFrom": SSH_FROM}
    boto3.client("cloudformation").create_stack(
        StackName="imagegen",
        TemplateBody=(ROOT / "cluster" / "iam.yaml").read_text(),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    iam = boto3.client("iam")
    allowed: dict[str, Rows] = {}
    for role in ("imagegen-head", "imagegen-worker"):
        allowed[role] = []
        assert iam.list_role_policies(RoleName=role)["PolicyNames"] == []
        for policy in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
            version = iam.get_policy_version(PolicyArn=policy["PolicyArn"], VersionId="v1")["PolicyVersion"]
            allowed[role] += version["Document"]["Statement"]
    return allowed


@pytest.fixture(scope="module")
def bootstrapped(stack: dict[str, Rows]) -> dict[str, Any]:
    return bootstrap(YAML)


def bootstrap(written: dict[str, Any]) -> dict[str, Any]:
    """The config as `ray up` sends it to the head: validated, filled in, its key pair and networks found."""
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(written)
    validate_config(config)
    return _bootstrap_config(config, no_config_cache=True)


@pytest.fixture(scope="module")
def instances(bootstrapped: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = start_one_of_each(bootstrapped)
    assert found.keys() == YAML["available_node_types"].keys()
    return found


def start_one_of_each(bootstrapped: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """One machine of each node type, started by Ray's provider, as EC2 describes it."""
    from ray.autoscaler._private.providers import _get_node_provider

    provider = _get_node_provider(bootstrapped["provider"], bootstrapped["cluster_name"])
    for name, kind in bootstrapped["available_node_types"].items():
        role = "head" if name == bootstrapped["head_node_type"] else "worker"
        tags = {"ray-node-type": role, "ray-user-node-type": name, "ray-launch-config": "0", "ray-node-name": name}
        provider.create_node(kind["node_config"], tags, 1)
    found = {}
    for reservation in boto3.client("ec2").describe_instances()["Reservations"]:
        for instance in reservation["Instances"]:
            tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
            assert tags["ray-cluster-name"] == YAML["cluster_name"]
            found[tags["ray-user-node-type"]] = instance
    return found


def table(heading: str) -> Rows:
    """The rows of the README's table whose first column has this heading."""
    lines = README.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    names, _, *rest = lines[start:]
    columns = [cell.strip() for cell in names.strip("|").split("|")]
    rows = []
    for line in rest:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(columns, (cell.strip().strip("`") for cell in line.strip("|").split("|")), strict=True)))
    return rows


def test_the_machines_are_those_that_the_readme_says(instances: dict[str, dict[str, Any]]) -> None:
    said = {row["node type"].split("`")[0]: row for row in table("node type")}
    assert said.keys() == instances.keys()
    for name, instance in instances.items():
        assert instance["InstanceType"] == said[name]["machine"]
        spot = instance.get("InstanceLifecycle") == "spot"
        assert spot == (said[name]["bought"] == "spot")
        assert spot == (name in WORKERS)
        assert str(YAML["available_node_types"][name]["resources"]["GPU"]) == said[name]["GPUs for work"]
        assert instance["IamInstanceProfile"]["Arn"].endswith(f"/{said[name]['profile']}")


def test_workers_go_from_none_to_the_number_that_the_readme_says(bootstrapped: dict[str, Any]) -> None:
    kinds = bootstrapped["available_node_types"]
    assert all(kinds[name]["min_workers"] == 0 for name in WORKERS)
    assert all(kinds[name]["max_workers"] == (0 if name in SEVERAL_GPUS else YAML["max_workers"]) for name in WORKERS)
    assert bootstrapped["max_workers"] == YAML["max_workers"]
    assert f"up to {YAML['max_workers']} GPUs" in README
    assert kinds["head"].get("max_workers", 0) == 0
    assert (kinds["head"]["resources"]["CPU"], kinds["head"]["resources"]["GPU"]) == (0, 0)


def test_every_value_to_change_is_on_top_and_in_the_readme() -> None:
    text = (ROOT / "cluster" / "aws.yaml").read_text()
    top = yaml.safe_load(text[: text.index("head_node_type:")])
    leaves = [*(key for key in top if not isinstance(top[key], dict))]
    leaves += [f"{key}.{name}" for key in top if isinstance(top[key], dict) for name in top[key]]
    said = {row["value"]: row["here"] for row in table("value")}
    for path in leaves:
        value = top
        for part in path.split("."):
            value = value[part]
        if path in ("provider.type", "provider.cache_stopped_nodes", "provider.security_group", "auth.ssh_user"):
            continue
        assert said[path] == str(value)


def test_every_machine_wants_imds_version_2_and_encrypts_its_disk(
    instances: dict[str, dict[str, Any]], bootstrapped: dict[str, Any]
) -> None:
    for name, instance in instances.items():
        options = instance["MetadataOptions"]
        assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 1)
        [disk] = instance["BlockDeviceMappings"]
        volume = boto3.client("ec2").describe_volumes(VolumeIds=[disk["Ebs"]["VolumeId"]])["Volumes"][0]
        assert volume["Encrypted"]
        assert disk["Ebs"]["DeleteOnTermination"]
        assert bootstrapped["available_node_types"][name]["node_config"]["KeyName"] == instance["KeyName"]


def test_nothing_but_ssh_is_open_and_that_to_one_address(instances: dict[str, dict[str, Any]]) -> None:
    groups = {group["GroupId"] for instance in instances.values() for group in instance["SecurityGroups"]}
    [group] = boto3.client("ec2").describe_security_groups(GroupIds=[*groups])["SecurityGroups"]
    assert group["GroupName"] == YAML["provider"]["security_group"]["GroupName"]
    outside = [rule for rule in group["IpPermissions"] if rule["IpRanges"] or rule.get("Ipv6Ranges")]
    [ssh] = outside
    assert (ssh["IpProtocol"], ssh["FromPort"], ssh["ToPort"]) == ("tcp", 22, 22)
    assert [entry["CidrIp"] for entry in ssh["IpRanges"]] == [SSH_FROM]
    [inside] = [rule for rule in group["IpPermissions"] if rule not in outside]
    assert {pair["GroupId"] for pair in inside["UserIdGroupPairs"]} == groups


def test_machines_of_several_gpus_are_off_and_near_to_each_other(
    bootstrapped: dict[str, Any], instances: dict[str, dict[str, Any]]
) -> None:
    """One Ray node a machine, and with it one cache of shards for all of its workers."""
    for name, gpus in SEVERAL_GPUS.items():
        kind = bootstrapped["available_node_types"][name]
        assert (kind["resources"]["GPU"], kind["max_workers"]) == (gpus, 0)
        assert kind["node_config"]["Placement"] == {"GroupName": YAML["cluster_name"]}  # which moto accepts and forgets
        assert name in instances


def test_uncommented_lines_give_machines_of_several_gpus_an_efa_interface(instances: dict[str, dict[str, Any]]) -> None:
    """After the README's steps, with the ids of the stack's group and of a subnet."""
    outputs = boto3.client("cloudformation").describe_stacks(StackName="imagegen")["Stacks"][0]["Outputs"]
    [group] = [output["OutputValue"] for output in outputs if output["OutputKey"] == "SecurityGroup"]
    subnet = boto3.client("ec2").describe_subnets()["Subnets"][0]["SubnetId"]
    text = (ROOT / "cluster" / "aws.yaml").read_text()
    text, found = re.subn(r"(?m)^( +)# (NetworkInterfaces:|  - \{Dev|     SubnetId)", r"\1\2", text)
    assert found == 3 * len(SEVERAL_GPUS)
    text = text.replace("subnet-YOURS", subnet).replace("sg-YOURS", group).replace("max_workers: 0", "max_workers: 2")
    config = bootstrap(yaml.safe_load(text))
    config["available_node_types"] = {name: config["available_node_types"][name] for name in SEVERAL_GPUS}
    started = start_one_of_each(config)
    for name in SEVERAL_GPUS:
        [asked] = config["available_node_types"][name]["node_config"]["NetworkInterfaces"]
        assert (asked["InterfaceType"], asked["DeviceIndex"]) == ("efa", 0)
        assert started[name]["InstanceId"] != instances[name]["InstanceId"]
        [interface] = started[name]["NetworkInterfaces"]
        assert (interface["SubnetId"], [each["GroupId"] for each in interface["Groups"]]) == (subnet, [group])


def actions(statements: Rows) -> set[str]:
    found: set[str] = set()
    for statement in statements:
        assert statement["Effect"] == "Allow"
        assert "NotAction" not in statement
        listed = statement["Action"]
        found |= {listed} if isinstance(listed, str) else set(listed)
    return found


def test_a_worker_reaches_its_prefix_and_its_key_and_nothing_else(stack: dict[str, Rows]) -> None:
    worker = stack["imagegen-worker"]
    objects = {"s3:GetObject", "s3:PutObject", "s3:DeleteObject"}
    parts = {"s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"}
    assert actions(worker) == {"s3:ListBucket", "ssm:GetParameter", *objects, *parts}
    by_name = {statement["Sid"]: statement for statement in worker}
    assert by_name["ReadAndWriteThePrefix"]["Resource"] == f"arn:aws:s3:::{BUCKET}/{PREFIX}/*"
    assert by_name["ListThePrefix"]["Resource"] == f"arn:aws:s3:::{BUCKET}"
    assert by_name["ListThePrefix"]["Condition"] == {"StringLike": {"s3:prefix": [PREFIX, f"{PREFIX}/*"]}}
    assert by_name["ReadTheWandbKey"]["Resource"].endswith(":parameter/imagegen/wandb-key")


def test_the_head_may_start_and_end_workers_of_its_cluster_alone(stack: dict[str, Rows]) -> None:
    more = [statement for statement in stack["imagegen-head"] if statement not in stack["imagegen-worker"]]
    ec2 = {"ec2:DescribeInstances", "ec2:RunInstances", "ec2:CreateTags", "ec2:TerminateInstances"}
    assert actions(more) == {*ec2, "iam:PassRole", "ssm:GetParameters"}
    for statement in more:
        assert statement["Resource"] != "*" or statement["Action"] == "ec2:DescribeInstances"
    by_name = {statement["Sid"]: statement for statement in more}
    profile = boto3.client("iam").get_instance_profile(InstanceProfileName="imagegen-worker")["InstanceProfile"]
    start = by_name["StartWorkers"]["Condition"]
    assert start["ArnEquals"] == {"ec2:InstanceProfile": profile["Arn"]}
    assert start["StringEquals"]["ec2:MetadataHttpTokens"] == "required"
    types = {
        node["node_config"]["InstanceType"] for node in YAML["available_node_types"].values() if node.get("max_workers")
    }
    allowed = start["StringEquals"]["ec2:InstanceType"]  # moto leaves a list's default as text
    assert set(allowed.split(",") if isinstance(allowed, str) else allowed) == types
    assert by_name["GiveWorkersTheirRole"]["Resource"] == profile["Roles"][0]["Arn"]
    for name in ("StartWorkers", "TagWhatIsStarted"):
        assert by_name[name]["Condition"]["StringEquals"]["aws:RequestTag/ray-cluster-name"] == YAML["cluster_name"]
    own = by_name["TagAndEndItsOwn"]["Condition"]["StringEquals"]
    assert own == {"aws:ResourceTag/ray-cluster-name": YAML["cluster_name"]}


def test_the_template_has_no_fault_that_cfn_lint_knows(tools: Path) -> None:
    command = [tools / "cfn-lint", "--regions", YAML["provider"]["region"], "--template", ROOT / "cluster" / "iam.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wandb_key_comes_from_the_secret_store_into_a_file_for_the_user_alone(cloud: str, tmp_path: Path) -> None:
    key = "0123456789abcdef0123456789abcdef01234567"
    boto3.client("ssm").put_parameter(Name="/imagegen/wandb-key", Value=key, Type="SecureString")
    command = YAML["setup_commands"][-1].split()[-1]

    def write(parameter: str) -> str:
        script = [sys.executable, str(ROOT / "cluster" / "wandb_key.py"), parameter]
        done = subprocess.run(
            script, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert key not in done.stdout + done.stderr
        return done.stdout + done.stderr

    netrc = tmp_path / ".netrc"
    assert "kept offline" in write("/imagegen/another")
    assert not netrc.exists()
    assert "written" in write(command)
    assert netrc.stat().st_mode & 0o777 == 0o600
    assert f"password {key}" in netrc.read_text()
    assert "already" in write(command)
    assert netrc.read_text().count("machine") == 1


def test_no_secret_is_in_the_yaml_or_the_runtime_environment() -> None:
    # A script may make a token anew: AUTH_TOKEN="$(...)".
    secret = r"""AKIA[0-9A-Z]{16}|[0-9a-f]{40}|WANDB_API_KEY=|AUTH_TOKEN=(?!"\$\()|SECRET_ACCESS_KEY"""
    for path in (ROOT / "cluster").glob("*.*"):
        if path.name not in ("README.md", "requirements.lock"):
            assert not re.search(secret, path.read_text()), path
    runtime = yaml.safe_load((ROOT / "cluster" / "runtime_env.yaml").read_text())
    assert runtime.keys() == {"excludes", "env_vars"}  # no pip, no uv: they would clone the environment on every node
    assert json.dumps(runtime["env_vars"]).lower().count("key") == 0
