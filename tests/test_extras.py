"""What is optional is installed from the checkout or the wheel, never by a name that anybody may take on an index."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from imagegen_dist import extras
from imagegen_dist.extras import install_anywhere, install_hint

ROOT = Path(__file__).parents[1]
# pip or uv installing the name itself, with or without extras; not a wheel's file, which ends in .whl[extra].
BY_NAME = re.compile(
    r"(pip3?|uv|poetry) (pip )?(install|add) ([^\s`;|&(){}]+ ){0,6}?['\"]?imagegen[_-]dist\b(?![-/\w])"
)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A place of the package beside no checkout."""
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "site-packages" / "imagegen_dist" / "extras.py"))
    return monkeypatch


class Wheel:
    version = "1.2"

    def __init__(self, url):
        self.url = url

    def read_text(self, name):
        return json.dumps({"url": self.url}) if name == "direct_url.json" and self.url else None


def test_a_checkout_names_its_folder():
    assert install_hint("vae") == f"pip install -e '.[vae]' in {ROOT}"


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        (
            "file:///a/imagegen_dist-1.2-py3-none-any.whl",
            "'imagegen_dist[vae] @ file:///a/imagegen_dist-1.2-py3-none-any.whl'",
        ),
        ("", "'./imagegen_dist-1.2-py3-none-any.whl[vae]' with the wheel of this package"),
        ("https://me:hunter2@host/a.whl", "'./imagegen_dist-1.2-py3-none-any.whl[vae]' with the wheel of this package"),
    ],
)
def test_a_wheel_is_named_by_the_file_that_it_came_from(installed, url, hint):
    installed.setattr(extras.metadata, "distribution", lambda name: Wheel(url))
    assert install_hint("vae") == f"pip install {hint}"


def test_a_copy_that_was_not_installed_asks_for_a_wheel(installed):
    def missing(name):
        raise extras.metadata.PackageNotFoundError

    installed.setattr(extras.metadata, "distribution", missing)
    assert (
        install_hint("vae")
        == "pip install './imagegen_dist-VERSION-py3-none-any.whl[vae]' with a wheel of this package"
    )


def test_no_text_installs_the_package_by_its_name():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split(
        "\n"
    )
    files = [ROOT / name for name in listed if name] or [path for path in ROOT.rglob("*") if path.is_file()]
    found = []
    for path in files:
        if path.suffix in (".py", ".md", ".yaml", ".sh", ".toml", ".txt", ".j2", "") and path != Path(__file__):
            text = " ".join(path.read_text(errors="replace").split())
            found += [f"{path.relative_to(ROOT)}: {hit[0]}" for hit in BY_NAME.finditer(text)]
    assert not found
    assert BY_NAME.search("pip install 'imagegen_dist[export]'")
    assert BY_NAME.search("pip install imagegen-dist")
    assert not BY_NAME.search(install_anywhere("export"))
