"""The package's structure in figures: `python benchmarks/structure.py [CHECKOUT ...]`, a column for each checkout.

Lines and files (all and by part), public names (functions and classes at the top level of modules, without an
underscore), modules that one other module imports, import cycles, and the longest function. An import inside a function
counts like any other, one for type checking does not.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

PACKAGE = "imagegen_dist"
Graph = Mapping[str, set[str]]


def modules_of(checkout: Path) -> dict[str, Path]:
    """Dotted name -> file of every module of the package."""
    found = {}
    for path in sorted((checkout / PACKAGE).rglob("*.py")):
        parts = path.relative_to(checkout).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(tree: ast.Module, known: Mapping[str, Path]) -> Iterator[str]:
    """The package's modules that a module imports, without those for type checking alone."""
    unseen = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in (node for node in ast.walk(tree) if id(node) not in unseen):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                yield module if module in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def public_names(tree: ast.Module) -> list[str]:
    """Functions and classes that a module defines at its top level without a leading underscore."""
    defined = [node.name for node in tree.body if isinstance(node, (*_FUNCTIONS, ast.ClassDef))]
    return [name for name in defined if not name.startswith("_")]


def cycles(graph: Graph) -> int:
    """The number of groups of modules that import one another, directly or through others."""
    modules = list(graph)
    edges = csr_array([[other in graph[module] for other in modules] for module in modules])
    _, groups = connected_components(edges, connection="strong")
    return sum(size > 1 for size in Counter(groups.tolist()).values())


def measure(checkout: Path) -> dict[str, str]:
    """The figures of one checkout, by their names."""
    files = modules_of(checkout)
    lines: dict[str, int] = defaultdict(int)
    names, functions = 0, list[tuple[int, str]]()
    graph, importers = dict[str, set[str]](), defaultdict[str, set[str]](set)
    for module, path in files.items():
        text = path.read_text()
        tree = ast.parse(text)
        part = module.split(".")[1] if path.parent != checkout / PACKAGE else ""
        lines[f"{part}/" if part else "top level"] += len(text.splitlines())
        names += len(public_names(tree))
        graph[module] = set()
        for imported in imports_of(tree, files):
            importers[imported].add(module)
            graph[module].add(imported)
        for node in ast.walk(tree):
            if isinstance(node, _FUNCTIONS):
                assert node.end_lineno
                functions.append(
                    (node.end_lineno - node.lineno + 1, f"{module.removeprefix(PACKAGE + '.')}.{node.name}")
                )
    real = {module for module, path in files.items() if path.name != "__init__.py"}
    length, longest = max(functions)
    tests = sum(len(path.read_text().splitlines()) for path in (checkout / "tests").rglob("*.py"))
    return {
        "files": f"{len(files)}",
        "lines": f"{sum(lines.values()):,}",
        "public names": f"{names}",
        "modules with one importer": f"{sum(len(importers[module]) == 1 for module in real)}",
        "import cycles": f"{cycles(graph)}",
        "longest function": f"{length} lines ({longest})",
        "functions above 50 lines": f"{sum(size > 50 for size, _ in functions)}",
        **{f"lines of {part}": f"{count:,}" for part, count in sorted(lines.items())},
        "lines of the tests": f"{tests:,}",
    }


def main() -> None:
    checkouts = [Path(word).resolve() for word in sys.argv[1:]] or [Path(__file__).resolve().parents[1]]
    columns = [measure(checkout) for checkout in checkouts]
    rows = list(dict.fromkeys(name for column in columns for name in column))
    print(f"| | {' | '.join(checkout.name for checkout in checkouts)} |")
    print(f"|---|{'---|' * len(columns)}")
    for name in rows:
        print(f"| {name} | {' | '.join(column.get(name, '–') for column in columns)} |")


if __name__ == "__main__":
    main()
