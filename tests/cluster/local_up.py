"""What a user does with cluster/local.yaml, typed on a machine of its own: `python -m tests.cluster.local_up FOLDER`.

The machine is this one in namespaces that `unshare` has made: its own processes, loopback, home and Ray's folder. So
`ray stop`, which `ray down` runs, finds this cluster alone, and the SSH server's port is free.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import yaml

from tests.ray.jobs import ROOT, words
from tests.runs import TINY
from tests.s3.server import KEY_ID, SECRET, serving

UNSHARE = ("unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc")
SSHD = "/usr/sbin/sshd"
WANDB_KEY = "0123456789abcdef0123456789abcdef01234567"
DASHBOARD = "http://127.0.0.1:8265"
BIN = Path(sys.executable).parent

SSHD_CONFIG = """
Port 22
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
"""


def main(folder: Path) -> None:
    """Up, a job, down; times and what was said go to `folder`/said.json. Raises where a step fails."""
    home = make_machine(folder)
    said: dict[str, dict[str, object]] = {}

    def typed(step: str, *command: str) -> None:
        begun = time.monotonic()
        environment = {**os.environ, "RAY_ADDRESS": DASHBOARD, "RAY_AUTH_MODE": "token"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=400
        )
        said[step] = {"seconds": round(time.monotonic() - begun, 1), "code": done.returncode, "output": done.stdout}
        (folder / "said.json").write_text(json.dumps(said, indent=1))
        assert done.returncode == 0, f"{step}: {done.stdout}"

    with serving(folder / "s3") as server:
        server.make_bucket("bucket")
        (home / ".aws").mkdir()
        (home / ".aws" / "credentials").write_text(
            f"[default]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n"
        )
        (home / ".aws" / "config").write_text(f"[default]\nendpoint_url = {server.endpoint}\n")
        (home / ".netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {WANDB_KEY}\n")

        ray = str(BIN / "ray")
        typed("token", ray, "get-auth-token", "--generate")
        token = (home / ".ray" / "auth_token").read_text().strip()
        typed("up", ray, "up", str(folder / "local.yaml"), "-y")
        job = ["python", *words(Path("STORAGE"), "digits-1", TINY)[1:]]
        job[job.index("STORAGE")] = "s3://bucket/imagegen/runs"
        typed("job", ray, "job", "submit", "--", *job)
        refused, _ = ask("/api/jobs/", "0" * 64)
        answered, metadata = ask("/api/jobs/", token)
        typed("down", ray, "down", str(folder / "local.yaml"), "-y")

    said["asked"] = {"without the token": refused, "with it": answered, "output": ""}
    left = [
        process.name()
        for process in psutil.process_iter()
        if ("ray" in process.name() or "gcs" in process.name()) and process.status() != psutil.STATUS_ZOMBIE
    ]  # those have ended: nobody waits for orphans in this name space
    said["left"] = {"output": left}
    # Everything but the three files that hold them: of AWS, of W&B, and the token's.
    places = [Path("/tmp/ray"), folder / "s3" / "buckets", home / "imagegen_dist", home / ".cache"]
    files = [home / "ray_bootstrap_config.yaml", *(path for place in places for path in place.rglob("*"))]
    tests = home / "imagegen_dist" / "tests"  # whose sources have the secrets that are planted here
    texts = {str(path): path.read_bytes() for path in files if path.is_file() and not path.is_relative_to(tests)}
    texts |= {step: str(entry["output"]).encode() for step, entry in said.items() if step != "token"}
    texts["job metadata"] = metadata
    secrets = [SECRET.encode(), WANDB_KEY.encode(), token.encode()]
    leaks = [name for name, text in texts.items() if any(secret in text for secret in secrets)]
    said["leaks"] = {"output": leaks, "looked at": len(texts)}
    (folder / "said.json").write_text(json.dumps(said, indent=1))


def make_machine(folder: Path) -> Path:
    """Its loopback, home, SSH server and Ray's folder; the home."""
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True)
    for name in ("ray", "run", "s3"):
        (folder / name).mkdir()
    passwd = Path("/etc/passwd").read_text().replace("root:x:0:0:root:/root:", f"root:x:0:0:root:{home}:")
    (folder / "passwd").write_text(passwd)
    Path("/tmp/ray").mkdir(exist_ok=True)
    for source, target in (("passwd", "/etc/passwd"), ("ray", "/tmp/ray"), ("run", "/run")):
        subprocess.run(["mount", "--bind", folder / source, target], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    os.environ["HOME"] = str(home)
    for name in [name for name in os.environ if name.startswith(("AWS_", "RAY_", "WANDB_"))]:
        del os.environ[name]
    (home / "venv").symlink_to(BIN.parent)
    # The package of the checkout that is copied there, as install.sh arranges it on a cloud's machine.
    (home / ".bashrc").write_text(". ~/venv/bin/activate; export PYTHONPATH=~/imagegen_dist\n")
    key = home / ".ssh" / "id_ed25519"
    for path in (key, folder / "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    (folder / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(folder=folder))
    Path("/run/sshd").mkdir(exist_ok=True)
    subprocess.run([SSHD, "-f", folder / "sshd_config", "-E", folder / "sshd.log"], check=True)

    config = yaml.safe_load((ROOT / "cluster" / "local.yaml").read_text())
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(key)}
    (folder / "local.yaml").write_text(yaml.safe_dump(config))
    return home


def ask(path: str, token: str) -> tuple[int, bytes]:
    """The status and the body of the dashboard's answer."""
    request = urllib.request.Request(DASHBOARD + path, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
