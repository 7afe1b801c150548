"""The wheel and the source distribution, as `make dist` builds them for a package index."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(dist):
    (file,) = dist.glob("*.whl")
    return zipfile.ZipFile(file)


@pytest.fixture(scope="module")
def metadata(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return message_from_bytes(wheel.read(name))


def test_an_index_accepts_both(dist):
    check = [sys.executable, "-m", "twine", "check", "--strict", *map(str, dist.iterdir())]
    done = subprocess.run(check, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_the_wheel_has_everything_that_a_run_needs(wheel):
    names = set(wheel.namelist())
    files = [path.relative_to(ROOT) for path in (ROOT / "fgl_app").rglob("*") if path.is_file()]
    # Without the caches of tools.
    package = {str(file) for file in files if file.suffix != ".pyc" and "/." not in str(file)}
    assert package <= names
    assert {f"fgl_app/configs/{file.name}" for file in (ROOT / "configs").glob("*.toml")} <= names
    assert not [name for name in names if not re.match(r"fgl_app(-[\d.]+\.dist-info)?/", name)]
    (licence,) = [name for name in names if name.endswith("/LICENSE")]
    assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()


def test_the_source_distribution_has_the_licence_and_nothing_that_git_ignores(dist):
    (file,) = dist.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        paths = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "constraints.txt", "hub/pyproject.toml"} <= paths
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    assert not [path for path in paths if path.split("/")[0] in ignored]


def test_the_readme_of_the_index_has_no_relative_link(metadata):
    assert metadata["Description-Content-Type"] == "text/markdown"
    text = metadata.get_payload(decode=True).decode()
    assert text.startswith("# FGL on Flower\n")
    assert not re.search(r"\]\((?!https?://)", text)
    assert "](https://flower.ai)" in text
    # The text of a link stays, and an image goes with its caption.
    assert "docs/concepts.md" in text
    assert "ten of 600 per class" not in text


def test_the_metadata_are_those_of_the_project(metadata):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata["Version"] == project["version"]
    assert metadata["License-Expression"] == project["license"]
    assert metadata.get_all("Classifier") == project["classifiers"]
    assert set(metadata.get_all("Provides-Extra")) == project["optional-dependencies"].keys()
