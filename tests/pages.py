"""The pages of the documentation, and the commands and Python that they show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "cluster" / "README.md"])

_FENCED = re.compile(r"^```.*\n((?:.*\n)*?)```$", re.MULTILINE)
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sections(text: str) -> list[tuple[str, str]]:
    """(heading, text) of each section of a page of the second level; the text above the first has the heading ""."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return [("", parts[0]), *zip(parts[1::2], parts[2::2], strict=True)]


def code_lines(text: str) -> Iterator[str]:
    """The lines of the indented and fenced blocks of a page's text; a continued line is one line."""
    text = _FENCED.sub(lambda block: re.sub(r"^", "    ", block[1], flags=re.MULTILINE), text)
    for block in re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE):
        yield from re.sub(r"\\\n\s*", " ", block).splitlines()


def shell_lines(text: str) -> Iterator[str]:
    """The lines of the indented blocks and of the fenced ones that are not Python."""
    yield from code_lines(_PYTHON.sub("", text))


def python_blocks(text: str) -> list[str]:
    """The fenced Python of a page's text."""
    return _PYTHON.findall(text)


def commands(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(script or sub-command, arguments) of each `python jobs/...` and `imagegen ...` in the code of a page's text."""
    for line in code_lines(text):
        if match := re.search(r"(?:python jobs/(\w+)\.py|(?:^ *|&& )imagegen (?=[a-z]))(.*)", line):
            words = shlex.split(match[2].split(" && ")[0], comments=True)
            name = match[1] or " ".join(words[: 2 if words[0] in ("data", "runs") else 1])
            yield name, tuple(word for word in words[0 if match[1] else len(name.split()) :] if word != "&")
