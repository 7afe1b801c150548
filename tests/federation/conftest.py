"""Fixtures: a federation with keys and data that never ran."""

import shutil

import pytest

from fgl_app.config import parse_config
from fgl_app.federation.planning import plan_federation
from fgl_app.federation.preparation import prepare_federation
from fgl_app.federation.state import read_federation

IID = parse_config({"partitioning": "iid"})


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A prepared federation of two sites, not to be changed; its folder's name needs quotes."""
    folder = tmp_path_factory.mktemp("federation") / "it's a folder"
    folder.mkdir()
    return prepare_federation(plan_federation(folder, 2, IID, insecure=False).save(), lambda _: None)


@pytest.fixture
def federation(prepared, tmp_path):
    """A copy of the prepared federation."""
    return read_federation(shutil.copytree(prepared.folder, tmp_path / prepared.folder.name))
