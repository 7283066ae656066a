"""The site of docs/: Sphinx with MyST pages and furo, built by `make docs` without a network."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]

import generated  # noqa: E402

import imagegen_dist  # noqa: E402

project = "imagegen_dist"
author = "The authors of imagegen_dist"
project_copyright = author
release = version = imagegen_dist.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"imagegen_dist {release}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

myst_heading_anchors = 3
myst_enable_extensions = ["html_image"]

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False
add_module_names = False
toc_object_entries = False
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
suppress_warnings = ["ref.python"]  # two classes of one name, such as the Encoder of each network

PAGES = {
    "README.md": "index.md",
    "cluster/README.md": "cluster.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
"""Files outside of docs/ that are a page of the site, with the page's name."""

_COMMENT = re.compile(r"^<!-- (include|generated) (.+?) -->$", re.MULTILINE)
_LINK = re.compile(r"(\]\(|^\[\w+\]: )(?!https?:|#|mailto:)([^)#\s]+)", re.MULTILINE)


def expand(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace comments by the text that they name.

    <!-- include FILE [from HEADING until HEADING] --> is a file of the repository; <!-- generated NAME [ARGUMENTS] -->
    is what a function of generated.py returns.
    """

    def text(match: re.Match[str]) -> str:
        if match[1] == "generated":
            name, *arguments = match[2].split()
            return getattr(generated, name)(*arguments)
        file, _, part = match[2].partition(" from ")
        app.env.note_dependency(str(ROOT / file))
        body = (ROOT / file).read_text()
        if part:
            start, end = part.split(" until ")
            body = body[body.index(f"## {start}\n") + len(f"## {start}\n") : body.index(f"## {end}\n")]
        return _LINK.sub(lambda link: link[1] + _target(ROOT / file, link[2], HERE / page), body)

    source[0] = _COMMENT.sub(text, source[0])


def _target(file: Path, link: str, page: Path) -> str:
    """A link of `file` as the page that shows the file's text has to write it."""
    path = (file.parent / link).resolve()
    if not path.exists():
        raise ExtensionError(f"{file.relative_to(ROOT)}: there is no {link}")
    name = path.relative_to(ROOT).as_posix()
    goal = HERE / PAGES[name] if name in PAGES else path
    return os.path.relpath(goal, page.parent)


def as_restructured_text(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text: escape what would be markup, and show indented lines as they are."""
    lines[:] = generated.restructured(lines)


def check_offline(app: Sphinx, error: Exception | None) -> None:
    """Fail if a built page loads anything over the network: a script, a font, a style sheet, a picture."""
    page = re.compile(r"""<(script|img|iframe|source|link)\b[^>]*\b(src|href)=["'](https?:)?//""")
    style = re.compile(r"""(url\(["']?|@import\s+["'])(https?:)?//""")
    for pattern, files in ((page, "*.html"), (style, "*.css")):
        for file in sorted(Path(app.outdir).rglob(files)):
            if not error and (found := pattern.search(file.read_text())):
                raise ExtensionError(f"{file} loads something over the network: {found[0]}")


def setup(app: Sphinx) -> None:
    app.connect("source-read", expand)
    app.connect("autodoc-process-docstring", as_restructured_text)
    app.connect("build-finished", check_offline)
