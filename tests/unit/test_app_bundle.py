"""What Flower ships of this repository to every site."""

from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("app", [".", "examples/plug_in_fgl", "examples/plug_in_fedddpm"])
def test_the_bundle_is_one_that_flower_takes(app):
    """What `flwr build` and `flwr run` make, below Flower's limit of 10 MiB."""
    assert len(build_fab_from_disk(ROOT / app)) < 10 * 2**20
