"""Files with keys: read by their owner alone, and what others put into them stays."""

from __future__ import annotations

import importlib.util
import netrc
from pathlib import Path

import pytest

from imagegen_dist.ray.token import keep_to_owner

ROOT = Path(__file__).parents[1]


@pytest.fixture
def wandb_key(monkeypatch):
    pytest.importorskip("botocore")
    spec = importlib.util.spec_from_file_location("wandb_key", ROOT / "cluster" / "wandb_key.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "fetch", lambda name: "0123")
    return module


@pytest.mark.parametrize("end", ["", "\n"])
def test_the_wandb_key_is_an_entry_of_its_own(wandb_key, tmp_path, end):
    path = tmp_path / ".netrc"
    path.write_text(f"machine example.com login me password hunter2{end}")
    assert wandb_key.main("/imagegen/wandb-key", path) == 0
    entries = netrc.netrc(str(path))
    assert entries.authenticators("example.com") == ("me", "", "hunter2")
    assert entries.authenticators("api.wandb.ai") == ("user", "", "0123")
    assert "hunter2\nmachine" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_token_of_a_ray_cluster_is_its_owners_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    keep_to_owner()
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("0" * 64)
    token.chmod(0o644)
    keep_to_owner()
    assert token.stat().st_mode & 0o777 == 0o600
