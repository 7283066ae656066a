"""Benchmarks that train in their own process: their runs work, and their listeners know all that a run asks."""

import ast
from argparse import Namespace
from pathlib import Path

from benchmarks import disentanglement, rate_distortion
from imagegen_dist.run import Events, SilentEvents

ASKED = {name for name in vars(Events) if not name.startswith("_")}
SCRIPTS = [path for path in Path(disentanglement.__file__).parent.rglob("*.py") if "stop_requested" in path.read_text()]


def test_a_listener_knows_all_that_a_run_asks() -> None:
    assert set(vars(SilentEvents)) >= ASKED
    assert issubclass(rate_distortion.Console, SilentEvents)
    for script in SCRIPTS:
        for found in ast.walk(ast.parse(script.read_text())):
            names = (
                {each.name for each in found.body if isinstance(each, ast.FunctionDef)}
                if isinstance(found, ast.ClassDef)
                else set()
            )
            if "stop_requested" in names and not any("Events" in ast.unparse(base) for base in found.bases):
                assert names >= ASKED, f"{script.name}: {found.name}"


def test_a_row_of_the_disentanglement_table(tmp_path: Path) -> None:
    options = Namespace(storage=str(tmp_path), images=1_280, lr=1e-3)
    result = disentanglement.train(options, "factor", 2.0, 0)
    line = disentanglement.table({("factor", 2.0): [result]}).splitlines()[-1]
    assert line.startswith("| FactorVAE | 2 | 1 |")
    assert result["images"] == 1_280
    assert 0 <= result["mig"] < 0.5
