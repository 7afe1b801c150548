"""The example projects on a grid inside the process: what they do, and that FGL takes few lines of them."""

import ast
import importlib
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from tests.fake_grid import FakeGrid, app_node

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    """Run an example with some config values and return what it wrote down."""

    def run(folder, package, tmp_path, clients, **changes):
        monkeypatch.syspath_prepend(EXAMPLES / folder)
        project = tomllib.loads((EXAMPLES / folder / "pyproject.toml").read_text())
        values = project["tool"]["flwr"]["app"]["config"]
        config = values | {key.replace("_", "-"): value for key, value in changes.items()}
        config["result-file"] = str(tmp_path / "result.json")
        server = importlib.import_module(f"{package}.server_app")
        client = importlib.import_module(f"{package}.client_app")
        grid = FakeGrid({i: app_node(client.app, i, clients, config) for i in range(clients)})
        server.app(grid, Context(1, 0, {}, RecordDict(), config))
        return json.loads((tmp_path / "result.json").read_text())

    yield run
    for name in [name for name in sys.modules if name.partition(".")[0] in ("lenet", "ddpm")]:
        del sys.modules[name]


def lines_of_ours(file):
    """Count the lines of imports from fgl_app, and of statements that use what they bring."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imports = [each for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)]
    ours = [each for each in imports if (each.module or "").startswith("fgl_app")]
    names = {alias.name for each in ours for alias in each.names}
    simple = [each for each in ast.walk(tree) if isinstance(each, ast.Assign | ast.Expr | ast.Return)]
    uses = [each for each in simple if names & {n.id for n in ast.walk(each) if isinstance(n, ast.Name)}]
    return sum((each.end_lineno or 0) - each.lineno + 1 for each in [*ours, *uses])


@pytest.mark.parametrize("folder", ["plug_in_fgl", "plug_in_fedddpm"])
def test_it_takes_as_few_lines_as_the_readme_says(folder):
    lines = sum(map(lines_of_ours, (EXAMPLES / folder).rglob("*.py")))
    told = re.search(r"adds (\d+) lines", (EXAMPLES / folder / "README.md").read_text(encoding="utf-8"))
    assert told
    assert lines == int(told[1]) <= 60


@pytest.mark.slow
def test_fgl_plugged_into_lenet(example, tmp_path):
    result = example("plug_in_fgl", "lenet", tmp_path, 5, num_server_rounds=2, images_per_class=100)
    # Untrained; then on 1000 synthetic digits; then a round on skewed private ones, corrected.
    assert result["0"]["accuracy"] < 0.3
    assert result["1"]["accuracy"] > 0.7
    assert result["2"]["accuracy"] > 0.7


@pytest.mark.slow
def test_fedddpm_plugged_into_a_diffusion_project(example, tmp_path):
    result = example("plug_in_fedddpm", "ddpm", tmp_path, 2, num_server_rounds=2, auxiliary_size=40)
    assert result["1"] == result["0"]
    assert result["2"]["loss"] < 0.5 < result["1"]["loss"]
