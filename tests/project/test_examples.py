"""The example projects need few lines for FGL. tests/e2e/test_plug_in.py runs them."""

import ast
import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def lines_of_ours(file):
    """Count the lines of imports from fgl_app and of statements that use an imported name."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imports = [each for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)]
    ours = [each for each in imports if (each.module or "").startswith("fgl_app")]
    names = {alias.name for each in ours for alias in each.names}
    simple = [each for each in ast.walk(tree) if isinstance(each, ast.Assign | ast.Expr | ast.Return)]
    uses = [each for each in simple if names & {n.id for n in ast.walk(each) if isinstance(n, ast.Name)}]
    return sum((each.end_lineno or 0) - each.lineno + 1 for each in [*ours, *uses])


@pytest.mark.parametrize("folder", ["plug_in_fgl", "plug_in_fedddpm"])
def test_the_number_of_lines_is_that_of_the_readme(folder):
    lines = sum(map(lines_of_ours, (EXAMPLES / folder).rglob("*.py")))
    stated = re.search(r"adds (\d+) lines", (EXAMPLES / folder / "README.md").read_text(encoding="utf-8"))
    assert stated
    assert lines == int(stated[1]) <= 60
