"""Which federation `fgl federation up` starts."""

import pytest

from fgl_app.federation.planning import open_or_plan, plan_federation
from tests.federation.conftest import IID


@pytest.mark.parametrize(
    ("values", "sites", "expected"),
    [({}, None, 3), ({"num-clients": 4}, None, 4), ({}, 2, 2), ({"num-clients": 2}, 2, 2)],
)
def test_a_new_federation_has_the_requested_number_of_sites(tmp_path, values, sites, expected):
    federation = open_or_plan(tmp_path / "new", {"partitioning": "iid", **values}, sites, insecure=False)
    assert len(federation.sites) == expected
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("values", [{}, {"seed": 0}, {"num-clients": 2, "num-server-rounds": 4}])
def test_an_existing_federation_is_returned_unchanged(tmp_path, values):
    federation = plan_federation(tmp_path, 2, IID, insecure=False).save()
    assert open_or_plan(tmp_path, values, None, insecure=False) == federation
