"""The site of a client: its name, its data, and where it writes."""

import pytest

from fgl_app.client.site import read_site
from fgl_app.config import parse_config


@pytest.mark.parametrize(
    ("node_config", "sentence"),
    [
        ({}, "needs --node-config with data-path and site-name"),
        ({"data-path": "/data"}, "needs --node-config with site-name"),
        ({"data-path": "/data", "site-name": "../x"}, "site-name must have at most 64 letters"),
    ],
)
def test_an_invalid_node_config_is_rejected(node_config, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_site(node_config, parse_config({"partitioning": "sites"}))


def test_the_server_does_not_choose_where_a_site_writes(tmp_path):
    config = parse_config({"partitioning": "sites", "client-state-dir": "/etc"})
    site = read_site({"data-path": "/data", "site-name": "a", "state-path": str(tmp_path)}, config)
    assert site.state == tmp_path / "a"
    assert "/etc" not in str(read_site({"data-path": "/data", "site-name": "a"}, config).state)
    # A dataset that is split follows the same rule: a node config can serve both kinds of runs.
    split = parse_config({"client-state-dir": "/etc"})
    node_config = {"partition-id": 0, "num-partitions": 2, "state-path": str(tmp_path)}
    assert read_site(node_config, split).state == tmp_path / "00000"
