"""The package as a Flower app, and the bundle that Flower ships to every site."""

import io
import shutil
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.cli.app import app as flwr_app
from flwr.cli.build import build_fab_from_disk
from typer.testing import CliRunner

from fgl_app.config import config_keys
from fgl_app.launch.app_bundle import stage_app, to_toml

ROOT = Path(__file__).parents[2]
LIMIT = 10 * 2**20
"""Flower's limit of a bundle, bytes."""


def test_the_staged_app_is_the_package_with_its_keys(tmp_path):
    app = stage_app(tmp_path / "app")
    staged = tomllib.loads((app / "pyproject.toml").read_text())
    own = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert staged["tool"]["flwr"] == own["tool"]["flwr"]
    assert staged["project"]["name"] == own["project"]["name"]
    assert staged["project"]["version"] == own["project"]["version"]
    sources = {file.relative_to(ROOT) for file in (ROOT / "fgl_app").rglob("*.py")}
    assert {file.relative_to(app) for file in app.rglob("*.py")} == sources


def test_toml_scalars_are_read_back():
    values = {"a": 'quote " backslash \\ \x7f é \n tab\t', "b": 3, "c": 1e-05, "d": 2.0}
    assert tomllib.loads(to_toml(values)) == values


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the repository in which each ignored folder holds a single module."""
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    folder = tmp_path_factory.mktemp("checkout") / "repository"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", ".*_cache", *ignored))
    for name in (".venv", "outputs", "build"):
        (folder / name).mkdir()
        (folder / name / "ignored.py").touch()
    return folder


@pytest.mark.parametrize("app", [".", "hub", "examples/plug_in_fgl", "examples/plug_in_fedddpm"])
def test_flower_accepts_the_bundle(checkout, app):
    bundle = build_fab_from_disk(checkout / app)
    assert len(bundle) < LIMIT
    names = zipfile.ZipFile(io.BytesIO(bundle)).namelist()
    assert "pyproject.toml" in names
    assert [name for name in names if name.endswith("ignored.py")] == []


def test_flower_builds_the_app_of_the_hub_from_text_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(flwr_app, ["build", "--app", str(ROOT / "hub")])
    assert done.exit_code == 0, done.output
    (bundle,) = tmp_path.glob("*.fab")
    files = {file.name for file in (ROOT / "hub").iterdir() if file.is_file()}
    assert files == {"README.md", "LICENSE", "pyproject.toml", "client_app.py", "server_app.py"}
    assert set(zipfile.ZipFile(bundle).namelist()) == {*files, ".info/CONTENT"}


def test_the_app_of_the_hub_is_this_version_with_its_defaults():
    hub = tomllib.loads((ROOT / "hub" / "pyproject.toml").read_text())
    own = tomllib.loads((ROOT / "pyproject.toml").read_text())
    app, project = hub["tool"]["flwr"]["app"], own["project"]
    assert app["config"] == config_keys()
    assert hub["project"]["version"] == project["version"]
    flower, package = hub["project"]["dependencies"]
    assert flower in project["optional-dependencies"]["app"]
    assert package == f"{project['name']}[app]=={project['version']}"
    assert f"'{package}'" in (ROOT / "hub" / "README.md").read_text()
    assert f"flwr=={app['flwr-version-target']}" in (ROOT / "constraints.txt").read_text().splitlines()
    assert (ROOT / "hub" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
