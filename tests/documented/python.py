"""How the Python of the pages is run here: the blocks of a section in one process, after the page's commands."""

from __future__ import annotations

import ast
import re
import shlex

from tests.documented.plan import Step
from tests.pages import PAGES, ROOT, python_blocks, sections

BY_HAND = (
    (r"import lpips", "needs the package lpips and its weights"),
    (r"network-snapshot-final", "needs a published pickle"),
    (r"weights-inception", "needs a published pickle"),
    (r"push_to_hub", "needs an account of the Hub"),
    (r"127.0.0.1:8000", "needs a server; tests/serving"),
    (r"pack_dataset[(]\"(clips|scans/)\"", "no clips or scans are here; tests/data has them"),
    (r"import gradio", "serves until it is stopped, with the package gradio"),
    (r"model.directions", "goes on from another page's model and pictures"),
)

REPLACED = (
    (r'device="cuda"', 'device="cpu"', "no GPU"),
    (r'"cat"\)', "3)", "classes without names"),
    (r"model.encode\(images\), ", "", "a GAN has no encoder"),
    (r"20_000\}", '480, "batch_size": 24, "microbatch_size": 12}', "fewer images"),
    (r"at=128_000", "at=240", "a checkpoint that exists"),
    (r"freeze_d=1\)", 'freeze_d=1, training={"total_images": 528})', "fewer images"),
    (r"optim=lower\)", 'optim=lower, training={"total_images": 528})', "fewer images"),
)


def python_steps() -> list[Step]:
    """A step for the Python of each section of each page."""
    steps = list[Step]()
    for page in PAGES:
        imports = list[str]()
        for section, text in sections(page.read_text()):
            blocks = python_blocks(text)
            if blocks:
                steps.append(_step(page.relative_to(ROOT).as_posix(), section, blocks, imports))
            imports += [line for block in blocks for line in _imports(block)]
    return steps


def _step(page: str, section: str, blocks: list[str], imports: list[str]) -> Step:
    printed = f"Python of “{section or 'the beginning'}”"
    for pattern, why in BY_HAND:
        if any(re.search(pattern, block) for block in blocks):
            return Step(page, section, printed, by_hand=why)
    code, changes = "\n".join(dict.fromkeys(imports)) + "\n" + "\n".join(blocks), list[str]()
    for pattern, instead, why in REPLACED:
        changed = re.sub(pattern, instead, code)
        changes += [why] if changed != code else []
        code = changed
    before = "rm -rf shards digits" if "pack_dataset" in code else ""
    if blocks[0].startswith("# my_package/"):
        return Step(page, section, printed, _of_a_source(blocks[0]), ("as the text below it says",))
    return Step(page, section, printed, f"python -c {shlex.quote(code)}", tuple(changes), before)


def _of_a_source(block: str) -> str:
    """Write a source to its file, and pack with it as the page says."""
    name = block.split()[1]
    pictures = "import numpy as np; np.save('pictures.npy', np.zeros((40, 3, 64, 64), np.uint8))"
    pack = "rm -rf shards && imagegen data pack my_package.arrays:pictures.npy shards"
    return f"printf %s {shlex.quote(block)} > {name} && python -c {shlex.quote(pictures)} && {pack}"


def _imports(block: str) -> list[str]:
    return [ast.unparse(node) for node in ast.parse(block).body if isinstance(node, ast.Import | ast.ImportFrom)]
