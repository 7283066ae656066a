"""Commands that install optional dependencies, from a checkout or a wheel.

The package is not on a package index, where anybody may take its name. No message, card or page may therefore say to
install it by its name alone.
"""

from __future__ import annotations

import json
from contextlib import suppress
from importlib import metadata
from pathlib import Path

NAME = "imagegen_dist"


def install_hint(extra: str) -> str:
    """The command that installs an extra of the package as installed here, such as `pip install -e '.[vae]' in ...`."""
    root = Path(__file__).resolve().parents[1]
    if (root / "pyproject.toml").is_file():
        return f"pip install -e '.[{extra}]' in {root}"
    return f"pip install {_wheel(extra)}"


def install_anywhere(extra: str) -> str:
    """The commands for a checkout and for a wheel, in Markdown."""
    return (
        f"`pip install -e '.[{extra}]'` in a checkout of its source, or "
        f"`pip install './{NAME}-VERSION-py3-none-any.whl[{extra}]'` with a wheel of it"
    )


def _wheel(extra: str) -> str:
    """The wheel from which the package was installed, with the extra, as an argument of pip."""
    with suppress(metadata.PackageNotFoundError):
        installed = metadata.distribution(NAME)
        url = str(json.loads(installed.read_text("direct_url.json") or "{}").get("url", ""))
        if url.startswith("file://"):  # another one may carry a token
            return f"'{NAME}[{extra}] @ {url}'"
        return f"'./{NAME}-{installed.version}-py3-none-any.whl[{extra}]' with the wheel of this package"
    return f"'./{NAME}-VERSION-py3-none-any.whl[{extra}]' with a wheel of this package"
