"""What each way of sending a checkout to a cluster leaves out: secrets and folders of data."""

from __future__ import annotations

import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.command_runner import SSHCommandRunner

from imagegen_dist.errors import DONE, MISUSED
from imagegen_dist.ray import upload
from imagegen_dist.ray.tune.remote import EXCLUDED
from imagegen_dist.ray.upload import NOT_SENT, check_size, main
from tests.ray.jobs import ROOT

KEPT = (
    "jobs/train_gan.py",
    "imagegen_dist/metrics/wandb.py",
    "imagegen_dist/data/sources/shards.py",
    "imagegen_dist/cli/secrets.py",
    "imagegen_dist/inference/latents.py",
    "cluster/node.env",
    "cluster/wandb_key.py",
    "pyproject.toml",
    "inception.safetensors",
)
LEFT_OUT = (
    *(".env", ".env.local", ".netrc", "cluster/my.pem", "server.key", "deep/er/id_ed25519", "id_rsa.pub", "login.p12"),
    *(".ssh/config", ".aws/credentials", "credentials.json", "service-account-1.json", ".git-credentials", ".pypirc"),
    *("shards/train-000000.tar", "faces/shards/0.tar", "runs/digits-1/config.json", "wandb/run-1/files/x", "venv/x"),
    *(".venv312/lib/x.py", ".git/config", "jobs/__pycache__/x.pyc", ".mypy_cache/x", "exported/model.safetensors"),
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    for name in (*KEPT, *LEFT_OUT):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return root


def packaged(root: Path, excludes: list[str]) -> set[str]:
    """What Ray makes of a working directory."""
    package = root.parent / "package.zip"
    create_package(str(root), package, include_gitignore=True, excludes=excludes)
    return {name for name in zipfile.ZipFile(package).namelist() if not name.endswith("/")}


def by_excludes(root: Path) -> set[str]:
    return packaged(root, yaml.safe_load((ROOT / "cluster/runtime_env.yaml").read_text())["excludes"])


def by_file(name: str) -> Callable[[Path], set[str]]:
    def sent(root: Path) -> set[str]:
        shutil.copy(ROOT / name, root / name)
        return packaged(root, []) - {name}

    return sent


def by_sweep(root: Path) -> set[str]:
    return packaged(root, EXCLUDED)


def by_rsync(name: str) -> Callable[[Path], set[str]]:
    """`ray up`: rsync with the arguments that Ray makes of the file, and no .gitignore beside it."""

    def sent(root: Path) -> set[str]:
        options = yaml.safe_load((ROOT / name).read_text())
        arguments = SSHCommandRunner._create_rsync_filter_args(None, options)
        node = root.parent / "node"
        subprocess.run(["rsync", "-a", *arguments, f"{root}/", f"{node}/"], check=True)
        return files(node)

    return sent


def by_dockerignore(root: Path) -> set[str]:
    """Docker matches a pattern against a whole path, or that of a folder above."""
    lines = (ROOT / "cluster/Dockerfile.dockerignore").read_text().splitlines()
    parts = {r"\*\*/": "(?:.*/)?", r"\*": "[^/]*"}
    patterns = [re.sub(r"\\\*\\\*/|\\\*", lambda m: parts[m[0]], re.escape(line)) for line in lines if line[0] != "#"]
    ignored = re.compile(f"(?:{'|'.join(patterns)})(?:/.*)?")
    return {name for name in files(root) if not ignored.fullmatch(name)}


def by_git(root: Path) -> set[str]:
    shutil.rmtree(root / ".git")
    shutil.copy(ROOT / ".gitignore", root)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    listed = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"], cwd=root, check=True, capture_output=True, text=True
    )
    return set(listed.stdout.split()) - {".gitignore"}


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


WAYS: dict[str, Callable[[Path], set[str]]] = {
    "runtime_env.yaml": by_excludes,
    ".rayignore": by_file(".rayignore"),
    ".gitignore, read by Ray": by_file(".gitignore"),
    ".gitignore": by_git,
    "sweep --address": by_sweep,
    "aws.yaml": by_rsync("cluster/aws.yaml"),
    "gcp.yaml": by_rsync("cluster/gcp.yaml"),
    "local.yaml": by_rsync("cluster/local.yaml"),
    "Dockerfile": by_dockerignore,
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_sends_a_secret_or_a_folder_of_data(way: str, checkout: Path) -> None:
    if "rsync" in WAYS[way].__qualname__ and shutil.which("rsync") is None:
        pytest.skip("rsync is not installed")
    assert WAYS[way](checkout) == set(KEPT)


def test_every_list_is_the_one_list() -> None:
    for name in (".gitignore", ".rayignore", "cluster/Dockerfile.dockerignore"):
        lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
        assert [line.removeprefix("**/") for line in lines] == list(NOT_SENT), name
    lists = {"aws": "rsync_exclude", "gcp": "rsync_exclude", "local": "rsync_exclude", "runtime_env": "excludes"}
    for name, key in lists.items():
        assert yaml.safe_load((ROOT / f"cluster/{name}.yaml").read_text())[key] == list(NOT_SENT), name


def test_a_large_checkout_is_refused_by_the_names_of_its_folders(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / ".rayignore", checkout)
    for name, size in (("faces/all.bin", 90_000_000), ("old/weights.bin", 30_000_000), ("runs/x.bin", 200_000_000)):
        (checkout / name).parent.mkdir(exist_ok=True)
        with (checkout / name).open("wb") as file:
            file.truncate(size)
    assert main([str(checkout)]) == MISUSED
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "would send 120 MB to every machine" in said
    assert "move faces/ (90 MB), old/ (30 MB) out of the checkout" in said
    with (checkout / ".rayignore").open("a") as file:
        file.write("faces\n")
    assert main([str(checkout)]) == DONE
    assert "11 files of 30.0 MB would be sent" in capsys.readouterr().out


def test_this_checkout_is_small_enough() -> None:
    count, total = check_size(ROOT)
    assert count > 100
    assert total < 20_000_000 < upload.MOST_BYTES
