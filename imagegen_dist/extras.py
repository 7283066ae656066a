"""How what is optional is installed: from a checkout or a wheel.

No distribution of this package's name is on a package index, where anybody may take the name: no message, card or page
says to install it by its name alone.
"""

from __future__ import annotations

import json
from contextlib import suppress
from importlib import metadata
from pathlib import Path

NAME = "imagegen_dist"


def install_hint(extra: str) -> str:
    """The command that installs an extra of the package as it is installed here: `pip install -e '.[vae]' in ...`."""
    root = Path(__file__).resolve().parents[1]
    if (root / "pyproject.toml").is_file():
        return f"pip install -e '.[{extra}]' in {root}"
    return f"pip install {_wheel(extra)}"


def install_anywhere(extra: str) -> str:
    """Both commands, for a reader who may have a checkout or a wheel, in Markdown."""
    return (
        f"`pip install -e '.[{extra}]'` in a checkout of its source, or "
        f"`pip install './{NAME}-VERSION-py3-none-any.whl[{extra}]'` with a wheel of it"
    )


def _wheel(extra: str) -> str:
    """The wheel that the package was installed from, with the extra, as pip takes it."""
    with suppress(metadata.PackageNotFoundError):
        installed = metadata.distribution(NAME)
        url = str(json.loads(installed.read_text("direct_url.json") or "{}").get("url", ""))
        if url.startswith("file://"):  # another one may carry a token
            return f"'{NAME}[{extra}] @ {url}'"
        return f"'./{NAME}-{installed.version}-py3-none-any.whl[{extra}]' with the wheel of this package"
    return f"'./{NAME}-VERSION-py3-none-any.whl[{extra}]' with a wheel of this package"
